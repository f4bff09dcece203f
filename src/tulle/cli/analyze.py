"""`tulle analyze`: what is wrong with files, with the mesh, and with what the files would make of the mesh."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, kubeconfig_path, mesh_option, namespace_option
from tulle.cli.terminal import fail, plain, say
from tulle.core.analyze.codes import BY_CODE, CODES, SUBJECTS
from tulle.core.analyze.finding import RANK, Finding, counted, finding, in_order
from tulle.kit.errors import Exit, TulleError, Unavailable
from tulle.kit.problem import Problem, Severity

if TYPE_CHECKING:
    from tulle.cli.files import Given

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
# What GitHub calls them, so that they stand beside the lines of a pull request.
GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
# Codes of a text that could not be read at all: whatever else was in it was not judged.
UNREADABLE = ("TUL0601", "TUL0602", "TUL0603")


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|DIR|-]...")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Of the mesh: every namespace, and what belongs to none.")
@click.option("-R", "--recursive", is_flag=True, help="Folders with those below them.")
@click.option(
    "--live/--no-live", default=None, help="Beside the mesh, or the files alone. Default: beside the mesh where one answers."
)
@click.option("-o", "--output", type=click.Choice(["log", "json", "yaml", "github"]), default="log", show_default=True)
@click.option(
    "--failure-threshold",
    "threshold",
    type=click.Choice(["Error", "Warning", "Info"], case_sensitive=False),
    default="Error",
    show_default=True,
    help="The exit status is 79 where something is at least as bad.",
)
@click.option(
    "-S",
    "--suppress",
    multiple=True,
    metavar="CODE[=KIND NS/NAME]",
    help="Do not tell a code, at all or of these objects; * and ? stand for others. Repeatable.",
)
@click.option("--color/--no-color", default=None, help="Default: on a terminal, without NO_COLOR.")
@click.option("--list", "list_", is_flag=True, help="Print every code.")
@click.option("--explain", metavar="CODE", help="Print what a code means, and what to do.")
@mesh_option
def analyze(
    files: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    recursive: bool,
    live: bool | None,
    output: str,
    threshold: str,
    suppress: tuple[str, ...],
    color: bool | None,
    list_: bool,
    explain: str | None,
    kubeconfig: str | None,
) -> int:
    """Look for mistakes in files and in the mesh, each with a code (TUL0101) that never changes its meaning.

    Without files: the mesh as it is, of the namespace or with -A of all. With files: what they would do to the mesh, or with
    --no-live (or where there is no mesh) the files alone. Nothing is written. Exit status 79 where something was found, 65 where
    a file cannot be read.
    """
    if list_:
        click.echo(_table())
        return 0
    if explain is not None:
        return _explained(explain)
    suppressed = [_Suppression(text) for text in suppress]
    if not files and live is False:
        raise click.UsageError("found neither files nor the mesh to look at; needed one of the two")
    unread = False
    if files:
        from tulle.cli.files import read

        try:
            given, problems = read(files, namespace, recursive=recursive)
        except TulleError as error:
            fail(error.message, error.hint)
            return Exit.BAD_DATA
        found = _of_files(given, problems, live, kubeconfig)
        unread = any(one.code in UNREADABLE for one in found)
    else:
        found = _of_mesh(kubeconfig, None if all_namespaces else namespace)
    found = in_order([one for one in found if not any(this.covers(one) for this in suppressed)])
    _print(found, output, color)
    if unread:
        return Exit.BAD_DATA
    least = RANK[Severity(threshold.lower())]
    return Exit.FINDINGS if any(RANK[one.severity] <= least for one in found) else 0


def _of_files(given: list[Given], problems: list[Problem], live: bool | None, kubeconfig: str | None) -> list[Finding]:
    """Of the documents themselves, and of what the objects mean: beside the mesh, or alone."""
    from tulle.core.analyze.findings import is_suppressed
    from tulle.core.analyze.inputs import suppressed_by

    words = {item.ref: suppressed_by(item.object) for item in given if item.problems}
    own = [finding(one) for one in problems if not (one.ref in words and is_suppressed(one, words[one.ref]))]
    beside = None if live is False else _beside(given, kubeconfig, insist=live is True)
    return own + (_alone(given) if beside is None else beside)


def _beside(given: list[Given], kubeconfig: str | None, *, insist: bool) -> list[Finding] | None:
    """What the control plane says; None where none is known or answers, and nobody insisted."""
    try:
        kubeconfig_path(kubeconfig)
        from tulle.cli.meaning import judge

        return asked(connect(kubeconfig, lambda api: judge(api, given)))
    except Unavailable as away:
        if insist:
            raise
        say(f"no mesh answers ({away.message}): the files are judged alone")
        return None


def _alone(given: list[Given]) -> list[Finding]:
    import time

    from tulle.cli.meaning import placed
    from tulle.core.analyze.analysis import analyze
    from tulle.core.analyze.inputs import Scope

    return placed([finding(one) for one in analyze((item.object for item in given), Scope(time.time()))], given)


def _of_mesh(kubeconfig: str | None, namespace: str | None) -> list[Finding]:
    """The mesh as it is; of one namespace, or with None all of it."""
    from tulle.cli.meaning import standing

    found = asked(connect(kubeconfig, standing))
    return [one for one in found if namespace is None or (one.ref is not None and one.ref.namespace == namespace)]


class _Suppression:
    """`-S CODE=KIND NS/NAME`; the code may be one of istioctl's."""

    def __init__(self, text: str) -> None:
        self.code, equals, self.object = text.partition("=")
        if not self.code or (equals and not self.object):
            raise click.BadParameter(f"found {text!r}, needed CODE or CODE=KIND NS/NAME, such as 'TUL0501=Sidecar shop/*'")
        known = {name for code in CODES for name in (code.code, *code.istio)}
        if not any(fnmatchcase(name, self.code) for name in known):
            raise click.BadParameter(f"found {self.code!r}, which is no code; `tulle analyze --list` has them")

    def covers(self, one: Finding) -> bool:
        """Whether a finding is not to be told."""
        names = (one.code, *BY_CODE[one.code].istio)
        return any(fnmatchcase(name, self.code) for name in names) and (
            not self.object or (one.ref is not None and fnmatchcase(str(one.ref), self.object))
        )


