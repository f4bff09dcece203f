"""`tulle dashboard`: the page, as the person who asks for it."""

from __future__ import annotations

import asyncio
import html
import os
import tempfile
import webbrowser
from pathlib import Path

import click

from tulle.cli.connection import connect, kubeconfig_path, mesh_option
from tulle.cli.setting import setting
from tulle.cli.terminal import say


@click.command()
@setting(
    "--port", type=click.IntRange(0, 65535), default=0, variable="TULLE_DASHBOARD_PORT", help="Where it serves; 0: any port."
)
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open a browser.")
@mesh_option
def dashboard(port: int, opens: bool, kubeconfig: str | None) -> int:
    """Open the mesh's page in a browser, with the rights of your kubeconfig, until Ctrl-C.

    It serves on this machine alone, to whoever has the address that it prints.
    """
    try:
        asyncio.run(_serve(port, opens, kubeconfig))
    except KeyboardInterrupt:
        say("the page is closed")
    return 0


async def _serve(port: int, opens: bool, chosen: str | None) -> None:
    from tulle.client import kubeconfig
    from tulle.client.forward import Forwarder

    await connect(chosen, lambda api: api.request("GET", "/tulle/v1/status"))
    async with Forwarder(kubeconfig.read(kubeconfig_path(chosen)), port) as forwarder:
        click.echo(forwarder.address)
        say("open this address; Ctrl-C ends it")
        file = _file(forwarder.address) if opens else None
        try:
            if file is not None:
                # Command lines are for everybody on this machine to read; this file is not.
                webbrowser.open(file.as_uri())
            await asyncio.Event().wait()
        finally:
            if file is not None:
                file.unlink(missing_ok=True)


def _file(address: str) -> Path:
    """A file for this user's browser alone that leads to the address."""
    handle, name = tempfile.mkstemp(prefix="tulle-", suffix=".html")
    said = html.escape(address)
    with os.fdopen(handle, "w") as file:
        file.write(
            f'<!doctype html><title>tulle</title><meta http-equiv="refresh" content="0; url={said}"><a href="{said}">tulle</a>'
        )
    return Path(name)
