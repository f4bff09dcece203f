"""`tulle ca`: what signs the mesh's certificates, and how it is rotated; `tulle certs`: when they end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.lazy import LazyGroup

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=LazyGroup)
def ca() -> None:
    """The mesh's certificate authority."""


@ca.command()
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True)
@mesh_option
def status(output: str, kubeconfig: str | None) -> None:
    """Show what signs, the step of a rotation that is next, and who is not ready for it."""
    _show(asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/ca"))), output)


@ca.command()
@click.argument("step", type=click.Choice(("prepare", "activate", "retire")))
@click.option("--force", is_flag=True, help="Go on without those who are not ready: they will be cut off.")
@mesh_option
def rotate(step: str, force: bool, kubeconfig: str | None) -> None:
    """Rotate the root, step by step.

    prepare makes a new root, which everybody trusts from then on. activate signs with it, and every certificate is renewed
    within a minute. retire ends the trust in the old one. activate and retire are refused while somebody would be cut off.
    """
    body = {"step": step, "force": force}
    _show(asked(connect(kubeconfig, lambda api: api.request("POST", "/tulle/v1/ca/rotate", body=body))), "text")


@ca.command()
@mesh_option
def csr(kubeconfig: str | None) -> None:
    """Print a signing request for an intermediate, for a root that is kept elsewhere. Its key stays in the control plane."""
    click.echo(asked(connect(kubeconfig, lambda api: api.request("POST", "/tulle/v1/ca/request")))["csr"], nl=False)


@ca.command("import")
@click.argument("chain", type=_FILE)
@click.option("--root", type=_FILE, required=True, help="What everybody is to trust (PEM): the root that signed it.")
@mesh_option
def import_(chain: Path, root: Path, kubeconfig: str | None) -> None:
    """Bring the certificate of `tulle ca csr`, signed, with those above it (PEM). It is prepared; `rotate activate` is next."""
    body = {"chain": chain.read_text(), "roots": root.read_text()}
    _show(asked(connect(kubeconfig, lambda api: api.request("POST", "/tulle/v1/ca/import", body=body))), "text")


@click.command()
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True)
@mesh_option
def certs(output: str, kubeconfig: str | None) -> None:
    """Show the certificates of workloads and nodes: who signed them, when they end, when they were renewed."""
    import json

    from tulle.cli.terminal import table

    found = asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/certificates")))["certificates"]
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    now = time.time()
    rows = [
        (
            one["holder"],
            one["serial"],
            one["issuer"],
            _time(one["notAfter"]),
            ("late, " if one["late"] else "") + _left(one["notAfter"] - now),
            f"{_left(now - one['issued'])} ago",
        )
        for one in found
    ]
    click.echo(table(("workload", "serial", "issuer", "not after", "left", "rotated"), rows))


def _show(status: dict[str, Any], output: str) -> None:
    import json

    from tulle.cli.terminal import table

    if output == "json":
        click.echo(json.dumps(status, indent=2))
        return
    now = time.time()
    rows = [
        (one["slot"], one["kind"], one["subject"], _left(now - one["since"]), _time(one["notAfter"]), one["fingerprint"][:16])
        for one in status["issuers"]
    ]
    click.echo(table(("slot", "kind", "subject", "since", "not after", "fingerprint"), rows))
    if status["next"] == "import":
        click.echo("\nnext: its successor is brought, too (at any time): tulle ca csr, have it signed, tulle ca import")
    elif status["next"]:
        waits = status["waits"]
        ready = (
            f"waits for {len(waits)}:" if waits else "nobody stands in its way" if status["next"] != "prepare" else "at any time"
        )
        click.echo(f"\nnext: tulle ca rotate {status['next']} ({ready})" if not waits else f"\nnext: {status['next']} {ready}")
        for one in waits:
            click.echo(f"  {one}")
    tokens = status.get("tokens") or {}
    if ending := tokens.get("ending"):
        click.echo(f"\njoin tokens that nobody has used: {ending}, of no use after activate: make new ones then")
    if void := tokens.get("void"):
        click.echo(f"\njoin tokens of the root before, of no use any more: {void}; make new ones: tulle token create")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _left(seconds: float) -> str:
    """A span in its two largest units."""
    if seconds < 0:
        return "ended"
    parts = [(int(seconds // 86400), "d"), (int(seconds % 86400 // 3600), "h"), (int(seconds % 3600 // 60), "m")]
    parts.append((int(seconds % 60), "s"))
    kept = [f"{number}{unit}" for number, unit in parts if number]
    return "".join(kept[:2]) or "0s"
