"""What is written to a terminal, a file or a pipe, and in which colours: `NO_COLOR`, `TERM=dumb` and pipes get none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click


def plain() -> bool:
    """True where nobody wants colours, whatever the stream is."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def live(*, err: bool = True) -> bool:
    """True where a display may be redrawn in place: a terminal that can, on the stream that is asked about."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def fail(message: str, hint: str = "") -> None:
    """`error: message`, and below it what to do."""
    color = False if plain() else None
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=color)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True, color=color)


def warn(message: str) -> None:
    """`warning: message` on standard error."""
    click.echo(f"{click.style('warning:', fg='yellow')} {message}", err=True, color=False if plain() else None)


def say(message: str) -> None:
    """Progress, on standard error."""
    click.echo(message, err=True, color=False if plain() else None)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them: headings in capitals, three spaces between, nothing after the last."""
    cells = [[name.upper() for name in header], *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)
