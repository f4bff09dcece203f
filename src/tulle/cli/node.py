"""`tulle node`: the program of `app/node.py` with a flag and a variable for each of its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.setting import setting
from tulle.cli.terminal import say

if TYPE_CHECKING:
    from tulle.app.node import NodeSettings


@click.group(invoke_without_command=True)
@setting("--name", variable="TULLE_NODE_NAME", metavar="NAME", help="This node's name in the mesh. Default: the host's name.")
@setting(
    "--api-address",
    default="127.0.0.1:15080",
    show_default=True,
    metavar="HOST:PORT",
    help="The control plane's API server; of several control planes all, by commas.",
)
@setting(
    "--xds-address",
    default="127.0.0.1:15012",
    show_default=True,
    metavar="HOST:PORT",
    help="The control plane's xDS server; of several control planes all, by commas.",
)
@setting(
    "--token", metavar="TOKEN", help="A join token (`tulle token create`), for the first start only. A file keeps it off `ps`."
)
@setting("--token-file", type=click.Path(dir_okay=False, path_type=Path), help="A file with the join token.")
@setting(
    "--state-dir",
    variable="TULLE_NODE_STATE_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Identities and the last configuration. Default: node/ in tulle's state folder.",
)
@setting(
    "--runtime-dir", type=click.Path(file_okay=False, path_type=Path), help="Sockets and process records. Default: /run/tulle."
)
@setting(
    "--capture",
    type=click.Choice(["auto", "netns", "cgroup", "proxy"]),
    default="auto",
    show_default=True,
    help="How traffic gets into the sidecars. auto takes the strongest that works here.",
)
@setting(
    "--address",
    variable="TULLE_NODE_ADDRESS",
    metavar="IP",
    help="Where others reach this host's workloads in cgroup capture. Default: the address of the way to other hosts.",
)
@setting("--instance", metavar="NAME", help="What everything that this agent starts carries in TULLE_INSTANCE.")
@setting("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@setting(
    "--envoy-log-level",
    type=click.Choice(["trace", "debug", "info", "warning", "error", "critical", "off"]),
    default="warning",
    show_default=True,
    help="Envoy's log level at its start; `tulle proxy log` changes it later.",
)
@setting("--teardown", is_flag=True, help="Remove all workloads at the end, rather than leaving them to the next agent.")
@click.pass_context
def node(ctx: click.Context, /, **given: Any) -> None:
    """Run this host's node agent.

    It gives each workload its Envoy, identity and configuration. When it ends, or is killed, the workloads go on, and the next
    agent takes them over. `tulle node uninstall` removes all that it leaves.
    """
    from tulle.app.node import run_node

    ctx.obj = _settings(given)
    if ctx.invoked_subcommand is None:
        run_node(ctx.obj)


@node.command()
@click.pass_obj
def uninstall(settings: NodeSettings) -> None:
    """Remove the agent's workloads, and everything of it from this host: rules, groups, namespaces, processes, its identity.

    Give it the settings that the agent had: `tulle node --runtime-dir DIR uninstall`, or the same TULLE_* variables. Of an agent
    under systemd: `systemctl disable --now tulle-node` first.
    """
    from tulle.app.uninstall import uninstall as remove

    for sentence in asyncio.run(remove(settings)):
        say(sentence)


def _settings(given: dict[str, Any]) -> NodeSettings:
    from tulle.app.node import NodeSettings

    return NodeSettings(**{name: value for name, value in given.items() if value is not None})
