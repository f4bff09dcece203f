"""`tulle history [KIND [NAME]]`: who changed what, when, and from where; with `--diff` what it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option

if TYPE_CHECKING:
    from tulle.client.api import ApiClient


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND [NAME]]")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace; the default where no KIND and no -n is given.")
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True)
@click.option("--diff", "diffs", is_flag=True, help="Show each change as a unified diff.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="How many changes at most; 0: all.")
@mesh_option
@click.pass_context
def history(
    ctx: click.Context,
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    output: str,
    diffs: bool,
    limit: int,
    kubeconfig: str | None,
) -> int:
    """Show who changed what, the newest first.

    REVISION is what `tulle rollback` goes back to: the mesh as it was after that change. Values of Secrets are not shown.
    """
    from tulle.cli.kinds import only, targets

    if diffs and output != "table":
        raise click.UsageError("found --diff beside -o; needed one of them")
    query = {"limit": str(limit)}
    everywhere = all_namespaces
    if words:
        wanted = targets(words)
        if len(wanted) > 1:
            raise click.UsageError("found several kinds or names, needed one of each at most")
        kind, name = wanted[0]
        query["resource"] = only(f"{kind.plural}.{kind.group}" if kind.group else kind.plural).resource
        if name:
            query["name"] = name
        everywhere |= not kind.namespaced
        if not kind.namespaced:
            query["namespace"] = ""
    else:
        everywhere |= ctx.get_parameter_source("namespace") is click.core.ParameterSource.DEFAULT
    if not everywhere:
        query["namespace"] = namespace

    async def ask(api: ApiClient) -> list[dict[str, Any]]:
        return list((await api.request("GET", "/tulle/v1/history", query=query))["changes"])

    changes = asked(connect(kubeconfig, ask))
    if output != "table":
        from tulle.cli.document import dump

        click.echo(dump({"changes": [{**change, "time": _time(change)} for change in changes]}, output), nl=False)
    elif not changes:
        click.echo("No changes are known.", err=True)
    elif diffs:
        for change in changes:
            _show(change)
    else:
        from tulle.cli.terminal import table

        header = ["revision", "time", "author", "address", "verb", *(["namespace"] if everywhere else []), "object"]
        click.echo(table(header, [_row(change, everywhere) for change in changes]))
    return 0


def _row(change: dict[str, Any], everywhere: bool) -> list[str]:
    who = [str(change["revision"]), _time(change), change["author"], change["address"] or "-", change["verb"]]
    return [*who, *([change["namespace"] or "-"] if everywhere else []), f"{change['resource']}/{change['name']}"]


def _show(change: dict[str, Any]) -> None:
    from tulle.cli.diff import show

    where = f"{change['resource']}/{change['namespace'] + '/' if change['namespace'] else ''}{change['name']}"
    source = f" from {change['address']}" if change["address"] else ""
    click.echo(f"revision {change['revision']}: {change['verb']} by {change['author']}{source} at {_time(change)}")
    if not show(change["before"], change["after"], f"before/{where}", f"after/{where}"):
        click.echo("(nothing of what people write has changed)")
    click.echo()


def _time(change: dict[str, Any]) -> str:
    return datetime.fromtimestamp(change["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
