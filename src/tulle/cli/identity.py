"""`tulle identity`: identities that were stolen, and what is done about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.lazy import LazyGroup

_PATH = "/tulle/v1/revocations"


@click.group(cls=LazyGroup)
def identity() -> None:
    """Take identities back, and give them back.

    An IDENTITY is NAMESPACE/SERVICEACCOUNT, node:NAME, or a SPIFFE ID.
    """


@identity.command()
@click.argument("who", metavar="IDENTITY", required=False, default="")
@click.option("--serial", default="", metavar="HEX", help="One certificate only, by its number in `tulle certs`.")
@click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="One certificate only: that of a file (PEM).",
)
@click.option("--reason", default="", help="For those who look at the list later.")
@click.option("--keep-connections", is_flag=True, help="Leave what stands open: it ends by itself, and new requests are denied.")
@mesh_option
def revoke(who: str, serial: str, certificate: Path | None, reason: str, keep_connections: bool, kubeconfig: str | None) -> None:
    """Take an identity back: nothing is signed for it any more, every sidecar and gateway denies it, and what it has open is cut.

    For nobody can tell whose connections are whose, all connections inside the mesh are drained once: requests go on over new
    ones, and connections that carry bytes or long streams end within the time of a drain.
    """
    body: dict[str, Any] = {"identity": who, "serial": serial, "reason": reason, "cut": not keep_connections}
    if certificate is not None:
        body["certificate"] = certificate.read_text()
    if sum(map(bool, (who, serial, certificate))) != 1:
        raise click.UsageError("needed one of IDENTITY, --serial and --certificate")
    made = asked(connect(kubeconfig, lambda api: api.request("POST", _PATH, body=body)))
    click.echo(f"revoked: {made['identity']}" + (f", certificate {made['serial']}" if made["serial"] else ""))


@identity.command()
@click.argument("who", metavar="IDENTITY")
@click.option("--serial", default="", metavar="HEX", help="The certificate that was revoked.")
@mesh_option
def restore(who: str, serial: str, kubeconfig: str | None) -> None:
    """Give an identity back."""
    query = urlencode({"identity": who, "serial": serial})
    asked(connect(kubeconfig, lambda api: api.request("DELETE", f"{_PATH}?{query}")))
    click.echo(f"restored: {who}")


@identity.command("list")
@mesh_option
def list_(kubeconfig: str | None) -> None:
    """Show what is revoked, since when, and by whom."""
    from tulle.cli.terminal import table

    found = asked(connect(kubeconfig, lambda api: api.request("GET", _PATH)))["revocations"]
    rows = [
        (one["identity"], one["serial"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["since"])), one["by"], one["reason"])
        for one in found
    ]
    click.echo(table(("identity", "serial", "since", "by", "reason"), rows))
