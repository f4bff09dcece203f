"""`tulle backup FILE` and `tulle restore FILE`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.setting import setting

if TYPE_CHECKING:
    from tulle.client.api import ApiClient
    from tulle.control.store.sealed import Keys

_state_option = setting(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The control plane's folder. Default: /var/lib/tulle, or a person's XDG state folder.",
)
_FILE = click.Path(dir_okay=False, path_type=Path)
_key_option = setting(
    "--encryption-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The keys that its secrets are sealed with. Default: those of TULLE_ENCRYPTION_KEY, else encryption.key of the folder.",
)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--with-authority", is_flag=True, help="With the certificate authority and its key, sealed like the secrets.")
@click.option("--offline", is_flag=True, help="From the state folder, of a control plane that does not run.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@_state_option
@_key_option
@mesh_option
def backup(
    file: Path,
    with_authority: bool,
    offline: bool,
    force: bool,
    state_dir: Path | None,
    encryption_key_file: Path | None,
    kubeconfig: str | None,
) -> None:
    """Write everything that the control plane has at this moment into FILE, while it runs.

    Secrets in it stay sealed with the encryption key, which is not in it: keep that key elsewhere. Not in it: the history,
    and what was seen of the mesh: recorded calls (calls.db of the state folder), figures and traces.
    """
    from tulle.control.store.backup import read
    from tulle.kit.errors import Refused

    if file.exists() and not force:
        raise Refused(f"{file}: the file is there already", hint="--force overwrites it")
    fresh = file.with_name(f".{file.name}.part")
    try:
        if offline:
            from tulle.app.backup import offline as pieces

            state, keys = _given(state_dir, encryption_key_file)
            asked(_write(fresh, pieces(state, keys, with_authority=with_authority)))
        else:

            async def ask(api: ApiClient) -> None:
                await _write(fresh, api.download("/tulle/v1/backup", {"authority": with_authority}))

            asked(connect(kubeconfig, ask))
        made = read(fresh)
        fresh.rename(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
    size, number = file.stat().st_size, len(made.objects)
    click.echo(f"{file}: {number} objects of revision {made.header.revision}, {size} bytes")
    click.echo("not in it: the history, recorded calls, figures, traces", err=True)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also where there is a store, or another authority: those are set aside.")
@_state_option
@_key_option
@setting("--store", default="", metavar="STORE", help="Into the etcd that control planes share: etcd://HOST:PORT[,...][/PREFIX].")
@setting("--etcd-ca-file", type=_FILE, help="Whom to trust as etcd (PEM).")
@setting("--etcd-cert-file", type=_FILE, help="The certificate to show to etcd (PEM).")
@setting("--etcd-key-file", type=_FILE, help="Its key (PEM).")
def restore(
    file: Path,
    force: bool,
    state_dir: Path | None,
    encryption_key_file: Path | None,
    store: str,
    etcd_ca_file: Path | None,
    etcd_cert_file: Path | None,
    etcd_key_file: Path | None,
) -> None:
    """Bring back what FILE has, into the folder of a control plane that does not run, or (--store) into etcd.

    The restored mesh goes on from a revision that is above any of before. What was there is kept beside it, and FILE's authority
    (if it has one) is restored with the rest. So a mesh moves from SQLite to etcd, too.
    """
    from tulle.app import backup as backups
    from tulle.app.settings import ControlPlaneSettings
    from tulle.app.stores import is_shared
    from tulle.cli.terminal import say

    state, keys = _given(state_dir, encryption_key_file)
    settings = ControlPlaneSettings(
        state_dir=state,
        store=store,
        encryption_key_file=encryption_key_file,
        etcd_ca_file=etcd_ca_file,
        etcd_cert_file=etcd_cert_file,
        etcd_key_file=etcd_key_file,
    )
    if store and not is_shared(settings):
        raise click.BadParameter("needed etcd://HOST:PORT; a folder is named with --state-dir", param_hint="--store")
    if store:
        done = asked(backups.restore_shared(file, settings, force=force))
    else:
        done = asked(backups.restore(file, state, keys, force=force))
    for path in done.aside:
        say(f"what was there is kept: {path}")
    if not done.authority and (store or not (state / "ca").exists()):
        say("there is no certificate authority here, and none in the backup: a new one is made, and every node must join again")
    click.echo(f"{store or state}: {done.objects} objects restored, at revision {done.revision}")


def _given(state_dir: Path | None, key_file: Path | None) -> tuple[Path, Keys | None]:
    """The folder, and the keys where there are any: none is made here."""
    from tulle.control.store.sealed import FILE, VARIABLE, Keys
    from tulle.kit import paths

    state, text = state_dir or paths.state_dir(), os.environ.get(VARIABLE, "")
    if key_file is None and not text and not (state / FILE).exists():
        return state, None
    return state, Keys.choose(key_file, text, state)


async def _write(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """Into a file that only its owner reads, and that survives a power loss."""
    from tulle.kit.errors import Unavailable

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:  # noqa: ASYNC230
            async for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"{path}: the backup cannot be written: {error.strerror}") from error
