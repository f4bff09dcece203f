"""`tulle diff`: what `tulle apply` would change, by the server's own dry run."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.apply import MANAGER, checked_files, in_writing_order, judged
from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.files import Given, files_option
from tulle.cli.terminal import fail, plain

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@files_option()
@namespace_option
@mesh_option
@click.pass_context
def diff(ctx: click.Context, files: tuple[str, ...], namespace: str, kubeconfig: str | None) -> int:
    """Show what apply would change. Exit status 0: nothing, 1: something, above 1: it could not be told."""
    from tulle.kit.errors import BadData, TulleError

    try:
        given = checked_files(ctx, files, namespace)
        return asked(connect(kubeconfig, lambda api: _diff(api, given)))
    except BadData:
        raise
    except TulleError as error:
        fail(error.message, error.hint)
        return 2


async def _diff(api: ApiClient, given: list[Given]) -> int:
    from tulle.client.errors import NotFound

    await judged(api, given)
    changed = 0
    for item in in_writing_order(given):
        try:
            before: dict[str, Any] | None = await api.get(item.kind, item.name, item.namespace or None)
        except NotFound:
            before = None
        after = await api.apply(item.raw, field_manager=MANAGER, force=True, dry_run=True)
        where = f"{item.kind.resource}/{item.namespace + '/' if item.namespace else ''}{item.name}"
        changed |= show(before, after, f"live/{where}", f"applied/{where}")
    return int(changed)


def show(before: dict[str, Any] | None, after: dict[str, Any] | None, left: str, right: str) -> bool:
    """Print a change as a unified diff of YAML, of a Secret without its values; whether there is one.

    `left` and `right` are what the sides are called.
    """
    from tulle.api.redaction import redacted

    before, after = redacted(before, after)
    lines = list(difflib.unified_diff(_lines(before), _lines(after), left, right, lineterm=""))
    for line in lines:
        click.echo(click.style(line, fg=COLOURS.get(line[:1])), color=False if plain() else None)
    return bool(lines)


def _lines(raw: dict[str, Any] | None) -> list[str]:
    """As YAML, without what the server writes for itself."""
    from tulle.cli.document import dump

    if raw is None:
        return []
    noise = {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"}
    metadata = {name: value for name, value in raw.get("metadata", {}).items() if name not in noise}
    said = {**{name: value for name, value in raw.items() if name != "status"}, "metadata": metadata}
    return dump(_canonical(said), "yaml").splitlines()


def _canonical(value: Any) -> Any:
    """The same however it was written: fields in one order, whole numbers without a fraction (kubectl makes `100.0` 100)."""
    if isinstance(value, dict):
        return {name: _canonical(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
