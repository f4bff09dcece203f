"""`tulle node`: the program of `app/node.py` with a flag and a variable for each of its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tulle.cli.setting import setting


@click.command()
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
def node(**given: Any) -> None:
    """Run this host's node agent.

    It gives each workload its Envoy, identity and configuration. When it ends, or is killed, the workloads go on, and the next
    agent takes them over.
    """
    from tulle.app.node import NodeSettings, run_node

    run_node(NodeSettings(**{name: value for name, value in given.items() if value is not None}))
