"""One proxy between a real control plane's ADS server and (in Envoy's place) a real ADS client, all over real sockets."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Roots
from tulle.core import type_urls
from tulle.core.encoded import Encoded, Published, encode, encode_json
from tulle.core.model.name import Name
from tulle.node import ads, file_secrets
from tulle.node.ads import Feed
from tulle.node.cache import Cache
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.xds.client import AdsClient, Response, Upstream
from tulle.xds.server import OPTIONS, AdsServer

ME = "default/me"
CDS, EDS, LDS, SDS = type_urls.CLUSTER, type_urls.ENDPOINT, type_urls.LISTENER, type_urls.SECRET


def cluster(name: str, comment: str = "") -> Encoded:
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=comment)
    return encode(CDS, name, message.SerializeToString(deterministic=True), refs=((EDS, name),))


def endpoints(name: str, content: bytes = b"") -> Encoded:
    return encode(EDS, name, content)


class Mesh:
    """A source that a test changes by hand."""

    def __init__(self) -> None:
        self.revision = 1
        self.tables: dict[str, dict[str, Encoded]] = {}
        self.server = AdsServer(self)

    def layers(self, proxy: str) -> tuple[str, ...]:
        return ("mesh",)

    def table(self, layer: str, type_url: str) -> Mapping[str, Encoded]:
        return self.tables.get(type_url, {})

    def put(self, *resources: Encoded) -> int:
        changed: dict[str, dict[str, Encoded | None]] = {}
        for resource in resources:
            self.tables[resource.type_url] = {**self.tables.get(resource.type_url, {}), resource.name: resource}
            changed.setdefault(resource.type_url, {})[resource.name] = resource
        self.revision += 1
        self.server.publish(Published(self.revision, {"mesh": changed}))
        return self.revision


class Envoy:
    """Holds what it is told; answers as `answer` says (None: not at all)."""

    def __init__(self, socket: Path) -> None:
        self.held: dict[str, dict[str, Encoded]] = {}
        self.order: list[str] = []
        self.answer: Callable[[Response], str | None] = lambda response: ""
        self.unanswered: list[Response] = []
        self.changed = asyncio.Event()
        self._upstream = Upstream(f"unix:{socket}")
        self.client = AdsClient(self._upstream, ME, self._deliver, self._versions)
        self._task = asyncio.create_task(self.client.run())

    def _versions(self, type_url: str) -> Mapping[str, str]:
        return {name: it.version for name, it in self.held.get(type_url, {}).items()}

    def _deliver(self, response: Response) -> None:
        table = self.held.setdefault(response.type_url, {})
        table.update({it.name: it for it in response.resources})
        for name in response.removed:
            table.pop(name, None)
        self.order += [f"{type_urls.SHORT[response.type_url]} {it.name}" for it in response.resources]
        said = self.answer(response)
        if said is None:
            self.unanswered.append(response)
        elif said:
            self.client.nack(response.nonce, said)
        else:
            self.client.ack(response.nonce)
        if response.type_url == CDS and (names := [it.name for it in response.resources]):
            self.client.want(EDS, names)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._upstream.close()


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mesh = Mesh()
        self.names: Mapping[str, Name] = {}
        self.envoys: list[Envoy] = []
        self._grpc: grpc.aio.Server | None = None
        self.feed = self.make(Cache(ME))

    def make(self, cache: Cache) -> Feed:
        self.upstream = Upstream(f"unix:{self.folder}/cp.sock")
        return Feed(ME, self.upstream, cache, self.folder / "cache.bin", self.folder / "xds.sock", self._tell)

    def _tell(self, names: Mapping[str, Name]) -> None:
        self.names = names

    async def start_mesh(self) -> None:
        self._grpc = grpc.aio.server(options=OPTIONS)
        self._grpc.add_generic_rpc_handlers(self.mesh.server.handlers)
        self._grpc.add_insecure_port(f"unix:{self.folder}/cp.sock")
        await self._grpc.start()

    async def stop_mesh(self) -> None:
        if self._grpc is not None:
            await self.mesh.server.close()
            await self._grpc.stop(None)
            self._grpc = None

    def envoy(self, *types: str) -> Envoy:
        made = Envoy(self.folder / "xds.sock")
        self.envoys.append(made)
        for type_url in types or (CDS, LDS):
            made.client.want(type_url, ["*"])
        return made

    async def close(self) -> None:
        for envoy in self.envoys:
            await envoy.close()
        await self.feed.close()
        await self.upstream.close()
        await self.stop_mesh()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="tn-") as folder:
        made = Rig(Path(folder))
        await made.start_mesh()
        made.mesh.put(cluster("a"), endpoints("a"), encode(LDS, "in", b"1"))
        made.mesh.put(encode_json(type_urls.NAME, "a.default", Name("a.default", "a", "default", ("240.0.0.1",))))
        yield made
        await made.close()


async def synced(rig: Rig, revision: int, timeout: float = 20) -> Sequence[str]:
    return await rig.mesh.server.wait_synced(revision, timeout)


async def test_envoy_gets_what_the_control_plane_has(rig: Rig) -> None:
    """No sidecar would be configured, and no name resolve."""
    await rig.feed.start()
    envoy = rig.envoy()
    await envoy.until(lambda: {"a"} == set(envoy.held.get(EDS, {})) and "in" in envoy.held.get(LDS, {}))
    assert not await synced(rig, rig.mesh.revision)
    assert rig.names["a.default"].addresses == ("240.0.0.1",)
    revision = rig.mesh.put(endpoints("a", b"moved"))
    await envoy.until(lambda: envoy.held[EDS]["a"] == endpoints("a", b"moved"))
    assert not await synced(rig, revision)


async def test_the_control_plane_hears_what_envoy_says(rig: Rig) -> None:
    """`tulle wait --for=synced` would be true before Envoy has taken a change, or a refusal be seen by nobody."""
    await rig.feed.start()
    envoy = rig.envoy()
    await envoy.until(lambda: "in" in envoy.held.get(LDS, {}))
    assert not await synced(rig, rig.mesh.revision)
    envoy.answer = lambda response: None
    revision = rig.mesh.put(encode(LDS, "in", b"2"))
    await envoy.until(lambda: len(envoy.unanswered) == 1)
    assert await synced(rig, revision, timeout=0.3) == [ME]
    envoy.client.ack(envoy.unanswered[0].nonce)
    assert not await synced(rig, revision)
    envoy.answer = lambda response: "in: this listener is wrong"
    revision = rig.mesh.put(encode(LDS, "in", b"3"))
    assert not await synced(rig, revision), "a refusal is an answer"
    (status,) = rig.mesh.server.proxies()
    refused = {it.type_url: it.refused for it in status.types}
    assert "this listener is wrong" in refused[LDS]["in"]
    assert rig.feed.refusals == {LDS: "in: this listener is wrong"}


async def test_a_cluster_waits_for_its_endpoints_here(rig: Rig) -> None:
    """Envoy answers no cluster update while one warms: everything would stand still until somebody's patience is over."""
    await rig.feed.start()
    envoy = rig.envoy()
    await envoy.until(lambda: "a" in envoy.held.get(EDS, {}))

    def reluctant(response: Response) -> str | None:
        """As Envoy is: no answer to clusters before all their endpoints are there."""
        return None if response.type_url == CDS else ""

    envoy.answer = reluctant
    began = asyncio.get_running_loop().time()
    rig.mesh.put(cluster("b"), endpoints("b"))
    await envoy.until(lambda: "b" in envoy.held[EDS])
    for response in envoy.unanswered:
        envoy.client.ack(response.nonce)
    envoy.answer = lambda response: ""
    assert not await synced(rig, rig.mesh.revision)
    assert asyncio.get_running_loop().time() - began < ads._STAGED / 2, "nobody's patience was needed"


