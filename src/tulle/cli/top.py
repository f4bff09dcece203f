"""`tulle top`: the busiest first, redrawn as nodes report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tulle.cli.calls import COLUMNS, all_option, cells, figures, window_option
from tulle.cli.connection import mesh_option, namespace_option
from tulle.cli.setting import Duration
from tulle.cli.terminal import live, table

if TYPE_CHECKING:
    from tulle.core.figures import Row

_SORTS = ("rps", "failures", "p99")


@click.command()
@click.option(
    "--by",
    type=click.Choice(("service", "workload", "edge", "route")),
    default="service",
    show_default=True,
    help="What a row is.",
)
@click.option("--sort", type=click.Choice(_SORTS), default="rps", show_default=True, help="What comes first.")
@click.option("--every", type=Duration(), default="5s", show_default=True, help="How often it is asked.")
@click.option("--lines", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many rows.")
@window_option
@all_option
@namespace_option
@mesh_option
def top(
    by: str,
    sort: str,
    every: float,
    lines: int,
    window: float,
    all_namespaces: bool,
    namespace: str,
    kubeconfig: str | None,
) -> int:
    """Show the busiest rows, and draw them anew until Ctrl-C; in a pipe once."""
    from tulle.core.figures import FIELDS, By

    while True:
        found = figures(kubeconfig, By(by), window, "" if all_namespaces else namespace)
        rows = sorted(found.rows, key=lambda row: _weight(row, sort), reverse=True)[:lines]
        text = table([*FIELDS[By(by)], *COLUMNS], [cells(row) for row in rows])
        if not live(err=False):
            click.echo(text)
            return 0
        click.clear()
        click.echo(f"{time.strftime('%H:%M:%S')}  last {window:g}s, {len(found.rows)} rows, first by {sort}\n\n{text}")
        time.sleep(max(1.0, every))


def _weight(row: Row, sort: str) -> float:
    found = row.figures
    return found.rate if sort == "rps" else found.failures if sort == "failures" else found.p99 or 0.0
