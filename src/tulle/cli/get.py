"""`tulle get KIND [NAME]`, with kubectl's flags and columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option

if TYPE_CHECKING:
    from tulle.api.kind import Column, Kind
    from tulle.client.api import ApiClient


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME]...")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only those with these labels (key=value,...).")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "yaml", "json", "name"]), default="table", show_default=True)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show every change.")
@click.option("--show-managed-fields", is_flag=True, help="With yaml and json: who applied which field.")
@mesh_option
def get(
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    output: str,
    watch: bool,
    show_managed_fields: bool,
    kubeconfig: str | None,
) -> int:
    """Show objects.

    KIND is a kind (virtualservice), its plural or short name (vs), with its group where two have the name
    (gateways.networking.istio.io), several with commas between, a category (istio-io), or `all`.
    """
    from tulle.cli.kinds import targets

    wanted = targets(words)
    if watch and len({kind.resource for kind, _ in wanted}) > 1:
        raise click.UsageError("found several kinds with --watch, needed one")
    if all_namespaces and any(name for _, name in wanted):
        raise click.UsageError("a name cannot be looked for in all namespaces; leave out the name, or -A")
    where = None if all_namespaces else namespace

    async def ask(api: ApiClient) -> int:
        found, failed = await _find(api, wanted, where, selector)
        show = _Printer(output, all_namespaces, len(wanted) > 1, show_managed_fields)
        one = len(wanted) == 1 and bool(wanted[0][1])
        show.all(found, one=one and len(found) == 1)
        if watch and not failed:
            (kind, _), *_ = wanted
            names = {name for _, name in wanted if name}
            since = "" if not found else max((_revision(raw) for _, raw in found), key=int, default="")
            await _follow(api, kind, where, selector, names, since, show)
        elif not found and not failed and output in ("table", "wide"):
            place = f" in namespace {where}" if where and any(kind.namespaced for kind, _ in wanted) else ""
            click.echo(f"No resources found{place}.", err=True)
        return 1 if failed else 0

    return asked(connect(kubeconfig, ask))


async def _find(
    api: ApiClient, wanted: list[tuple[Kind, str]], namespace: str | None, selector: str
) -> tuple[list[tuple[Kind, dict[str, Any]]], bool]:
    """The objects, and whether one that was named is not there (which is said)."""
    from tulle.cli.terminal import fail
    from tulle.client.errors import NotFound

    found: list[tuple[Kind, dict[str, Any]]] = []
    failed = False
    for kind, name in wanted:
        version = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
        if name:
            try:
                found.append((kind, await api.get(kind, name, namespace)))
            except NotFound as error:
                fail(error.message)
                failed = True
        else:
            answer = await api.list(kind, namespace if kind.namespaced else None, label_selector=selector)
            found += [(kind, {"apiVersion": version, "kind": kind.kind} | raw) for raw in answer.get("items", [])]
    return found, failed


async def _follow(
    api: ApiClient, kind: Kind, namespace: str | None, selector: str, names: set[str], since: str, show: _Printer
) -> None:
    """Every change until interrupted; a watch that the server ends is begun again."""
    from tulle.client.errors import Expired

    while True:
        try:
            async for event in api.watch(kind, namespace if kind.namespaced else None, since=since, label_selector=selector):
                raw = event.get("object", {})
                since = _revision(raw)
                if event.get("type") != "BOOKMARK" and (not names or raw.get("metadata", {}).get("name") in names):
                    show.change(kind, raw)
        except Expired:
            since = ""


def _revision(raw: Mapping[str, Any]) -> str:
    return str(raw.get("metadata", {}).get("resourceVersion", "0"))


def printed(raw: dict[str, Any]) -> dict[str, Any]:
    """An object as it is printed, without who wrote which field."""
    return {**raw, "metadata": {name: value for name, value in raw["metadata"].items() if name != "managedFields"}}


class _Printer:
    """Prints objects in one form; rows that come later keep the columns of the first."""

    def __init__(self, form: str, all_namespaces: bool, several: bool, managed_fields: bool) -> None:
        self.form, self.all_namespaces, self.several, self.managed_fields = form, all_namespaces, several, managed_fields
        self.widths: list[int] = []

    def all(self, found: list[tuple[Kind, dict[str, Any]]], *, one: bool) -> None:
        """What there is now."""
        from tulle.cli.files import shown

        if self.form == "name":
            for kind, raw in found:
                click.echo(shown(kind, raw["metadata"]["name"]))
        elif self.form in ("yaml", "json"):
            from tulle.cli.document import dump

            items = [self._whole(raw) for _, raw in found]
            click.echo(dump(items[0] if one else {"apiVersion": "v1", "kind": "List", "items": items}, self.form), nl=False)
        else:
            kinds = list(dict.fromkeys(kind.resource for kind, _ in found))
            for at, resource in enumerate(kinds):
                if at:
                    click.echo()
                self._table([(kind, raw) for kind, raw in found if kind.resource == resource])

    def change(self, kind: Kind, raw: dict[str, Any]) -> None:
        """One that changed."""
        from tulle.cli.files import shown

        if self.form == "name":
            click.echo(shown(kind, raw["metadata"]["name"]))
        elif self.form in ("yaml", "json"):
            from tulle.cli.document import dump

            click.echo(("---\n" if self.form == "yaml" else "") + dump(self._whole(raw), self.form), nl=False)
        else:
            if not self.widths:
                self._table([(kind, raw)])
                return
            cells = self._row(kind, raw)
            click.echo("   ".join(cell.ljust(width) for cell, width in zip(cells, self.widths, strict=True)).rstrip())

    def _whole(self, raw: dict[str, Any]) -> dict[str, Any]:
        return raw if self.managed_fields else printed(raw)

    def _table(self, rows: list[tuple[Kind, dict[str, Any]]]) -> None:
        from tulle.cli.terminal import table

        kind = rows[0][0]
        columns = [column.name for column in self._columns(kind)]
        header = [*(["namespace"] if self.all_namespaces and kind.namespaced else []), *columns]
        cells = [self._row(kind, raw) for kind, raw in rows]
        self.widths = [max(len(row[at]) for row in [header, *cells]) for at in range(len(header))]
        click.echo(table(header, cells))

    def _row(self, kind: Kind, raw: dict[str, Any]) -> list[str]:
        from tulle.api.kind import NAME
        from tulle.cli.files import shown

        metadata, now = raw["metadata"], datetime.now(UTC)
        cells = []
        for column in self._columns(kind):
            value = column.value(raw)
            if column.age:
                value = age(value, now)
            elif column is NAME and self.several:
                value = shown(kind, value)
            cells.append(value)
        return [*([metadata.get("namespace", "")] if self.all_namespaces and kind.namespaced else []), *cells]

    def _columns(self, kind: Kind) -> list[Column]:
        return [column for column in kind.table if not column.wide or self.form == "wide"]


def age(created: str | None, now: datetime) -> str:
    """`5s`, `3m20s`, `7m`, `2h5m`, `4d`, as kubectl has them."""
    if not created:
        return "<unknown>"
    seconds = max(0, int((now - datetime.fromisoformat(created)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"
