"""`tulle apply`: every file is read and judged before the first object is written; what others need is written first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.files import Given, errors, files_option, read
from tulle.cli.terminal import fail, say, warn
from tulle.kit.errors import BadData, TulleError

if TYPE_CHECKING:
    from tulle.client.api import ApiClient
    from tulle.kit.problem import Problem

MANAGER = "tulle"
# Field managers that are a person at a shell: whoever applies a file by hand may change what was applied or edited by hand.
HANDS = frozenset(
    {MANAGER, "kubectl", "kubectl-client-side-apply", "kubectl-create", "kubectl-edit", "kubectl-patch", "kubectl-replace"}
)
# What others refer to comes first; kinds that are not named here come in the middle.
ORDER = ("Namespace", "ServiceAccount", "Service", "WorkloadEntry", "ServiceEntry", "DestinationRule", "GatewayClass", "Gateway")
LAST = ("ReferenceGrant", "VirtualService", "HTTPRoute")


@click.command()
@files_option()
@namespace_option
@mesh_option
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    show_default=True,
    help="client: check only. server: let the server go through with it, and write nothing.",
)
@click.option("--force-conflicts", is_flag=True, help="Take over fields that another program or person applied.")
@click.pass_context
def apply(
    ctx: click.Context, files: tuple[str, ...], namespace: str, kubeconfig: str | None, dry_run: str, force_conflicts: bool
) -> int:
    """Create or change objects from files.

    All of them are checked first, also against what the mesh has: where one has a mistake, nothing is written (exit status 65).
    """
    given = checked_files(ctx, files, namespace)
    return asked(connect(kubeconfig, lambda api: _apply(api, given, dry_run, force_conflicts)))


def checked_files(ctx: click.Context, files: tuple[str, ...], namespace: str) -> list[Given]:
    """The objects of the files, without a mistake that can be seen in them alone; warnings are printed. Raises `BadData`."""
    from click.core import ParameterSource

    insist = ctx.get_parameter_source("namespace") is ParameterSource.COMMANDLINE
    given, problems = read(files, namespace, insist=insist)
    refuse(problems)
    if not given:
        raise TulleError(f"{', '.join(files)}: found no objects")
    return given


def refuse(problems: list[Problem]) -> None:
    """Print the warnings; raise `BadData` where there are errors. In the order of files and lines."""

    def place(problem: Problem) -> tuple[str, int, int]:
        at = problem.location
        return (at.file, at.line, at.column) if at else ("", 0, 0)

    ordered = sorted(problems, key=place)
    wrong = errors(ordered)
    for problem in ordered:
        if problem not in wrong:
            warn(str(problem))
    if wrong:
        raise BadData(wrong)


def in_order(given: list[Given]) -> list[Given]:
    """Namespaces first, routes last; otherwise as the files have them."""

    def rank(item: Given) -> int:
        kind = item.kind.kind
        if kind in ORDER:
            return ORDER.index(kind)
        return len(ORDER) + 1 + LAST.index(kind) if kind in LAST else len(ORDER)

    return sorted(given, key=rank)


async def _apply(api: ApiClient, given: list[Given], dry_run: str, force: bool) -> int:
    from tulle.cli.meaning import judge, live

    refuse(judge(await live(api), given))
    done: list[Given] = []
    ordered = in_order(given)
    for item in ordered:
        try:
            word = await _write(api, item, dry_run, force)
        except TulleError as error:
            _report(item, error, done, ordered, dry_run)
            return int(error.exit)
        done.append(item)
        click.echo(f"{item.shown} {word}")
    return 0


async def _write(api: ApiClient, item: Given, dry_run: str, force: bool) -> str:
    """What became of the object, in kubectl's words."""
    from tulle.client.errors import NotFound

    try:
        before = await api.get(item.kind, item.name, item.namespace or None)
    except NotFound:
        before = None
    if dry_run == "client":
        return f"{'created' if before is None else 'configured'} (dry run)"
    by_hand = before is not None and {entry.get("manager") for entry in before["metadata"].get("managedFields", ())} <= HANDS
    after = await api.apply(item.raw, field_manager=MANAGER, force=force or by_hand, dry_run=dry_run == "server")
    if before is None:
        word = "created"
    elif _essence(before) == _essence(after):
        word = "unchanged"
    else:
        word = "configured"
    return f"{word} (server dry run)" if dry_run == "server" else word


def _essence(raw: dict[str, object]) -> dict[str, object]:
    """The object without what every write changes."""
    metadata = raw.get("metadata")
    kept = {"managedFields", "resourceVersion", "generation"}
    slim = {name: value for name, value in metadata.items() if name not in kept} if isinstance(metadata, dict) else metadata
    return {**{name: value for name, value in raw.items() if name != "status"}, "metadata": slim}


def _report(item: Given, error: TulleError, done: list[Given], all_: list[Given], dry_run: str) -> None:
    """A write failed midway: the reason, and what was and what was not written."""
    from tulle.client.errors import WriteConflict

    hint = error.hint
    if isinstance(error, WriteConflict) and not hint:
        hint = "--force-conflicts takes those fields over"
    place = item.locate("metadata.name")
    fail(f"{f'{place}: ' if place else ''}{item.shown}: {error.message}", hint)
    rest = [it.shown for it in all_ if it not in done]
    if dry_run == "none" and len(all_) > 1:
        say(f"applied: {', '.join(it.shown for it in done) or 'nothing'}")
        say(f"not applied: {', '.join(rest)}")
