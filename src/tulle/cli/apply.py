"""`tulle apply`: every file is read and judged before the first object is written; what others need is written first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.files import Given, files_option, read
from tulle.cli.setting import Duration
from tulle.cli.terminal import fail, say, warn
from tulle.core.analyze.finding import Finding, finding, in_order
from tulle.kit.errors import BadData, TulleError
from tulle.kit.problem import Problem, Severity

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

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
@click.option("--wait", is_flag=True, help="Then wait until every connected proxy has acknowledged what was written.")
@click.option("--timeout", type=Duration(), default="60s", show_default=True, help="How long --wait waits.")
@click.pass_context
def apply(
    ctx: click.Context,
    files: tuple[str, ...],
    namespace: str,
    kubeconfig: str | None,
    dry_run: str,
    force_conflicts: bool,
    wait: bool,
    timeout: float,
) -> int:
    """Create or change objects from files.

    All of them are checked first, also against what the mesh has: where one has a mistake, nothing is written (exit status 65).
    With --wait, the exit status is 1 where a proxy has not acknowledged in time.
    """
    if wait and dry_run != "none":
        raise click.UsageError("found --wait with --dry-run, which writes nothing to wait for; needed one of the two")
    given = checked_files(ctx, files, namespace)
    run = Run(dry_run, force_conflicts)

    async def ask(api: ApiClient) -> int:
        code = await _apply(api, given, run)
        if not wait or code:
            return code
        from tulle.cli.wait import behind, until_synced

        answer = await until_synced(api, run.revision, timeout)
        if answer["synced"]:
            say(f"all {answer['proxies']} proxies have revision {answer['revision']}")
            return 0
        behind(answer, timeout)
        return 1

    return asked(connect(kubeconfig, ask))


@dataclass
class Run:
    """One `apply`: how it writes, and the newest revision of what it wrote."""

    dry_run: str
    force: bool
    revision: int = 0
    made: set[str] = field(default_factory=set)  # namespaces that the server has only said that it would make


def checked_files(ctx: click.Context, files: tuple[str, ...], namespace: str) -> list[Given]:
    """The objects of the files, without a mistake that can be seen in them alone; warnings are printed. Raises `BadData`."""
    from click.core import ParameterSource

    insist = ctx.get_parameter_source("namespace") is ParameterSource.COMMANDLINE
    given, problems = read(files, namespace, insist=insist)
    refuse([finding(problem) for problem in problems])
    if not given:
        raise TulleError(f"{', '.join(files)}: found no objects")
    return given


async def judged(api: ApiClient, given: list[Given]) -> None:
    """Print what the mesh warns of; raise `BadData` where it would not work, in words that say why."""
    from tulle.cli.meaning import as_warnings, judge

    refuse(as_warnings(await judge(api, given), given))


def refuse(found: list[Finding]) -> None:
    """Print the warnings; raise `BadData` where there are errors. In the order of files and lines."""
    wrong = []
    for one in in_order(found):
        if one.severity is Severity.ERROR:
            wrong.append(Problem(one.ref, one.path, "", f"{one.message} [{one.code}]", location=one.location))
        elif one.severity is Severity.WARNING:
            warn(str(one))
    if wrong:
        raise BadData(wrong, hint="tulle analyze --explain CODE says more of a code")


def in_writing_order(given: list[Given]) -> list[Given]:
    """Namespaces first, routes last; otherwise as the files have them."""

    def rank(item: Given) -> int:
        kind = item.kind.kind
        if kind in ORDER:
            return ORDER.index(kind)
        return len(ORDER) + 1 + LAST.index(kind) if kind in LAST else len(ORDER)

    return sorted(given, key=rank)


async def _apply(api: ApiClient, given: list[Given], run: Run) -> int:
    await judged(api, given)
    done: list[Given] = []
    ordered = in_writing_order(given)
    for item in ordered:
        try:
            word = await _write(api, item, run)
        except TulleError as error:
            _report(item, error, done, ordered, run.dry_run)
            return int(error.exit)
        done.append(item)
        click.echo(f"{item.shown} {word}")
    return 0


async def _write(api: ApiClient, item: Given, run: Run) -> str:
    """What became of the object, in kubectl's words."""
    from tulle.client.errors import NotFound

    try:
        before = await api.get(item.kind, item.name, item.namespace or None)
    except NotFound:
        before = None
    if run.dry_run == "client":
        return f"{'created' if before is None else 'configured'} (dry run)"
    if run.dry_run == "server" and item.namespace in run.made:
        # The server would say that the namespace is not there, which it will be when the files are applied.
        return f"created (not tried: namespace {item.namespace} is made in the same run)"
    by_hand = before is not None and _managers(before) <= HANDS
    dry = run.dry_run == "server"
    after = await api.apply(item.raw, field_manager=MANAGER, force=run.force or by_hand, dry_run=dry)
    run.revision = max(run.revision, int(after["metadata"].get("resourceVersion") or 0))
    if before is None:
        word = "created"
        if dry and item.kind.kind == "Namespace":
            run.made.add(item.name)
    elif _essence(before) == _essence(after):
        word = "unchanged"
    else:
        word = "configured"
    return f"{word} (server dry run)" if dry else word


def _managers(raw: dict[str, Any]) -> set[str]:
    """Who manages fields of an object, but for its status, which nobody applies."""
    entries = raw["metadata"].get("managedFields", ())
    return {str(entry.get("manager")) for entry in entries if not entry.get("subresource")}


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
