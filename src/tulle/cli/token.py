"""`tulle token create`: what a node on another host joins with."""

from __future__ import annotations

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.lazy import LazyGroup
from tulle.cli.setting import Duration


@click.group(cls=LazyGroup)
def token() -> None:
    """Join tokens for nodes."""


@token.command()
@click.option(
    "--allow",
    multiple=True,
    metavar="NS/SA",
    default=("*/*",),
    show_default=True,
    help="Service accounts that the node may have certificates for; * stands for all. Repeatable.",
)
@click.option(
    "--ttl", type=Duration(), default="1h", show_default=True, help="How long the token may be used; once, in any case."
)
@click.option("--node", default="", metavar="NAME", help="The only node that may use it. Default: any.")
@mesh_option
def create(allow: tuple[str, ...], ttl: float, node: str, kubeconfig: str | None) -> None:
    """Make a token with which one node may join, once: print it, and keep it nowhere."""
    for pattern in allow:
        if pattern.count("/") != 1 or pattern.startswith("/") or pattern.endswith("/"):
            raise click.BadParameter(f"found {pattern!r}, needed NAMESPACE/SERVICEACCOUNT", param_hint="--allow")
    body = {"allow": list(allow), "lifetime": ttl, "node": node}
    answer = asked(connect(kubeconfig, lambda api: api.request("POST", "/tulle/v1/tokens", body=body)))
    click.echo(answer["token"])
