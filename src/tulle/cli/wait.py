"""`tulle wait --for=synced`: until every connected proxy has acknowledged a revision."""

from __future__ import annotations

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.setting import Duration
from tulle.cli.terminal import fail


@click.command()
@click.option("--for", "what", type=click.Choice(["synced"]), required=True, help="synced: every proxy has acknowledged.")
@click.option("--revision", type=click.IntRange(0), help="What it must have acknowledged. Default: all that was written so far.")
@click.option("--timeout", type=Duration(), default="20s", show_default=True, help="How long to wait.")
@mesh_option
def wait(what: str, revision: int | None, timeout: float, kubeconfig: str | None) -> int:
    """Wait until every connected proxy has what was written. Exit status 1 where one has not by then."""
    query = {"timeout": f"{timeout:g}"} | ({"revision": str(revision)} if revision is not None else {})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/synced", query=query, timeout=timeout + 10)))
    if answer["synced"]:
        click.echo(f"{what} to revision {answer['revision']}")
        return 0
    behind = ", ".join(answer["behind"])
    fail(
        f"after {timeout:g} s without revision {answer['revision']}: {behind}",
        "`tulle proxy status NAME` says what each of them misses",
    )
    return 1
