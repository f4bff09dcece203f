"""`tulle observability`: what Prometheus and Grafana need to show this mesh: made here, and followed by them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tulle.cli.connection import asked, connect, kubeconfig_path, mesh_option
from tulle.cli.lazy import LazyGroup
from tulle.cli.terminal import say
from tulle.kit.errors import Refused

FOLDER = "/etc/prometheus/tulle"
_LIFETIME = 366 * 24 * 3600.0  # seconds; the longest that there is
_USER, _GROUP = "prometheus", "tulle:metrics-readers"


@click.group(cls=LazyGroup)
def observability() -> None:
    """Configuration for Prometheus, Grafana and alerts, to be run beside the mesh."""


@observability.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where Prometheus is to find the token, the certificates and the rules.",
)
@click.option("--write", is_flag=True, help="Write all of it into the folder: the configuration, a token of its own, rules.")
@mesh_option
def prometheus(folder: Path, write: bool, kubeconfig: str | None) -> None:
    """Print the configuration of a Prometheus that reads this mesh, or write all that it needs.

    \b
    tulle observability prometheus --folder /etc/prometheus/tulle --write
    prometheus --config.file=/etc/prometheus/tulle/prometheus.yml

    It finds workloads, nodes and control planes by itself, with a token that may see nothing else, and is valid for a year.
    """
    from tulle.cli.alerts import rules
    from tulle.cli.prometheus_config import ALERTS, CA, CONFIG, TOKEN, configuration
    from tulle.client.kubeconfig import read

    mesh = read(kubeconfig_path(kubeconfig))
    found = configuration(mesh.server, str(folder.absolute()))
    if not write:
        click.echo(found, nl=False)
        return
    body = {"user": _USER, "groups": [_GROUP], "lifetime": _LIFETIME}
    token = asked(connect(kubeconfig, lambda api: api.request("POST", "/tulle/v1/apitokens", body=body)))["token"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((CONFIG, found), (CA, mesh.ca.decode()), (ALERTS, rules())):
            (folder / name).write_text(text)
        (folder / TOKEN).unlink(missing_ok=True)
        (folder / TOKEN).touch(mode=0o600)
        (folder / TOKEN).write_text(token)
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}", hint="choose another folder with --folder") from error
    say(f"wrote {CONFIG}, {CA}, {TOKEN} (only its owner may read it) and {ALERTS} into {folder}")


@observability.command()
def alerts() -> None:
    """Print alert rules for Prometheus: errors, latency, certificates, refused configuration, control planes."""
    from tulle.cli.alerts import rules

    click.echo(rules(), nl=False)


@observability.command()
@click.argument("name", required=False)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Write all of them there, a file each.")
def grafana(name: str | None, folder: Path | None) -> None:
    """Print a dashboard for Grafana as JSON: mesh, service, workload or control-plane; without a NAME, list them.

    \b
    tulle observability grafana mesh > mesh.json
    tulle observability grafana --folder /var/lib/grafana/dashboards
    """
    from tulle.cli.dashboards import dashboards

    made = dashboards()
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for one, board in made.items():
                (folder / f"tulle-{one}.json").write_text(_json(board))
        except OSError as error:
            raise Refused(f"{error.filename}: {error.strerror}") from error
        say(f"wrote {len(made)} dashboards into {folder}")
    elif name is None:
        for one, board in made.items():
            click.echo(f"{one:16}{board['description']}")
    elif name in made:
        click.echo(_json(made[name]), nl=False)
    else:
        raise click.UsageError(f"found {name!r}; needed one of {', '.join(made)}")


def _json(board: object) -> str:
    return json.dumps(board, indent=1) + "\n"
