"""`tulle graph`: who calls whom, as a tree of lines, as JSON, or as a drawing for Graphviz and Mermaid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from tulle.cli.calls import all_option, noticed, shown, window_option
from tulle.cli.connection import asked, connect, mesh_option, namespace_option

if TYPE_CHECKING:
    from tulle.core.graph import Graph, Link, Node

_COLOURS = {"failing": "#c62828", "degraded": "#b26a00", "healthy": "#2e7d32", "idle": "#9e9e9e"}


@click.command()
@click.option(
    "--level",
    type=click.Choice(("app", "service", "version", "workload")),
    default="app",
    show_default=True,
    help="What a node is.",
)
@click.option("-o", "--output", type=click.Choice(("text", "dot", "json", "mermaid")), default="text", show_default=True)
@click.option("--idle/--no-idle", default=False, show_default=True, help="Also those that nobody called.")
@window_option
@all_option
@namespace_option
@mesh_option
def graph(
    level: str, output: str, idle: bool, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None
) -> int:
    """Show who calls whom: rate, success and latency of each, with a lock where all of it is mutual TLS.

    \b
    tulle graph --level version
    tulle graph -A -o dot | dot -Tsvg > mesh.svg
    """
    import msgspec

    from tulle.core.graph import Graph

    space = "" if all_namespaces else namespace
    query = urlencode({"level": level, "seconds": window, "namespace": space, "idle": str(idle).lower()})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/telemetry/graph?{query}")))
    drawn: dict[str, Callable[[Graph], Iterator[str]]] = {"text": _text, "dot": _dot, "mermaid": _mermaid, "json": _json}
    found = msgspec.convert(answer, Graph)
    noticed(found.notice)
    if output == "text" and not found.nodes:
        click.echo("no calls were counted", err=True)
    for line in drawn[output](found):
        click.echo(line)
    return 0


def _json(found: Graph) -> Iterator[str]:
    import msgspec

    yield msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def _text(found: Graph) -> Iterator[str]:
    nodes = {node.id: node for node in found.nodes}
    callers = {link.source for link in found.links}
    for node in found.nodes:
        if node.id in callers:
            yield _title(node)
            for link in found.links:
                if link.source == node.id:
                    yield f"  → {_title(nodes[link.target])}  {_label(link)}"
    called = {link.target for link in found.links}
    for node in found.nodes:
        if node.id not in callers | called:
            yield f"{_title(node)}  idle"


def _title(node: Node) -> str:
    name = f"{node.namespace}/{node.name}" if node.namespace else node.name
    version = f" {node.version}" if node.version and not node.name.endswith(node.version) else ""
    return f"{name}{version}" + (f" ({node.role})" if node.role not in ("mesh", node.name) else "")


def _label(link: Link) -> str:
    success, rps, p50, _p95, p99, _secured = shown(link.figures)
    share = f" {100 * link.share:.0f}%" if link.share < 1 else ""
    lock = " mTLS" if link.figures.secured == 1 else ""
    return f"{link.protocol}{share} {rps} rps, {success} ok, p50 {p50}, p99 {p99}{lock}"


def _spaces(found: Graph) -> Iterator[tuple[str, list[Node]]]:
    for space in sorted({node.namespace for node in found.nodes}):
        yield space, [node for node in found.nodes if node.namespace == space]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _dot(found: Graph) -> Iterator[str]:
    yield "digraph mesh {\n  rankdir=LR;\n  node [shape=box, style=rounded];"
    for at, (space, nodes) in enumerate(_spaces(found)):
        if space:
            yield f"  subgraph cluster_{at} {{ label={_quoted(space)};"
        for node in nodes:
            name = f"{node.name} {node.version}".strip()
            yield f'    {_quoted(node.id)} [label={_quoted(name)}, color="{_COLOURS[node.health]}"];'
        if space:
            yield "  }"
    for link in found.links:
        colour, width = _COLOURS[link.figures.health], 1 + min(4.0, link.figures.rate / 25)
        label = _quoted(_label(link))
        yield f'  {_quoted(link.source)} -> {_quoted(link.target)} [label={label}, color="{colour}", penwidth={width:.1f}];'
    yield "}"


def _mermaid(found: Graph) -> Iterator[str]:
    ids = {node.id: f"n{at}" for at, node in enumerate(found.nodes)}
    yield "flowchart LR"
    for at, (space, nodes) in enumerate(_spaces(found)):
        if space:
            yield f"  subgraph s{at}[{_mermaid_text(space)}]"
        for node in nodes:
            yield f"    {ids[node.id]}[{_mermaid_text(f'{node.name} {node.version}'.strip())}]"
        if space:
            yield "  end"
    for link in found.links:
        yield f"  {ids[link.source]} -->|{_mermaid_text(_label(link))}| {ids[link.target]}"


def _mermaid_text(text: str) -> str:
    escaped = text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return '"' + escaped.replace("\n", " ") + '"'
