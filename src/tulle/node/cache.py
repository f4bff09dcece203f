"""What one proxy of this node was told, as the `Source` of its ADS server, and on disk so that it can start from there.

    control plane ──AdsClient──▶ Cache ──AdsServer──▶ Envoy
                                   │ what Envoy acknowledged
                                   ▼ cache.bin (0600, whole or not at all)

Two layers: `upstream`, as the control plane sent it, and `secrets`, this workload's certificate and roots, which never go to
disk here nor come from the control plane. (A gateway's certificates do: they are Secrets of the mesh, and the gateway has to
start without the control plane too. So the file is for its owner's eyes only.) The revisions are the cache's own: each step up
or sideways is one more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from tulle.core import type_urls
from tulle.core.encoded import Encoded, Published
from tulle.core.envoy.tls import CERTIFICATE, ROOTS
from tulle.node.file_secrets import PREFIX

log = structlog.get_logger("tulle.node")

UPSTREAM = "upstream"
SECRETS = "secrets"
ALL = "*"
OWN = (CERTIFICATE, ROOTS)  # the secrets that this node makes itself
_HEADER = b"tulle-cache 1 "
_EMPTY: Mapping[str, Encoded] = MappingProxyType({})

Table = Mapping[str, Encoded]


class _State(msgspec.Struct, array_like=True):
    """The file's content: what Envoy had acknowledged, and what it had asked for."""

    proxy: str
    wanted: dict[str, list[str]]
    answered: dict[str, list[str]]
    resources: list[Encoded]


class _Pending(msgspec.Struct, frozen=True):
    """A response of the control plane that Envoy has not answered yet: what it changed, and the table as it was then."""

    revision: int
    type_url: str
    nonce: str
    table: Table
    names: frozenset[str]


