"""Writes the reference pages: commands, resources, findings; each from what the programs themselves have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from tulle.api.decode import INSTEAD
from tulle.api.registry import KINDS, REVIEWS
from tulle.cli.main import tulle
from tulle.core.analyze.codes import CODES, SUBJECTS

HERE = Path(__file__).parent / "reference"


def commands(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """(`tulle demo up`, its help) of a command and all below it, in the order of help."""
    settings = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, **settings)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, f"{path} {name}", context)


def cli() -> str:
    """The page of commands."""
    lines = [
        "# Commands",
        "",
        "Generated from the commands themselves by `make docs`.",
        "",
        "Exit status: 0; 1 error; 64 typed wrong; 65 bad data in a file; 79 findings of `analyze`. `diff`: 0 no difference, 1 a",
        "difference, above 1 error.",
        "`run` and `exec`: that of the command. Data goes to standard output, everything else to standard error.",
        "`NO_COLOR`, `TERM=dumb` and pipes are honoured.",
        "",
    ]
    for path, text in commands(tulle, "tulle"):
        lines += [f"## {path}" if path.count(" ") < 2 else f"### {path}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def resources() -> str:
    """The page of kinds."""
    lines = [
        "# Resources",
        "",
        "Generated from the registry of kinds by `make docs`.",
        "",
        "The API server serves every kind below in all its versions, with validation, so that `kubectl` and `tulle` work on it.",
        "*Acted on: no* means that objects of the kind are kept, and each of them warns that the mesh does not act on it yet.",
        "A field that is known to its API but has no effect here yet is named in a warning of `tulle apply` and `kubectl apply`.",
        "Fields, bounds, rules and defaults are those of upstream's definitions; `kubectl explain KIND` shows them.",
        "An object reads back as it was written, with the defaults that its API states.",
        "",
        "| kind | group | versions | short names | namespaced | acted on |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        names = ", ".join(f"`{name}`" for name in kind.short_names)
        yes = {True: "yes", False: "no"}
        group = f"`{kind.group}`" if kind.group else "core"
        row = (kind.kind, group, ", ".join(kind.versions), names, yes[kind.namespaced], yes[kind.acted_on])
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "## Refused", "", "Kinds of Istio that are not served, and what does the same here:", ""]
    lines += [f"- {kind}: {why}." for kind, why in sorted(INSTEAD.items())]
    lines += ["", "## Reviews", "", "Questions that are answered and not kept, as on Kubernetes:", ""]
    lines += [f"- {kind.kind} (`{kind.group}/{kind.versions[0]}`)" for kind in REVIEWS]
    return "\n".join([*lines, ""])


def findings() -> str:
    """The page of codes."""
    lines = [
        "# Findings",
        "",
        "Generated from the table of codes by `make docs`.",
        "",
        "What `tulle analyze`, `apply` and `check` tell, and `kubectl` hears as warnings. A code never changes its meaning.",
        "`tulle apply` refuses errors; informations are only told where one analyses. How to use and to suppress them:",
        "[Analyze](../tasks/analyze.md).",
        "",
    ]
    for prefix, subject in SUBJECTS.items():
        lines += [f"## {subject}", ""]
        for code in CODES:
            if code.code[3:5] == prefix:
                lines += [f"### {code.code}", "", f"**{code.title}** ({code.severity.value})", "", code.explanation, ""]
                lines += [f"What to do: {code.hint}.", ""]
                if code.istio:
                    lines += [f"istioctl has {', '.join(f'`{name}`' for name in code.istio)} for it.", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the pages."""
    for name in [name for name in os.environ if name.startswith("TULLE_")]:
        del os.environ[name]
    HERE.mkdir(exist_ok=True)
    (HERE / "cli.md").write_text(cli())
    (HERE / "resources.md").write_text(resources())
    (HERE / "findings.md").write_text(findings())


if __name__ == "__main__":
    main()
