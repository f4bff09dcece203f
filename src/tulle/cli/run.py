"""`tulle run` and `tulle exec`: a process in the mesh, a command in a workload's network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tulle.cli.connection import namespace_option
from tulle.cli.setting import Duration

if TYPE_CHECKING:
    import pwd

    from tulle.client.node_api import Port

F = TypeVar("F", bound=Callable[..., Any])

# Istio's words for `appProtocol` and port names, as far as the mesh acts on them.
PROTOCOLS = ("http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "mysql", "mongo", "redis", "udp")
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}

socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="TULLE_NODE_SOCKET",
    show_envvar=True,
    help="The node agent's local API. Without it, the agent of this machine.",
)

drain_option = click.option(
    "--drain",
    type=Duration(),
    default="5s",
    show_default=True,
    help="How long requests and connections under way may take when it is told to end and callers have been sent elsewhere.",
)


# What is captured: the flag, Istio's annotation of the same meaning, and help.
_CAPTURED = {
    "--include-outbound-ip-ranges": ("includeOutboundIPRanges", "CIDR,...", "Capture only calls to these. * is all."),
    "--exclude-outbound-ip-ranges": ("excludeOutboundIPRanges", "CIDR,...", "Calls to these pass by the sidecar."),
    "--include-outbound-ports": ("includeOutboundPorts", "PORT,...", "Capture calls to these ports whatever the address."),
    "--exclude-outbound-ports": ("excludeOutboundPorts", "PORT,...", "Calls to these ports pass by the sidecar."),
    "--include-inbound-ports": ("includeInboundPorts", "PORT,...", "Capture only what arrives at these ports. * is all."),
    "--exclude-inbound-ports": ("excludeInboundPorts", "PORT,...", "What arrives at these ports passes by the sidecar."),
    "--exclude-interfaces": ("excludeInterfaces", "NAME,...", "Traffic of these network interfaces passes by the sidecar."),
}


def _capture_options(command: F) -> F:
    for name, (_annotation, metavar, text) in reversed(_CAPTURED.items()):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


@click.command(context_settings=_PASS_ON)
@click.option("--service", default="", metavar="NAME", help="The Service that it is a part of; made where none stands.")
@click.option("--group", default="", metavar="NAME", help="The WorkloadGroup whose labels, account, place and probe it has.")
@click.option("--version", default="", metavar="V", help="Its version: the label that subsets select by.")
@click.option("--name", default="", metavar="NAME", help="The workload's name. Default: SERVICE-VERSION, or GROUP-HOST.")
@namespace_option
@click.option("--service-account", default="default", show_default=True, metavar="NAME", help="Its identity in the namespace.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="P[:PROTOCOL[:TARGET]]",
    help="A port of the service, its protocol (sniffed where not said), and the port that the process binds. Repeatable.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A further label. Repeatable.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="An annotation of its entry. Repeatable.")
@_capture_options
@click.option("--capture", type=click.Choice(["auto", "netns", "cgroup", "proxy"]), default="auto", show_default=True)
@drain_option
@click.option("--user", default="", metavar="NAME", help="As root: the user (and its group) to run the process as.")
@socket_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def run(
    service: str,
    group: str,
    version: str,
    name: str,
    namespace: str,
    service_account: str,
    ports: tuple[str, ...],
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    capture: str,
    drain: float,
    user: str,
    socket: Path | None,
    command: tuple[str, ...],
    **chosen: str | None,
) -> int:
    """Run a process in the mesh, behind a sidecar of its own.

    It starts when its proxy is ready; when it ends, the proxy drains and goes, and the exit status is that of the process.

    \b
    tulle run --service reviews --version v2 --port 9080:http -- ./reviews
    """
    from socket import gethostname

    from tulle.app.run import run_workload
    from tulle.client.node_api import WorkloadSpec

    if not service and not group:
        raise click.UsageError("Missing option '--service' (or '--group').")
    parts = (service, version) if service else (group, version, gethostname().partition(".")[0].lower())
    spec = WorkloadSpec(
        name=name or "-".join(filter(None, parts)),
        namespace=namespace,
        group=group,
        service=service,
        version=version,
        service_account=service_account,
        ports=tuple(parse_port(port) for port in ports),
        labels=parse_pairs(labels, "--label"),
        annotations={**parse_pairs(annotations, "--annotation"), **_capture_annotations(chosen)},
        capture=capture,
        drain=drain,
    )
    return asyncio.run(run_workload(spec, command, socket=socket, user=_user(user) if user else None))


@click.command("exec", context_settings=_PASS_ON)
@namespace_option
@socket_option
@click.argument("workload")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_(namespace: str, socket: Path | None, workload: str, command: tuple[str, ...]) -> int:
    """Run a command in the network of WORKLOAD (NAME or NAMESPACE/NAME), with its identity, as `kubectl exec` would.

    \b
    tulle exec curl -- curl -s http://reviews:9080/reviews/0
    """
    from tulle.app.run import exec_in

    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    return asyncio.run(exec_in(qualified(workload, namespace), argv, socket=socket))


def qualified(workload: str, namespace: str) -> str:
    """`namespace/name` of a workload as a person names it."""
    return workload if "/" in workload else f"{namespace}/{workload}"


def parse_port(text: str) -> Port:
    """`9080`, `9080:http`, `80:http:8080`; raises a usage error with what was found and needed."""
    from tulle.client.node_api import Port

    number, _, rest = text.partition(":")
    protocol, _, target = rest.partition(":")
    if protocol and protocol not in PROTOCOLS:
        raise click.BadParameter(
            f"found protocol {protocol!r} in {text!r}, needed one of {', '.join(PROTOCOLS)}", param_hint="--port"
        )
    return Port(number=_number(number, text), protocol=protocol, target=_number(target, text) if target else 0)


def _number(digits: str, text: str) -> int:
    if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65536:
        raise click.BadParameter(f"found {text!r}, needed P[:PROTOCOL[:TARGET]] with ports from 1 to 65535", param_hint="--port")
    return int(digits)


def _user(name: str) -> pwd.struct_passwd:
    import os
    import pwd

    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise click.BadParameter(f"found {name!r}, needed a user of this machine", param_hint="--user") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise click.BadParameter(f"only root runs a process as {name}; leave it out", param_hint="--user")
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"found {text!r}, needed KEY=VALUE", param_hint=option)
    return key, value


def _capture_annotations(chosen: Mapping[str, str | None]) -> dict[str, str]:
    """The flags as Istio's annotations; raises a usage error with what was found and needed."""
    from tulle.core.model import interception

    found = {}
    for name, (annotation, _metavar, _help) in _CAPTURED.items():
        if (value := chosen[name.removeprefix("--").replace("-", "_")]) is None:
            continue
        found[interception.PREFIX + annotation] = value
        for mistake in interception.read({interception.PREFIX + annotation: value})[1]:
            raise click.BadParameter(mistake.message, param_hint=name)
    return found


def parse_pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """`app=cart`, several; raises a usage error with what was found and needed."""
    return dict(_pair(text, option) for text in texts)
