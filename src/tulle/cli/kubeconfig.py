"""`tulle kubeconfig`: for `kubectl --kubeconfig "$(tulle kubeconfig)"`."""

from __future__ import annotations

import click

from tulle.cli.connection import kubeconfig_path, mesh_option


@click.command()
@mesh_option
def kubeconfig(kubeconfig: str | None) -> None:
    """Print the path of the kubeconfig with which kubectl speaks to this mesh."""
    click.echo(str(kubeconfig_path(kubeconfig)))
