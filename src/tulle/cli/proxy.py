"""`tulle proxy status | config | log`: what the proxies have, and what they were sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.lazy import LazyGroup
from tulle.cli.run import qualified, socket_option
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

# The columns of istioctl, and VHDS, by which routes travel here.
COLUMNS = {
    "CDS": "envoy.config.cluster.v3.Cluster",
    "LDS": "envoy.config.listener.v3.Listener",
    "EDS": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "RDS": "envoy.config.route.v3.RouteConfiguration",
    "VHDS": "envoy.config.route.v3.VirtualHost",
}
WHAT = ("all", "bootstrap", "cluster", "listener", "route", "endpoint", "secret")
SECTIONS = {
    "bootstrap": "Bootstrap",
    "cluster": "Clusters",
    "listener": "Listeners",
    "route": "Routes",
    "endpoint": "Endpoints",
    "secret": "Secrets",
}
LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


@click.group(cls=LazyGroup, aliases={"ps": "status", "pc": "config"})
def proxy() -> None:
    """What the proxies have, and what they were sent."""


@proxy.command()
@click.argument("workload", required=False)
@namespace_option
@mesh_option
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def status(workload: str | None, namespace: str, kubeconfig: str | None, output: str) -> int:
    """Show for every connected proxy whether it has what it was sent; for one WORKLOAD, type by type.

    Exit status 1 where WORKLOAD is not connected.
    """
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/proxies")))
    proxies = sorted(answer["proxies"], key=lambda it: it["proxy"])
    if workload is not None:
        wanted = qualified(workload, namespace)
        proxies = [it for it in proxies if it["proxy"] == wanted]
        if not proxies:
            from tulle.kit.errors import TulleError

            raise TulleError(f"{wanted} is not connected", hint="`tulle proxy status` lists the proxies that are")
    if output != "table":
        from tulle.cli.document import dump

        click.echo(dump(proxies, output), nl=False)
    elif workload is not None:
        click.echo("\n\n".join(_details(it) for it in proxies))
    else:
        rows = [_row(it) for it in proxies]
        click.echo(table(["name", "node", *COLUMNS, "revision"], rows) if rows else "no proxy is connected")
    return 0


@proxy.command()
@click.argument("what", type=click.Choice(WHAT))
@click.argument("workload", required=False)
@namespace_option
@mesh_option
@socket_option
@click.option("--file", "file", type=click.Path(dir_okay=False, path_type=Path), help="Read Envoy's /config_dump from this file.")
@click.option("--name", "--fqdn", default="", help="Only what has this in its name.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Only this port.")
@click.option("-o", "--output", type=click.Choice(["short", "json", "yaml"]), default="short", show_default=True)
def config(
    what: str,
    workload: str | None,
    namespace: str,
    kubeconfig: str | None,
    socket: Path | None,
    file: Path | None,
    name: str,
    port: int,
    output: str,
) -> int:
    """Show the configuration that the Envoy of WORKLOAD (NAME or NAMESPACE/NAME) runs with. Private keys are never shown.

    The node agent of this machine is asked, and where the workload runs on another one, the control plane.

    \b
    tulle proxy config cluster productpage-v1
    tulle proxy config route productpage-v1 --name 9080 -o yaml
    """
    from tulle.cli import proxy_tables
    from tulle.cli.document import dump as write
    from tulle.kit.redact import redact

    if workload is None and file is None:
        raise click.UsageError("Missing argument 'WORKLOAD' (or --file).")
    found, statuses = _read(file) if file else asyncio.run(_ask(qualified(str(workload), namespace), socket, kubeconfig))
    found = redact(found)
    if output != "short" or what == "bootstrap":
        part = found if what == "all" else proxy_tables.section(found, SECTIONS[what])
        click.echo(write(part, "yaml" if output == "short" else output), nl=False)
        return 0
    wanted = proxy_tables.Filter(name, port)
    tables: dict[str, Callable[[], proxy_tables.Table]] = {
        "cluster": lambda: proxy_tables.clusters(found, wanted),
        "listener": lambda: proxy_tables.listeners(found, wanted),
        "route": lambda: proxy_tables.routes(found, wanted),
        "endpoint": lambda: proxy_tables.endpoints(statuses, wanted),
        "secret": lambda: proxy_tables.secrets(found, wanted, datetime.now(UTC)),
    }
    chosen = [make() for kind, make in tables.items() if what in (kind, "all")]
    click.echo("\n\n".join(table(it.header, it.rows) for it in chosen))
    return 0


@proxy.command()
@click.argument("workload")
@namespace_option
@socket_option
@click.option("--level", type=click.Choice(LEVELS), required=True)
def log(workload: str, namespace: str, socket: Path | None, level: str) -> int:
    """Change the log level of the Envoy of WORKLOAD, without a restart."""

    async def change() -> None:
        from tulle.client.node_api import NodeClient

        async with NodeClient(socket) as node:
            await node.set_level(qualified(workload, namespace), level)

    asyncio.run(change())
    click.echo(f"{qualified(workload, namespace)}: log level {level}")
    return 0


async def _ask(workload: str, socket: Path | None, kubeconfig: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Envoy's dump and its clusters' hosts, through the node agent that runs it: that of this machine, or any."""
    from tulle.client.node_api import NodeClient, NodeError
    from tulle.kit.errors import Refused, Unavailable

    try:
        async with NodeClient(socket) as node:
            return await node.config_dump(workload), await node.clusters(workload)
    except (Refused, Unavailable, NodeError) as error:
        if isinstance(error, NodeError) and error.code != "not-found":
            raise
        try:
            found = await connect(kubeconfig, lambda api: _afar(api, workload))
        except Unavailable:
            raise error from None  # there is no mesh to ask: that nobody runs it here is what counts
        return found, _hosts(found)