async def test_starts_from_the_cache(rig: Rig) -> None:
    """A sidecar would wait for a control plane that is down."""
    await rig.feed.start()
    envoy = rig.envoy()
    await envoy.until(lambda: "a" in envoy.held.get(EDS, {}) and "in" in envoy.held.get(LDS, {}))
    assert not await synced(rig, rig.mesh.revision)
    await envoy.close()
    rig.envoys.clear()
    await rig.feed.close()
    await rig.upstream.close()
    await rig.stop_mesh()
    rig.feed = rig.make(Cache.load(ME, rig.folder / "cache.bin"))
    await rig.feed.start()
    assert rig.names["a.default"].addresses == ("240.0.0.1",)
    again = rig.envoy()
    await again.until(lambda: "a" in again.held.get(EDS, {}) and "in" in again.held.get(LDS, {}))
    assert not rig.feed.connected
    await rig.start_mesh()
    revision = rig.mesh.put(endpoints("a", b"moved"))
    await again.until(lambda: again.held[EDS]["a"] == endpoints("a", b"moved"))
    assert not await synced(rig, revision)


async def test_a_taken_over_envoy_is_told_to_drop_nothing(rig: Rig) -> None:
    """What Envoy learned after the cache was last written would be taken from it for a moment: requests would fail."""
    await rig.feed.start()
    envoy = rig.envoy()
    await envoy.until(lambda: "a" in envoy.held.get(EDS, {}) and "in" in envoy.held.get(LDS, {}))
    assert not await synced(rig, rig.mesh.revision)
    await rig.feed.close()  # the cache is written ...
    await rig.upstream.close()
    rig.mesh.put(cluster("b"), endpoints("b"))
    envoy.held[CDS]["b"], envoy.held[EDS]["b"] = cluster("b"), endpoints("b")  # ... and Envoy got more since
    envoy.client.want(EDS, ["b"])
    removed: list[str] = []
    envoy.answer = lambda response: removed.extend(response.removed) or ""  # type: ignore[func-returns-value]
    rig.feed = rig.make(Cache.load(ME, rig.folder / "cache.bin"))
    await rig.feed.start(hold=True)
    revision = rig.mesh.put(endpoints("b", b"moved"))
    await envoy.until(lambda: envoy.held[EDS].get("b") == endpoints("b", b"moved"))
    assert not await synced(rig, revision)
    assert not removed


