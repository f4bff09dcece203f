"""`tulle federation`: this trust domain's bundle, for others; and those of others, as the mesh has them."""

from __future__ import annotations

import time
from typing import Any

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.lazy import LazyGroup


@click.group(cls=LazyGroup)
def federation() -> None:
    """Trust bundles: this trust domain's, and those of the ones that it is federated with (MeshConfig)."""


@federation.command()
@mesh_option
def bundle(kubeconfig: str | None) -> None:
    """Print this trust domain's bundle as a SPIFFE document: for the trustDomainBundle of another mesh.

    \b
    tulle federation bundle > here.json
    """
    import json

    click.echo(json.dumps(_asked(kubeconfig)["bundle"]))


@federation.command("list")
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True)
@mesh_option
def list_(output: str, kubeconfig: str | None) -> None:
    """Show the trust domains that the mesh is federated with: what of each is known, since when, and what is wrong."""
    import json

    from tulle.cli.terminal import table

    found = _asked(kubeconfig)["trustDomains"]
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    now = time.time()
    rows = [
        (
            one["trustDomain"],
            one["profile"] or "-",
            one["url"] or "-",
            str(one["sequence"]),
            str(one["authorities"]),
            str(one["keys"]),
            f"{now - one['refreshed']:.0f} s ago" if one["refreshed"] else "-",
            one["error"] or "-",
        )
        for one in found
    ]
    click.echo(table(("trust domain", "profile", "url", "sequence", "roots", "keys", "refreshed", "error"), rows))


def _asked(kubeconfig: str | None) -> dict[str, Any]:
    found: dict[str, Any] = asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/federation")))
    return found
