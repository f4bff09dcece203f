"""`tulle gateway`: an Envoy without an application on this host, to which Gateways are bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tulle.cli.connection import namespace_option
from tulle.cli.run import drain_option, parse_pairs, parse_port, socket_option


@click.command()
@click.option("--name", default="ingressgateway", show_default=True, metavar="NAME", help="The gateway workload's name.")
@namespace_option
@click.option("--service-account", default="", metavar="NAME", help="Its identity in the namespace. Default: its name.")
@click.option(
    "--gateway",
    default="",
    metavar="NAME",
    help="Serve this Gateway of the Gateway API (of the same namespace) alone. Default: all of our classes.",
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="P[:PROTOCOL[:TARGET]]",
    help="A port of the Service NAME in front of it (made where none stands), and the port that is bound for it. Repeatable. "
    "Without: Gateways' own numbers.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A further label. Repeatable.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="An annotation of its entry. Repeatable.")
@drain_option
@socket_option
def gateway(
    name: str,
    namespace: str,
    service_account: str,
    gateway: str,
    ports: tuple[str, ...],
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    drain: float,
    socket: Path | None,
) -> int:
    """Run an ingress or egress gateway on this host, until it is told to end (SIGTERM, Ctrl-C).

    It has the label istio: ingressgateway, which Istio's examples select (another --label istio=... makes another gateway), and
    serves what Gateways of both APIs say, at the ports that they say.

    \b
    tulle gateway -n tulle-system
    """
    from tulle.app.gateway import run_gateway
    from tulle.client.node_api import Kind, WorkloadSpec

    own = {"gateway.networking.k8s.io/gateway-name": gateway} if gateway else {}
    spec = WorkloadSpec(
        name=name,
        namespace=namespace,
        service=name if ports else "",
        service_account=service_account or name,
        ports=tuple(parse_port(port) for port in ports),
        labels={"app": name, "istio": "ingressgateway", **own, **parse_pairs(labels, "--label")},
        annotations=parse_pairs(annotations, "--annotation"),
        kind=Kind.GATEWAY,
        drain=drain,
    )
    return asyncio.run(
        run_gateway(spec, socket=socket, ready=lambda address: click.echo(f"{spec.id} serves at {address}", err=True))
    )