async def test_who_asks_while_files_are_read_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Envoy that comes back at a bad moment would never hear of a renewed certificate again, or wait for one for ever."""
    monkeypatch.setattr(ads, "_FILES", 3600.0)  # nothing but the question leads to a look
    names = []
    for host in ("a", "b"):
        paths = [rig.folder / f"{host}.{end}" for end in ("crt", "key")]
        for path, data in zip(paths, Roots().server(host), strict=True):
            path.write_bytes(data)
            path.chmod(0o644)
        names.append(f"file-cert:{paths[0]}~{paths[1]}")
    rig.folder.chmod(0o755)
    await rig.feed.start()
    envoy, loop, stamps = rig.envoy(), asyncio.get_running_loop(), file_secrets.stamps

    async def ask() -> None:
        envoy.client.want(SDS, names[1:])
        while not any(names[1] in asked.get(SDS, ()) for asked in rig.feed._streams.values()):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)

    def slow(wanted: Iterable[str]) -> dict[str, tuple[int, ...]]:
        found = stamps(wanted)
        if list(wanted) == names[:1]:
            asyncio.run_coroutine_threadsafe(ask(), loop).result(10)
        return found

    monkeypatch.setattr(file_secrets, "stamps", slow)
    envoy.client.want(SDS, names[:1])
    await envoy.until(lambda: set(envoy.held.get(SDS, ())) == set(names))


async def test_nobody_elses_envoy(rig: Rig) -> None:
    """A workload could be given the configuration, and with it the certificate, of another."""
    await rig.feed.start()
    stranger = Upstream(f"unix:{rig.folder}/xds.sock")
    got: list[Response] = []
    client = AdsClient(stranger, "default/other", got.append)
    client.want(CDS, ["*"])
    running = asyncio.create_task(client.run())
    envoy = rig.envoy()
    await envoy.until(lambda: "a" in envoy.held.get(EDS, {}))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await stranger.close()
    assert not got
