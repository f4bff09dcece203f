"""The figures of the mesh, as commands ask for them and print them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from tulle.cli.connection import asked, connect
from tulle.cli.setting import Duration

if TYPE_CHECKING:
    from tulle.core.figures import By, Figures, Row, Table

window_option = click.option(
    "-t", "--window", type=Duration(), default="10m", show_default=True, help="How far back: the calls of these seconds."
)
all_option = click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
COLUMNS = ("success", "rps", "latency_p50", "latency_p95", "latency_p99", "secured")


def figures(kubeconfig: str | None, by: By, window: float, namespace: str) -> Table:
    """The figures of the last seconds that have to do with a namespace ("": all)."""
    import msgspec

    from tulle.core.figures import Table

    query = urlencode({"by": by, "seconds": window, "namespace": namespace})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/telemetry/figures?{query}")))
    found = msgspec.convert(answer, Table)
    noticed(found.notice)
    return found


def noticed(notice: str) -> None:
    """Say what people are to know of figures, beside them."""
    if notice:
        click.secho(f"‼ {notice}", err=True, fg="yellow")


def cells(row: Row) -> list[str]:
    """A row of a table: its key, and `COLUMNS`."""
    return [*row.key.values(), *shown(row.figures)]


def shown(found: Figures) -> list[str]:
    """The cells of `COLUMNS`."""
    latency = (found.p50, found.p95, found.p99)
    secured = "-" if found.secured is None else f"{100 * found.secured:.0f}%"
    success = "-" if found.success is None else f"{100 * found.success:.2f}%"
    return [success, f"{found.rate:.1f}", *("-" if one is None else _milliseconds(one) for one in latency), secured]


def _milliseconds(value: float) -> str:
    return f"{value:.1f}ms" if value < 10 else f"{value:.0f}ms"
