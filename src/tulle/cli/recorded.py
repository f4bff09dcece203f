"""`tulle calls` and `tulle explain`: what single calls looked like, and why one of them got its status."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from tulle.cli.calls import all_option, noticed
from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.run import qualified
from tulle.cli.setting import Duration
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.core.explain import Explanation
    from tulle.core.model.recorded import Coverage, Record, Recorded, Shape

_COLUMNS = ["last", "seen by", "source", "destination", "method", "path", "code", "flags", "mtls", "policy", "seen", "p50", "p99"]
_MOST_NAMES = 8
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print it."
)


@click.command()
@click.option("--from", "source", default="", metavar="WORKLOAD", help="Calls that this workload made.")
@click.option("--to", "destination", default="", metavar="NAME", help="Calls to this workload or Service.")
@click.option("--method", default="", help="Calls with this method.")
@click.option("--path", default="", metavar="PREFIX", help="Calls whose path begins so.")
@click.option("--status", "code", default="", metavar="CODE", help="Calls with this status: 403, 5xx.")
@click.option("--failed", is_flag=True, help="Only calls that failed or were denied.")
@click.option("--since", type=Duration(), default="24h", show_default=True, help="Calls that were seen in this time.")
@all_option
@namespace_option
@mesh_option
@output_option
def calls(
    source: str,
    destination: str,
    method: str,
    path: str,
    code: str,
    failed: bool,
    since: float,
    all_namespaces: bool,
    namespace: str,
    kubeconfig: str | None,
    output: str,
) -> int:
    """Show the recorded calls, those that are alike as one row.

    It is a sample of all calls, and of those that failed or were denied as many as there was room for.

    \b
    tulle calls --to reviews --status 5xx
    tulle calls -A --failed -o json
    """
    import msgspec

    from tulle.core.model.recorded import Recorded

    query = {
        "source": qualified(source, namespace) if source else "",
        "destination": destination if "." in destination or not destination else qualified(destination, namespace),
        "namespace": "" if all_namespaces or source or destination else namespace,
        "method": method,
        "path": path,
        "code": code,
        "failed": "true" if failed else "",
        "seconds": str(since),
    }
    text = urlencode({name: value for name, value in query.items() if value})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/telemetry/recorded?{text}")))
    found = msgspec.convert(answer, Recorded)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(_named(found)), indent=2).decode())
        return 0
    rows = [_row(shape, record) for shape, record in sorted(found.rows, key=lambda one: -one[1].last)]
    click.echo(table(_COLUMNS, rows) if rows else "no calls were recorded", err=not rows)
    noticed(found.notice)
    click.echo(_said({name: one for name, one in found.coverage.items() if name in found.services}, found), err=True)
    return 0


@click.command()
@click.argument("request_id", required=False)
@click.option("--last-error", "workload", metavar="WORKLOAD", help="The last failed or denied call that WORKLOAD made or got.")
@namespace_option
@mesh_option
@output_option
def explain(request_id: str | None, workload: str | None, namespace: str, kubeconfig: str | None, output: str) -> int:
    """Say why a request got its status: which object and field decided, and what to do. REQUEST_ID is its `x-request-id`.

    \b
    tulle explain 5f1d0c3a-7a2e-4d56-9a1c-0d1e2f3a4b5c
    tulle explain --last-error productpage-v1
    """
    import msgspec

    from tulle.core.explain import Explanation

    if bool(request_id) == bool(workload):
        raise click.UsageError("needed a REQUEST_ID, or --last-error WORKLOAD")
    query = {"last-error": qualified(workload, namespace)} if workload else {"id": request_id}
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/explain?{urlencode(query)}")))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 0
    found = msgspec.convert(answer, Explanation)
    click.echo(answer["text"])
    click.echo(_hops(found), err=True)
    return 0


def _hops(found: Explanation) -> str:
    rows = [
        [
            shape.reporter,
            example.proxy,
            shape.code,
            shape.flags or "-",
            example.details or "-",
            example.endpoint or "-",
            f"{example.milliseconds:.0f}ms",
        ]
        for shape, example in found.hops
    ]
    return f"\nrequest {found.id or 'without an ID'}\n" + table(
        ["side", "proxy", "code", "flags", "details", "endpoint", "time"], rows
    )


def _row(shape: Shape, record: Record) -> list[str]:
    from tulle.core.model.calls import quantile

    times = [quantile(record.count, share) for share in (0.5, 0.99)]
    goal = shape.service or shape.destination or "unknown"
    return [
        _ago(record.last),
        shape.reporter,
        shape.source or "unknown",
        f"{goal}:{shape.port}",
        shape.method or shape.protocol,
        shape.path or "-",
        f"{shape.code}/{shape.grpc}" if shape.grpc else shape.code or "-",
        shape.flags or "-",
        "yes" if shape.mutual else "no",
        shape.policy or "-",
        str(record.count.calls),
        *("-" if one is None else f"{one:.1f}ms" for one in times),
    ]


def _ago(time: float) -> str:
    from time import time as now

    seconds = max(0, int(now() - time))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _said(coverage: dict[str, Coverage], found: Recorded) -> str:
    """How much of all calls that is: the proxies at both ends count, and both record."""
    from datetime import UTC, datetime

    seen = sum(one.seen for one in coverage.values())
    counted = sum(one.counted for one in coverage.values())
    failures = sum(one.failures_seen for one in coverage.values())
    all_failures = sum(one.failures_counted for one in coverage.values())
    since = datetime.fromtimestamp(found.covers, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"seen: {_of(seen, counted)} calls that proxies counted for these services since {since}; "
        f"of those that failed {_of(failures, all_failures)}"
    ]
    unseen = sorted(name or "unknown" for name, one in coverage.items() if one.counted and not one.seen)
    if unseen:
        lines.append(f"of these none was seen: {', '.join(unseen[:_MOST_NAMES])}{' ...' if len(unseen) > _MOST_NAMES else ''}")
    if found.dropped:
        lines.append(f"{found.dropped} calls were told of and not looked at: there were too many")
    return "\n".join(lines)


def _of(seen: int, counted: int) -> str:
    """The metrics come a little later than the record does: what was seen has been."""
    counted = max(seen, counted)
    share = f" ({min(100.0, 100 * seen / counted):.1f}%)" if counted else ""
    return f"{seen} of {counted}{share}"


def _named(found: Recorded) -> dict[str, object]:
    """With names of fields, which the wire has not."""
    import msgspec

    rows = []
    for shape, record in found.rows:
        said = msgspec.structs.asdict(record)
        said["count"] = msgspec.structs.asdict(record.count)
        said["examples"] = [msgspec.structs.asdict(one) for one in record.examples]
        rows.append({**msgspec.structs.asdict(shape), **said})
    coverage = {name: msgspec.structs.asdict(one) for name, one in found.coverage.items()}
    return {"begins": found.begins, "covers": found.covers, "dropped": found.dropped, "coverage": coverage, "calls": rows}
