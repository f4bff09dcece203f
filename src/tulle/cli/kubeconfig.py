"""`tulle kubeconfig`: for `kubectl --kubeconfig "$(tulle kubeconfig)"`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from tulle.cli.connection import kubeconfig_path, mesh_option
from tulle.kit.errors import TulleError


@click.command()
@mesh_option
def kubeconfig(kubeconfig: str | None) -> None:
    """Print the path of the kubeconfig with which kubectl speaks to this mesh."""
    click.echo(str(kubeconfig_path(kubeconfig)))


def certificate_end(path: Path) -> datetime | None:
    """When the client certificate of a kubeconfig ends; None where none can be read."""
    from cryptography import x509

    from tulle.client.kubeconfig import read

    try:
        return x509.load_pem_x509_certificates(read(path).certificate)[0].not_valid_after_utc
    except (TulleError, ValueError):
        return None
