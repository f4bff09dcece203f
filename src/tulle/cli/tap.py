"""`tulle tap`: the requests of a workload while they happen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import mesh_option, namespace_option
from tulle.cli.looks import look, query, wanted_options
from tulle.cli.run import qualified
from tulle.cli.setting import Duration

if TYPE_CHECKING:
    from tulle.core.model.looks import Told


@click.command()
@click.argument("workload")
@wanted_options
@click.option("--for", "seconds", type=Duration(), default="5m", show_default=True, help="How long, at most (an hour).")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@namespace_option
@mesh_option
def tap(workload: str, seconds: float, output: str, namespace: str, kubeconfig: str | None, **wanted: Any) -> int:
    """Show the requests that WORKLOAD (NAME or NAMESPACE/NAME) makes and gets, as they end.

    Nothing has to be turned on, and nothing is paid for while nobody looks. It ends with this command, after --for at the latest.
    Of more than some hundred requests a second a share is shown, and it is said how large that is. Queries of paths, and headers
    that are not on a short list, are not shown.

    \b
    tulle tap productpage-v1
    tulle tap shop/cart-v2 --status 5xx -o json
    """
    asked = query(namespace, **wanted) | {"seconds": f"{seconds:g}"}

    def show(told: Told) -> None:
        import json

        for request in told.requests:
            click.echo(json.dumps(request, separators=(",", ":")) if output == "json" else line(request))

    return look(kubeconfig, f"/tulle/v1/tap/{qualified(workload, namespace)}", asked, show)


def line(request: dict[str, Any]) -> str:
    """One request: when, from whom, to where, what, and what came of it."""
    when = datetime.fromtimestamp(request["time"], UTC).strftime("%H:%M:%S.%f")[:-3]
    caller = _account(request.get("caller", "")) or request.get("address", "-")
    what = f"{request.get('method', '-')} {request.get('authority', '')}{request.get('path', '')}"
    came = [str(request.get("status", 0)), *([",".join(request["flags"])] if request.get("flags") else [])]
    took = f"{request.get('milliseconds', 0):g}ms"
    return f"{when} {_place(request.get('cluster', ''))} from {caller}: {what} {' '.join(came)} {took}"


def _account(principal: str) -> str:
    """`NAMESPACE/SERVICEACCOUNT` of a SPIFFE ID."""
    parts = principal.split("/")
    return f"{parts[-3]}/{parts[-1]}" if len(parts) >= 4 and parts[-4] == "ns" else principal


def _place(cluster: str) -> str:
    """`in 9080`, or `out reviews.default:9080 v2`, of a cluster's name."""
    parts = cluster.split("|")
    if len(parts) != 4:
        return cluster or "-"
    direction, port, subset, host = parts
    if direction == "inbound":
        return f"in {port}"
    return f"out {host.removesuffix('.svc.cluster.local')}:{port}" + (f" {subset}" if subset else "")
