"""`tulle apitoken`: bearer tokens with which people and programs use the API server."""

from __future__ import annotations

import click

from tulle.cli.connection import asked, connect, kubeconfig_path, mesh_option
from tulle.cli.lazy import LazyGroup
from tulle.cli.setting import Duration

_PATH = "/tulle/v1/apitokens"


@click.group(cls=LazyGroup)
def apitoken() -> None:
    """Bearer tokens for the API server; `tulle token` is for nodes, `kubectl create token` for service accounts."""


@apitoken.command()
@click.option("--user", required=True, metavar="NAME", help="Whose name requests with the token have.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group of the user, such as tulle:viewers. Repeatable.")
@click.option("--lifetime", type=Duration(), default="24h", show_default=True, help="How long it is valid; at most 366 days.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("token", "kubeconfig")),
    default="token",
    show_default=True,
    help="The token alone, or a kubeconfig with it for whoever gets it.",
)
@mesh_option
def create(user: str, groups: tuple[str, ...], lifetime: float, output: str, kubeconfig: str | None) -> None:
    """Make a token: print it, and keep it nowhere. Needs the verb `impersonate` on the user and the groups."""
    body = {"user": user, "groups": list(groups), "lifetime": lifetime}
    answer = asked(connect(kubeconfig, lambda api: api.request("POST", _PATH, body=body)))
    if output == "token":
        click.echo(answer["token"])
        return
    from tulle.client.kubeconfig import read, with_token

    click.echo(with_token(read(kubeconfig_path(kubeconfig)), answer["token"], user), nl=False)


@apitoken.command("list")
@mesh_option
def list_(kubeconfig: str | None) -> None:
    """Show the tokens that are valid: whose they are, who made them, when they end."""
    from tulle.cli.terminal import table

    found = asked(connect(kubeconfig, lambda api: api.request("GET", _PATH)))["tokens"]
    rows = [(one["id"], one["user"], ",".join(one["groups"]), one["expires"], one["author"]) for one in found]
    click.echo(table(("id", "user", "groups", "expires", "made by"), rows))


@apitoken.command()
@click.argument("id_", metavar="ID")
@mesh_option
def revoke(id_: str, kubeconfig: str | None) -> None:
    """End a token: the next request with it is refused."""
    from urllib.parse import quote

    asked(connect(kubeconfig, lambda api: api.request("DELETE", f"{_PATH}/{quote(id_, safe='')}")))
    click.echo(f"token {id_} revoked")
