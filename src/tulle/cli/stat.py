"""`tulle stat`, `tulle edges` and `tulle routes`: how the services do, and who calls whom, by what the proxies have counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tulle.cli.calls import COLUMNS, all_option, cells, figures, window_option
from tulle.cli.connection import mesh_option, namespace_option
from tulle.cli.run import qualified
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.core.figures import By


@click.command()
@click.argument("service", required=False)
@window_option
@all_option
@namespace_option
@mesh_option
def stat(service: str | None, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show success, requests a second, latency and the share of mutual TLS of the services of a namespace, or of one SERVICE.

    Counted by the proxies of the called, and by those of callers for services that have none.

    \b
    tulle stat
    tulle stat reviews --window 1m
    """
    from tulle.core.figures import By

    return _show(By.SERVICE, service, window, all_namespaces, namespace, kubeconfig)


@click.command()
@window_option
@all_option
@namespace_option
@mesh_option
def edges(window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show who calls whom in a namespace: each pair of workloads, and how its calls go."""
    from tulle.core.figures import By

    return _show(By.EDGE, None, window, all_namespaces, namespace, kubeconfig)


@click.command()
@click.argument("service", required=False)
@window_option
@all_option
@namespace_option
@mesh_option
def routes(service: str | None, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show the same of each route by which callers' proxies sent requests, of a namespace's services or of one SERVICE.

    A route is named after the object and the rule that made it; `default` is by no rule.
    """
    from tulle.core.figures import By

    return _show(By.ROUTE, service, window, all_namespaces, namespace, kubeconfig)


def _show(by: By, service: str | None, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    from tulle.core.figures import FIELDS

    wanted = qualified(service, namespace) if service else ""
    space = "" if all_namespaces else wanted.partition("/")[0] or namespace
    found = figures(kubeconfig, by, window, space)
    rows = [cells(row) for row in found.rows if not wanted or row.key["service"] == wanted]
    click.echo(table([*FIELDS[by], *COLUMNS], rows) if rows else "no calls were counted", err=not rows)
    return 0