class Cache:
    """One proxy's resources. Only to be used in the event loop; `save` may run in a thread on what `snapshot` gave."""

    def __init__(self, proxy: str) -> None:
        self.proxy = proxy
        self.revision = 1
        self.held = False  # while true the proxy is told nothing
        self._tables: dict[str, Table] = {}
        self._secrets: Table = _EMPTY
        self._answered: dict[str, set[str]] = {}  # asked for and answered upstream, also with "there is none"
        self._wanted: dict[str, set[str]] = {}
        self._acknowledged: dict[str, Table] = {}
        self._refused: dict[str, set[str]] = {}  # by type, until the control plane sends them otherwise
        self._pending: list[_Pending] = []

    # As a Source.

    def layers(self, proxy: str) -> tuple[str, ...]:
        """Both, for this proxy; none for another or while held."""
        return (UPSTREAM, SECRETS) if proxy == self.proxy and not self.held else ()

    def table(self, layer: str, type_url: str) -> Table:
        """The resources of a layer and type."""
        if layer == SECRETS:
            return self._secrets if type_url == type_urls.SECRET else _EMPTY
        return self._tables.get(type_url, _EMPTY)

    def known(self, type_url: str, name: str) -> bool:
        """Whether the control plane (or this node, for secrets) has said what there is under that name."""
        if type_url == type_urls.SECRET and name in OWN:
            return bool(self._secrets)
        if type_url == type_urls.SECRET and name.startswith(PREFIX):
            return name in self._secrets  # a file that is not there may come yet
        return name in self._answered.get(type_url, ()) or name in self._tables.get(type_url, ())

    # What comes from above.

    def take(self, type_url: str, nonce: str, resources: Iterable[Encoded], removed: Iterable[str]) -> Published:
        """Apply a response; it is pending until `acknowledged` or `refused`."""
        table = dict(self._tables.get(type_url, _EMPTY))
        changed: dict[str, Encoded | None] = {}
        for resource in resources:
            table[resource.name] = changed[resource.name] = resource
        for name in removed:
            table.pop(name, None)
            changed[name] = None
        self.revision += 1
        self._tables[type_url] = MappingProxyType(table)
        self._refused.get(type_url, set()).difference_update(changed)
        wanted, answered = self._wanted.get(type_url, set()), self._answered.setdefault(type_url, set())
        answered.update(wanted & {ALL}, changed)
        if type_url == type_urls.VIRTUAL_HOST:  # asked for by route table, answered by virtual hosts, or with nothing at all
            answered.update((name.rpartition("/")[0] for name in changed) if changed else wanted)
        self._pending.append(_Pending(self.revision, type_url, nonce, self._tables[type_url], frozenset(changed)))
        return Published(revision=self.revision, changed={UPSTREAM: {type_url: changed}})

    def secrets(self, resources: Iterable[Encoded]) -> Published:
        """Replace the workload's own secrets."""
        table = {resource.name: resource for resource in resources}
        changed = {name: resource for name, resource in table.items() if self._secrets.get(name) != resource}
        self.revision += 1
        self._secrets = MappingProxyType(table)
        return Published(revision=self.revision, changed={SECRETS: {type_urls.SECRET: changed}})

    def release(self) -> Published:
        """End `held`: everything is news to the proxy."""
        self.held = False
        self.revision += 1
        tables: dict[str, Mapping[str, Encoded | None]] = dict(self._tables)
        return Published(revision=self.revision, changed={UPSTREAM: tables, SECRETS: {type_urls.SECRET: self._secrets}})

    def versions(self, type_url: str) -> dict[str, str]:
        """What the node holds of a type; where Envoy refused the newest, what it had before, so that it is sent again."""
        table = (self._acknowledged if self._refused.get(type_url) else self._tables).get(type_url, _EMPTY)
        return {name: resource.version for name, resource in table.items()}

    # What comes from below.

    @property
    def wanted(self) -> Mapping[str, set[str]]:
        """What the proxy has asked for, by type."""
        return self._wanted

    def want(self, type_url: str, subscribe: Iterable[str], unsubscribe: Iterable[str] = ()) -> None:
        """Note what the proxy asks for, and forget what it no longer does."""
        wanted = self._wanted.setdefault(type_url, set())
        wanted.update(subscribe)
        gone = set(unsubscribe) & wanted
        if not gone:
            return
        wanted -= gone
        self._answered.get(type_url, set()).difference_update(gone)
        if ALL not in wanted:
            self._drop(type_url, lambda name: name in gone)
        if type_url in (type_urls.ROUTE, type_urls.VIRTUAL_HOST):  # a route table's virtual hosts go with it
            self._drop(type_urls.VIRTUAL_HOST, lambda name: name.rpartition("/")[0] in gone)

    def _drop(self, type_url: str, gone: Callable[[str], bool]) -> None:
        for tables in (self._tables, self._acknowledged):
            table = tables.get(type_url, _EMPTY)
            tables[type_url] = MappingProxyType({name: it for name, it in table.items() if not gone(name)})

    def referred(self) -> dict[str, set[str]]:
        """What the resources here refer to, by type: a proxy that has not asked for it will."""
        found: dict[str, set[str]] = {}
        for table in self._tables.values():
            for resource in table.values():
                for type_url, name in resource.refs:
                    found.setdefault(type_url, set()).add(name)
        return found

    def acknowledged(self, revision: int, type_url: str | None = None) -> list[str]:
        """The proxy has taken everything (of a type) up to `revision`: the nonces to acknowledge upstream."""
        settled = [it for it in self._pending if it.revision <= revision and type_url in (None, it.type_url)]
        for it in settled:
            self._pending.remove(it)
            before, refused = self._acknowledged.get(it.type_url, _EMPTY), self._refused.get(it.type_url, set())
            kept = {name: before[name] for name in refused & it.table.keys() if name in before}
            taken = {name: resource for name, resource in it.table.items() if name not in refused}
            self._acknowledged[it.type_url] = MappingProxyType(taken | kept)
        return [it.nonce for it in settled]

    def refused(self, revision: int, type_url: str, names: Collection[str]) -> list[str]:
        """The proxy has refused `names` (none: all) of a type's response of `revision`: the nonces to refuse upstream.

        Others up to there wait on: the proxy is sent again what it may have taken of them.
        """
        self._refused.setdefault(type_url, set()).update(names)
        settled = [
            it
            for it in self._pending
            if it.revision <= revision and it.type_url == type_url and (not names or not it.names.isdisjoint(names))
        ]
        for it in settled:
            self._pending.remove(it)
        return [it.nonce for it in settled]

    # The disk.

    @property
    def complete(self) -> bool:
        """Whether a proxy could start from here alone: clusters and listeners were told at least once."""
        return all(ALL in self._answered.get(it, ()) for it in (type_urls.CLUSTER, type_urls.LISTENER))

    def snapshot(self) -> bytes:
        """The acknowledged state as the file has it, with a checksum in front."""
        state = _State(
            proxy=self.proxy,
            wanted={it: sorted(names) for it, names in self._wanted.items()},
            answered={it: sorted(names) for it, names in self._answered.items()},
            resources=[resource for table in self._acknowledged.values() for resource in table.values()],
        )
        body = msgspec.msgpack.encode(state)
        return _HEADER + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def load(cls, proxy: str, path: Path) -> Cache:
        """From the file; an empty cache where there is none, or where it is damaged, which is said in the log."""
        cache = cls(proxy)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cache
        except OSError as error:
            log.warning("the configuration cache cannot be read; starting without", path=str(path), error=str(error))
            return cache
        try:
            state = _decode(data, proxy)
        except ValueError as error:
            log.warning("the configuration cache is damaged; starting without", path=str(path), error=str(error))
            return cache
        cache._wanted = {it: set(names) for it, names in state.wanted.items()}
        cache._answered = {it: set(names) for it, names in state.answered.items()}
        tables: dict[str, dict[str, Encoded]] = {}
        for resource in state.resources:
            tables.setdefault(resource.type_url, {})[resource.name] = resource
        cache._tables = {it: MappingProxyType(table) for it, table in tables.items()}
        cache._acknowledged = dict(cache._tables)
        return cache


def _decode(data: bytes, proxy: str) -> _State:
    head, _, body = data.partition(b"\n")
    if not head.startswith(_HEADER):
        raise ValueError("it is not a cache of this version")
    if head.removeprefix(_HEADER) != hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum does not fit")
    state = msgspec.msgpack.decode(body, type=_State)
    if state.proxy != proxy:
        raise ValueError(f"it belongs to {state.proxy}")
    return state


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read: whole or not at all, also through a crash. Blocks."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
