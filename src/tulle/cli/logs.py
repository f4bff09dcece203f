"""`tulle logs`: the access log of a workload, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import mesh_option, namespace_option
from tulle.cli.looks import look, query, wanted_options
from tulle.cli.run import qualified

if TYPE_CHECKING:
    from tulle.core.model.looks import Told


@click.command()
@click.argument("workload")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--tail", type=click.IntRange(0, 100_000), default=200, show_default=True, help="How many lines of before.")
@wanted_options
@namespace_option
@mesh_option
def logs(workload: str, follow: bool, tail: int, namespace: str, kubeconfig: str | None, **wanted: Any) -> int:
    """Show the access log of WORKLOAD (NAME or NAMESPACE/NAME), as its proxy writes it.

    Logs are off until a Telemetry says otherwise: see docs/tasks/access-logs.md. `tulle tap` shows requests without one. Lines of
    a format of your own can only be shown whole; --tail counts lines before they are chosen from.

    \b
    tulle logs productpage-v1 --tail 20
    tulle logs shop/cart-v2 -f --status 5xx --from shop/frontend
    """
    asked = query(namespace, **wanted) | {"tail": str(tail), "follow": "true" if follow else "false"}

    def show(told: Told) -> None:
        for line in told.lines:
            click.echo(line)

    return look(kubeconfig, f"/tulle/v1/logs/{qualified(workload, namespace)}", asked, show)
