"""`tulle rollback`: one object or the whole mesh as it was at a revision of `tulle history`; shown first, then done at once."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option

if TYPE_CHECKING:
    from tulle.client.api import ApiClient


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME]")
@click.option("--to", "one", type=click.IntRange(1), metavar="REVISION", help="With KIND NAME: where that object goes back to.")
@click.option("--to-revision", "whole", type=click.IntRange(1), metavar="REVISION", help="Where the whole mesh goes back to.")
@namespace_option
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the whole mesh goes back: for scripts.")
@mesh_option
def rollback(
    words: tuple[str, ...],
    one: int | None,
    whole: int | None,
    namespace: str,
    dry_run: bool,
    yes: bool,
    kubeconfig: str | None,
) -> int:
    """Bring an object, or the whole mesh, back to how it was.

    What was deleted since is made again, what was made since is deleted, what was changed is as it was: all of it or nothing.
    Status stays as it is, and so do the workloads that nodes have registered. A rollback is in the history like any change,
    and is itself rolled back by going to the revision before it.
    """
    if bool(words) == (whole is not None) or bool(words) != (one is not None):
        raise click.UsageError("needed KIND NAME --to REVISION, or --to-revision REVISION")
    body: dict[str, Any] = {"revision": one or whole}
    if words:
        from tulle.cli.kinds import targets

        wanted = targets(words)
        if len(wanted) != 1 or not wanted[0][1]:
            raise click.UsageError("needed one KIND and one NAME")
        kind, name = wanted[0]
        body |= {"resource": kind.resource, "namespace": namespace if kind.namespaced else "", "name": name}
    return asked(connect(kubeconfig, lambda api: _rollback(api, body, dry_run, yes or bool(words))))


async def _rollback(api: ApiClient, body: dict[str, Any], dry_run: bool, sure: bool) -> int:
    from tulle.cli.terminal import say, warn

    plan = await _ask(api, {**body, "dryRun": True})
    for warning in plan["warnings"]:
        warn(warning)
    if plan["left"]:
        say(f"{_count(len(plan['left']), 'object')} that nodes registered since: left as they are")
    if not plan["changes"]:
        say(f"nothing to do: it is as it was at revision {body['revision']}")
        return 0
    _show(plan["changes"])
    if dry_run:
        return 0
    if not sure:
        _confirm(plan["changes"])
    done = await _ask(api, {**body, "plan": plan["plan"]})
    click.echo(f"rolled back to revision {body['revision']}; this is revision {done['revision']}")
    return 0


async def _ask(api: ApiClient, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = await api.request("POST", "/tulle/v1/rollback", body=body)
    return answer


def _show(changes: list[dict[str, Any]]) -> None:
    from tulle.cli.diff import show

    for change in changes:
        where = f"{change['resource']}/{change['namespace'] + '/' if change['namespace'] else ''}{change['name']}"
        show(change["before"], change["after"], f"now/{where}", f"rollback/{where}")


def _confirm(changes: list[dict[str, Any]]) -> None:
    """Raises where the person says no, or nobody can be asked."""
    counted = Counter(change["action"] for change in changes)
    said = ", ".join(f"{action} {counted[action]}" for action in ("create", "update", "delete") if counted[action])
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would change {_count(len(changes), 'object')} ({said}), and nobody can be asked: needed --yes"
        )
    click.confirm(f"Roll back {_count(len(changes), 'object')} ({said})?", abort=True, err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
