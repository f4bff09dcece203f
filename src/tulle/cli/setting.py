"""A setting of a program: a flag and a `TULLE_*` variable of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def setting(flag: str, *, variable: str = "", also: tuple[str, ...] = (), **options: Any) -> Callable[[F], F]:
    """`setting("--api-address")` is an option that `TULLE_API_ADDRESS` (or `variable`) sets too; `also` are read after it."""
    variable = variable or "TULLE_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, envvar=[variable, *also], show_envvar=True, **options)


def duration(text: str) -> float:
    """Seconds of `90`, `20s`, `5m`, `24h`, `1.5h`, `500ms`, `1m30s`; raises a usage error with what was found and needed."""
    import re

    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * units[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    raise click.BadParameter(f"found {text!r}, needed a duration like 20s, 5m or 24h")


class Duration(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic only in newer click
    """A duration as `duration` reads it, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Numbers are seconds already."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return duration(str(value))
        except click.BadParameter as error:
            self.fail(error.message, param, ctx)
