"""`tulle delete KIND NAME...` and `tulle delete -f FILE`: what points to others goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.files import files_option
from tulle.cli.terminal import fail

if TYPE_CHECKING:
    from tulle.api.object import Kind
    from tulle.client.api import ApiClient


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME...]")
@files_option(required=False)
@namespace_option
@click.option("-l", "--selector", default="", metavar="LABELS", help="Those of KIND with these labels.")
@click.option("--all", "every", is_flag=True, help="All of KIND in the namespace.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is not an error.")
@mesh_option
@click.pass_context
def delete(
    ctx: click.Context,
    words: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    selector: str,
    every: bool,
    ignore_not_found: bool,
    kubeconfig: str | None,
) -> int:
    """Delete objects, by name or as files have them."""
    if bool(words) == bool(files):
        raise click.UsageError("needed KIND NAME... or -f FILE" + (", not both" if words else ""))
    if files:
        from tulle.cli.apply import checked_files, in_writing_order

        gone = [
            (item.kind, item.name, item.namespace) for item in reversed(in_writing_order(checked_files(ctx, files, namespace)))
        ]
        return asked(connect(kubeconfig, lambda api: _delete(api, gone, ignore_not_found)))
    from tulle.cli.kinds import targets

    wanted = targets(words)
    if any(not name for _, name in wanted) and not (every or selector):
        raise click.UsageError("needed a name, -l LABELS or --all")
    if (every or selector) and any(name for _, name in wanted):
        raise click.UsageError("a name was given beside -l or --all; needed one of them")

    async def ask(api: ApiClient) -> int:
        found = []
        for kind, name in wanted:
            if name:
                found.append((kind, name, namespace))
            else:
                answer = await api.list(kind, namespace if kind.namespaced else None, label_selector=selector)
                found += [(kind, raw["metadata"]["name"], namespace) for raw in answer.get("items", [])]
        return await _delete(api, found, ignore_not_found)

    return asked(connect(kubeconfig, ask))


async def _delete(api: ApiClient, gone: list[tuple[Kind, str, str]], ignore_not_found: bool) -> int:
    """All that can be deleted, with a line for each; 1 where one was not there or could not be."""
    from tulle.client.errors import NotFound
    from tulle.kit.errors import Refused

    status = 0
    for kind, name, namespace in gone:
        singular = f"{kind.singular}.{kind.group}" if kind.group else kind.singular
        try:
            await api.delete(kind, name, namespace or None)
            click.echo(f'{singular} "{name}" deleted')
        except NotFound as error:
            if not ignore_not_found:
                fail(error.message)
                status = 1
        except Refused as error:
            fail(f'{singular} "{name}": {error.message}', error.hint)
            status = 1
    return status