def _print(found: Sequence[Finding], output: str, color: bool | None) -> None:
    if output in ("json", "yaml"):
        from tulle.cli.document import dump

        click.echo(dump([_row(one) for one in found], output), nl=False)
        return
    told: set[str] = set()
    for one in found:
        click.echo(_annotation(one) if output == "github" else _line(one, color, hint=one.code not in told), color=color)
        told.add(one.code)
    if output == "log":
        say(counted(found))


def _line(one: Finding, color: bool | None, *, hint: bool) -> str:
    """`reviews.yaml:12:9: error: VirtualService default/reviews: spec.hosts[0]: message [TUL0101]`, and below it what to do."""

    def styled(text: str, **how: Any) -> str:
        return click.style(text, **how) if color or (color is None and not plain()) else text

    where = ": ".join(filter(None, (str(one.ref) if one.ref else "", one.path)))
    parts = [str(one.location)] if one.location else []
    parts += [styled(one.severity.value, fg=COLOURS[one.severity], bold=True), *([where] if where else []), one.message]
    line = f"{': '.join(parts)} [{one.code}]"
    return f"{line}\n    {styled('hint:', fg='cyan')} {one.hint}" if hint else line


def _row(one: Finding) -> dict[str, Any]:
    """A finding for programs. What it has not is left out."""
    row: dict[str, Any] = {"code": one.code, "severity": one.severity.value, "title": BY_CODE[one.code].title}
    if one.ref:
        row |= {"group": one.ref.group, "kind": one.ref.kind, "namespace": one.ref.namespace, "name": one.ref.name}
    row |= {"path": one.path, "message": one.message, "hint": one.hint}
    if one.location:
        row |= {"file": one.location.file, "line": one.location.line, "column": one.location.column}
    return {field: value for field, value in row.items() if value != ""}


def _annotation(one: Finding) -> str:
    """A workflow command of GitHub."""
    at = one.location
    properties = {"file": at.file, "line": str(at.line), "col": str(at.column)} if at else {}
    properties["title"] = f"{one.code} {BY_CODE[one.code].title}"
    said = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    text = ": ".join(filter(None, (str(one.ref) if one.ref else "", one.path, one.message)))
    return f"::{GITHUB[one.severity]} {said}::{_escaped(f'{text} ({one.hint})')}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _table() -> str:
    """Every code, by subject."""
    from tulle.cli.terminal import table

    rows = [(code.code, code.severity.value, SUBJECTS[code.code[3:5]], code.title) for code in CODES]
    return table(("code", "severity", "subject", "title"), rows)


def _explained(name: str) -> int:
    wanted = name.upper()
    found = [code for code in CODES if wanted in (code.code, *code.istio)]
    if not found:
        import difflib

        near = difflib.get_close_matches(wanted, BY_CODE, n=1)
        raise click.BadParameter(
            f"found {name!r}, which is no code{f'; did you mean {near[0]}?' if near else ''}", param_hint="--explain"
        )
    for code in found:
        click.echo(f"{code.code} ({code.severity.value}): {code.title}\n\n{code.explanation}\n\nWhat to do: {code.hint}.")
        if code.istio:
            click.echo(f"istioctl says {', '.join(code.istio)}.")
        if code is not found[-1]:
            click.echo()
    return 0
