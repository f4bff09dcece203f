"""Writes the man page and the completion scripts that a wheel brings along, from the commands themselves (`make wheel`)."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.shell_completion import get_completion_class

import tulle
from tulle.cli.main import COMMANDS, SECTIONS
from tulle.cli.main import tulle as root

HERE = Path(__file__).parent / "assets"
FILES = {"bash": "tulle.bash", "zsh": "_tulle", "fish": "tulle.fish"}


def man() -> str:
    """tulle(1) as roff."""
    lines = [
        f'.TH TULLE 1 "" "tulle {tulle.__version__}" "User Commands"',
        ".SH NAME",
        r"tulle \- a service mesh that you can pip install",
        ".SH SYNOPSIS",
        r".B tulle",
        r"\fICOMMAND\fR [\fIARGS\fR]...",
    ]
    context = click.Context(root, info_name="tulle")
    for heading, names in SECTIONS.items():
        lines += [f".SH {heading.upper()}"]
        for name in names:
            command = root.get_command(context, name)
            assert command is not None
            lines += [".TP", rf"\fBtulle {_escaped(name)}\fR", _escaped(COMMANDS[name].help) + "."]
            for option in command.params:
                if isinstance(option, click.Option) and option.help and not option.hidden:
                    lines += [".RS", ".TP", rf"\fB{_escaped(', '.join(option.opts))}\fR", _escaped(option.help), ".RE"]
    lines += [
        ".SH EXIT STATUS",
        "0 good; 1 error; 64 typed wrong; 65 bad data in a file; 79 findings of \\fBanalyze\\fR. "
        "\\fBdiff\\fR: 0 no difference, 1 a difference, above 1 error.",
        "\\fBrun\\fR and \\fBexec\\fR: that of the command.",
        ".SH ENVIRONMENT",
        "Every setting of a program is a flag and a \\fBTULLE_*\\fR variable; \\fB\\-\\-help\\fR of a command names them.",
        "\\fBNO_COLOR\\fR and \\fBTERM=dumb\\fR are honoured.",
        ".SH FILES",
        "\\fI/var/lib/tulle\\fR, \\fI/run/tulle\\fR; for a person the XDG folders.",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace("-", "\\-")


def main() -> None:
    """Write all of them."""
    HERE.mkdir(exist_ok=True)
    (HERE / "tulle.1").write_text(man())
    for shell, file in FILES.items():
        made = get_completion_class(shell)
        assert made is not None
        (HERE / file).write_text(made(root, {}, "tulle", "_TULLE_COMPLETE").source().strip() + "\n")


if __name__ == "__main__":
    main()
