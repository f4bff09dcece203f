"""`tulle node`: the program of `app/node.py` with a flag and a variable for each of its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.setting import Duration, setting
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
@setting(
    "--gateways",
    is_flag=True,
    help="Start a gateway workload for each Gateway (Gateway API) that nothing serves, or that names this node.",
)
@setting(
    "--entries-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Which processes of this host have which identities (see docs/tasks/workload-api.md).",
)
@setting(
    "--metrics-address",
    metavar="HOST:PORT",
    default="auto",
    show_default=True,
    help="Where Prometheus reads what the proxies here have counted. auto: 127.0.0.1:15020, or a free port; off: nowhere.",
)
@setting(
    "--report-interval",
    type=Duration(),
    default="15s",
    show_default=True,
    help="How often the control plane is told what the proxies have counted.",
)
@setting(
    "--record-budget",
    type=click.FloatRange(min=0, max=10_000),
    default=50,
    show_default=True,
    metavar="CALLS",
    help="Single calls a second that are looked at and recorded, failed and denied ones first; 0: none.",
)
@setting("--instance", metavar="NAME", help="What everything that this agent starts carries in TULLE_INSTANCE.")
@setting(
    "--root-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Whom to trust at the first contact (PEM), where the token is a Kubernetes service account's.",
)
@setting(
    "--key-type",
    type=click.Choice(["ecdsa-p256", "ecdsa-p384", "rsa-2048"]),
    default="ecdsa-p256",
    show_default=True,
    help="Kind of the keys that are made for this node and its workloads.",
)
@setting("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@setting(
    "--envoy-log-level",
    type=click.Choice(["trace", "debug", "info", "warning", "error", "critical", "off"]),
    default="warning",
    show_default=True,
    help="Envoy's log level at its start; `tulle proxy log` changes it later.",
)
@setting(
    "--envoy-heap-mb",
    type=click.IntRange(min=0, max=1 << 20),
    default=0,
    metavar="MB",
    help="Memory that each Envoy keeps within by refusing work. Default: a quarter of the machine's or control group's.",
)
@setting(
    "--access-log-mb",
    type=click.IntRange(min=1, max=1 << 20),
    default=50,
    show_default=True,
    metavar="MB",
    help="How much is kept of each workload's access log; the oldest lines go first.",
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
