"""Which store a control plane keeps its objects in, by `--store`; and the patience that a shared one needs at the start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from tulle.app.notify import notify
from tulle.app.settings import ControlPlaneSettings
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import VARIABLE, Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Conflict, Store

log = structlog.get_logger("tulle.control-plane")

T = TypeVar("T")

STORE = "store.db"  # in the state folder
_PAUSE = 1.0  # seconds before a store that is away is tried again


def is_shared(settings: ControlPlaneSettings) -> bool:
    """Whether several control planes may have this store."""
    return settings.store.startswith(("etcd:", "etcds:"))


def open_store(settings: ControlPlaneSettings) -> tuple[SealedStore, Keys]:
    """The store, and the keys that its secrets are sealed with. Raises `TulleError` where it cannot be opened.

    A shared one is not reached yet: it connects at its first use.
    """
    keys = _keys(settings)
    return SealedStore(_inside(settings), keys), keys


def _keys(settings: ControlPlaneSettings) -> Keys:
    text = os.environ.get(VARIABLE, "")
    if is_shared(settings) and settings.encryption_key_file is None and not text:
        raise Refused(
            "a store in etcd needs an encryption key: the authority's key lies there too, and every control plane must open it",
            hint=f"openssl rand -base64 32, as the same file on every host: --encryption-key-file FILE (0600), or {VARIABLE}",
        )
    return Keys.choose(settings.encryption_key_file, text, settings.state_dir)


def _inside(settings: ControlPlaneSettings) -> Store:
    kind, _, rest = settings.store.partition(":")
    if kind in ("", "sqlite"):
        return SqliteStore(Path(rest) if rest else settings.state_dir / STORE)
    if settings.store == "memory:":
        return MemoryStore()
    if not is_shared(settings):
        raise Refused(
            f"--store: found {settings.store!r}, needed sqlite:PATH, memory: or etcd://HOST:PORT[,HOST:PORT...][/PREFIX]"
        )
    try:
        from tulle.control.store.etcd import EtcdStore
        from tulle.control.store.etcd_cluster import TlsFiles, parse
    except ModuleNotFoundError as error:
        raise Refused(f"a store in etcd needs the module {error.name}", hint="pip install 'tulle[etcd]'") from error
    files = TlsFiles(settings.etcd_ca_file, settings.etcd_cert_file, settings.etcd_key_file)
    place = parse(settings.store)
    if not place.tls and files != TlsFiles():
        raise Refused(f"--store {settings.store}: found certificates for a connection without TLS", hint="needed etcds://...")
    return EtcdStore(place, files)


async def when_there(settings: ControlPlaneSettings, work: Callable[[], Awaitable[T]]) -> T:
    """Do what needs the store. One that several control planes have may be away: it is waited for, and that is said.

    `work` is done again too where another control plane did the same at the same time.
    """
    while True:
        try:
            return await work()
        except Conflict:
            continue
        except Unavailable as error:
            if not is_shared(settings):
                raise
            log.warning("waiting for the store", why=error.message)
            notify(f"STATUS=waiting for the store: {error.message}")
            await asyncio.sleep(_PAUSE)