async def _afar(api: ApiClient, workload: str) -> dict[str, Any]:
    """The dump, through the control plane; it comes in pieces."""
    import msgspec

    from tulle.core.model.looks import Told
    from tulle.kit.errors import TulleError

    pieces: list[str] = []
    async with contextlib.aclosing(api.follow(f"/tulle/v1/config/{workload}", {})) as answer:
        async for one in answer:
            told = msgspec.convert(one, Told)
            if told.error:
                raise TulleError(told.error)
            pieces += told.lines
    found: dict[str, Any] = json.loads("".join(pieces))
    return found


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from tulle.kit.errors import TulleError

    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise TulleError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise TulleError(f"{file}: found no JSON ({error}), needed Envoy's /config_dump") from error
    if not isinstance(found, dict) or "configs" not in found:
        raise TulleError(f"{file}: found no field configs, needed Envoy's /config_dump")
    return found, _hosts(found)


def _hosts(dump: dict[str, Any]) -> dict[str, Any]:
    """The endpoints that a dump has, in the shape of `/clusters?format=json`."""
    from tulle.cli.proxy_tables import section

    statuses = []
    part = section(dump, "Endpoints")
    for entry in [*part.get("static_endpoint_configs", []), *part.get("dynamic_endpoint_configs", [])]:
        assignment = entry.get("endpoint_config", {})
        hosts = [
            {
                "address": it.get("endpoint", {}).get("address", {}),
                "health_status": {"eds_health_status": it.get("health_status", "UNKNOWN")},
            }
            for locality in assignment.get("endpoints", [])
            for it in locality.get("lb_endpoints", [])
        ]
        statuses.append({"name": assignment.get("cluster_name", "-"), "host_statuses": hosts})
    return {"cluster_statuses": statuses}


def _row(proxy: dict[str, Any]) -> list[str]:
    types = {it["type_url"].rpartition("/")[2]: it for it in proxy["types"]}
    states = [_state(types.get(name), proxy) for name in COLUMNS.values()]
    return [proxy["proxy"], _node(proxy), *states, str(proxy["synced"]) if proxy["synced"] else "-"]


def _state(status: dict[str, Any] | None, proxy: dict[str, Any]) -> str:
    if proxy.get("held"):
        return "WAITING"
    if status is None or (not status["sent"] and not status["resources"]):
        return "NOT SENT"
    if status.get("refused"):
        return "REFUSED"
    return "SYNCED" if status["acked"] >= status["sent"] else "STALE"


def _node(proxy: dict[str, Any]) -> str:
    return str(proxy["peer"]).rpartition("/")[2] or "-"


def _details(proxy: dict[str, Any]) -> str:
    names = {url: column for column, url in COLUMNS.items()} | {"tulle.dev.v1.Name": "names"}
    rows, refused = [], []
    for status in proxy["types"]:
        url = status["type_url"].rpartition("/")[2]
        held = [_state(status, proxy), str(status["sent"] or "-"), str(status["acked"] or "-"), str(status["resources"])]
        rows.append([names.get(url, url), *held])
        refused += [f"{names.get(url, url)} {name}: {why}" for name, why in status.get("refused", {}).items()]
    since = datetime.fromtimestamp(proxy["connected"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"{proxy['proxy']} on {_node(proxy)}, connected since {since}, synced to revision {proxy['synced'] or '-'}", ""]
    lines.append(table(["type", "state", "sent", "acknowledged", "resources"], rows) if rows else "nothing was asked for yet")
    if refused:
        lines += ["", "refused by the proxy:", *[f"  {line}" for line in refused]]
    return "\n".join(lines)
