"""Commands that are imported when they are called: `tulle --help` reads one table and imports nothing of the mesh."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Entry(NamedTuple):
    """Where a command is (`module:attribute`) and the line that help shows for it."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A group whose commands stand in `entries`, printed in that order under the headings of `sections`."""

    def __init__(
        self,
        *args: Any,
        entries: Mapping[str, Entry] | None = None,
        sections: Mapping[str, tuple[str, ...]] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("invoke_without_command", True)
        super().__init__(*args, **kwargs)
        self.entries = dict(entries or {})
        self.sections = dict(sections or {})
        self.aliases = dict(aliases or {})

    def invoke(self, ctx: click.Context) -> Any:
        """Without a command: help, as kubectl does."""
        if not ctx._protected_args and not ctx.args:
            click.echo(ctx.get_help())
            return 0
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it now."""
        name = self.aliases.get(cmd_name, cmd_name)
        entry = self.entries.get(name)
        if entry is None:
            return super().get_command(ctx, name)
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """A word that is no command is answered with the nearest that is."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], [*self.list_commands(ctx), *self.aliases], n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table alone."""
        sections = self.sections or {"Commands": tuple(self.list_commands(ctx))}
        for heading, names in sections.items():
            rows = []
            for name in names:
                if name in self.entries:
                    rows.append((name, self.entries[name].help))
                elif command := super().get_command(ctx, name):
                    rows.append((name, command.get_short_help_str(90)))
            with formatter.section(heading):
                formatter.write_dl(rows)
