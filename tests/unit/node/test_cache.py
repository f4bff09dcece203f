"""The node's cache: what it tells Envoy, what it keeps on disk, and that a damaged file costs nothing but a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.node.cache import ALL, SECRETS, UPSTREAM, Cache, write_private

ME = "default/reviews-v1"


def cluster(name: str, content: bytes = b"1") -> Encoded:
    return encode(type_urls.CLUSTER, name, content, refs=((type_urls.ENDPOINT, name),))


def host(name: str) -> Encoded:
    return encode(type_urls.VIRTUAL_HOST, name, b"host")


def filled() -> Cache:
    """A cache that an Envoy has acknowledged two clusters, a listener and a route table of."""
    cache = Cache(ME)
    cache.want(type_urls.CLUSTER, [ALL])
    cache.want(type_urls.LISTENER, [ALL])
    cache.want(type_urls.ROUTE, ["9080.default"])
    cache.want(type_urls.VIRTUAL_HOST, [ALL])
    cache.take(type_urls.CLUSTER, "1", [cluster("a"), cluster("b")], [])
    cache.take(type_urls.LISTENER, "2", [encode(type_urls.LISTENER, "virtualInbound", b"l")], [])
    cache.take(type_urls.ROUTE, "3", [encode(type_urls.ROUTE, "9080.default", b"r")], [])
    cache.take(type_urls.VIRTUAL_HOST, "4", [host("9080.default/reviews:9080")], [])
    assert cache.acknowledged(cache.revision) == ["1", "2", "3", "4"]
    return cache


def stored(cache: Cache, folder: Path) -> Path:
    path = folder / "cache.bin"
    write_private(path, cache.snapshot())
    return path


def test_starts_from_disk(tmp_path: Path) -> None:
    """A sidecar would not start while the control plane is down."""
    again = Cache.load(ME, stored(filled(), tmp_path))
    assert again.complete
    assert dict(again.table(UPSTREAM, type_urls.CLUSTER)) == {"a": cluster("a"), "b": cluster("b")}
    assert again.table(UPSTREAM, type_urls.CLUSTER)["a"].refs == ((type_urls.ENDPOINT, "a"),)
    assert again.wanted[type_urls.ROUTE] == {"9080.default"}, "so that it is asked for upstream before Envoy asks"
    assert again.versions(type_urls.CLUSTER) == {"a": cluster("a").version, "b": cluster("b").version}
    assert again.known(type_urls.LISTENER, ALL)


def test_only_what_was_acknowledged_is_kept(tmp_path: Path) -> None:
    """An Envoy that refused a configuration would be started with it again, with nothing to fall back to."""
    cache = filled()
    cache.take(type_urls.CLUSTER, "5", [cluster("a", b"broken")], ["b"])
    assert cache.refused(cache.revision, type_urls.CLUSTER, ["a"]) == ["5"]
    assert cache.versions(type_urls.CLUSTER) == {"a": cluster("a").version, "b": cluster("b").version}, "it is sent again"
    again = Cache.load(ME, stored(cache, tmp_path))
    assert dict(again.table(UPSTREAM, type_urls.CLUSTER)) == {"a": cluster("a"), "b": cluster("b")}
    cache.take(type_urls.CLUSTER, "6", [cluster("a", b"repaired")], [])
    assert cache.acknowledged(cache.revision, type_urls.CLUSTER) == ["6"]
    again = Cache.load(ME, stored(cache, tmp_path))
    assert dict(again.table(UPSTREAM, type_urls.CLUSTER)) == {"a": cluster("a", b"repaired")}


def test_one_refusal_is_no_word_on_what_came_beside_it(tmp_path: Path) -> None:
    """Broken: a right object would be told as refused for a wrong one, for ever; and Envoy started with the wrong one again."""
    cache = filled()
    cache.take(type_urls.CLUSTER, "5", [cluster("a", b"wrong"), cluster("new", b"wrong")], [])
    cache.take(type_urls.CLUSTER, "6", [cluster("c")], ["b"])
    assert cache.refused(cache.revision, type_urls.CLUSTER, ["a", "new"]) == ["5"]
    assert cache.acknowledged(cache.revision, type_urls.CLUSTER) == ["6"]
    again = Cache.load(ME, stored(cache, tmp_path))
    assert dict(again.table(UPSTREAM, type_urls.CLUSTER)) == {"a": cluster("a"), "c": cluster("c")}
    assert cache.versions(type_urls.CLUSTER)["a"] == cluster("a").version, "so that the newest is sent, and refused, again"
    cache.take(type_urls.CLUSTER, "7", [cluster("a", b"2")], ["new"])
    assert cache.acknowledged(cache.revision) == ["7"]
    assert cache.versions(type_urls.CLUSTER) == {"a": cluster("a", b"2").version, "c": cluster("c").version}


def test_answers_wait_for_their_revision() -> None:
    """The control plane would hear that Envoy has what Envoy was not even sent."""
    cache = Cache(ME)
    first = cache.take(type_urls.CLUSTER, "1", [cluster("a")], []).revision
    cache.take(type_urls.CLUSTER, "2", [cluster("b")], [])
    cache.take(type_urls.ENDPOINT, "3", [], [])
    assert cache.acknowledged(first, type_urls.CLUSTER) == ["1"]
    assert cache.acknowledged(first, type_urls.CLUSTER) == []
    assert cache.acknowledged(cache.revision) == ["2", "3"]


def test_silence_where_nothing_was_said() -> None:
    """Envoy would be told that nothing exists, and serve nothing, while the control plane's answer is on its way."""
    cache = Cache(ME)
    cache.want(type_urls.CLUSTER, [ALL])
    assert not cache.known(type_urls.CLUSTER, ALL)
    assert not cache.known(type_urls.ENDPOINT, "a")
    assert not cache.known(type_urls.SECRET, "default")
    cache.take(type_urls.CLUSTER, "1", [], [])
    assert cache.known(type_urls.CLUSTER, ALL), "an empty answer is an answer"
    published = cache.take(type_urls.ENDPOINT, "2", [], ["a"])
    assert cache.known(type_urls.ENDPOINT, "a")
    assert published.changed == {UPSTREAM: {type_urls.ENDPOINT: {"a": None}}}


def test_what_envoy_lets_go_is_forgotten() -> None:
    """The cache would grow for ever, and hold what nobody keeps current."""
    cache = filled()
    cache.want(type_urls.ENDPOINT, ["a", "b"])
    cache.take(type_urls.ENDPOINT, "5", [encode(type_urls.ENDPOINT, name, b"e") for name in "ab"], [])
    cache.want(type_urls.ENDPOINT, [], ["a"])
    assert set(cache.table(UPSTREAM, type_urls.ENDPOINT)) == {"b"}
    assert not cache.known(type_urls.ENDPOINT, "a"), "asked for again, it is asked for upstream again"
    cache.want(type_urls.ROUTE, [], ["9080.default"])
    assert not cache.table(UPSTREAM, type_urls.VIRTUAL_HOST), "the hosts went with their table"


def test_secrets_are_a_layer_of_their_own(tmp_path: Path) -> None:
    """Private keys would be written into the cache file, or a renewed certificate would not reach Envoy."""
    cache = filled()
    published = cache.secrets([encode(type_urls.SECRET, "default", b"KEY-1"), encode(type_urls.SECRET, "ROOTCA", b"root")])
    assert set(published.changed[SECRETS][type_urls.SECRET]) == {"default", "ROOTCA"}
    published = cache.secrets([encode(type_urls.SECRET, "default", b"KEY-2"), encode(type_urls.SECRET, "ROOTCA", b"root")])
    assert set(published.changed[SECRETS][type_urls.SECRET]) == {"default"}, "only what changed"
    assert b"KEY" not in stored(cache, tmp_path).read_bytes()


def test_held_until_released() -> None:
    """An Envoy that was taken over would be told to drop what it learned after the cache was last written."""
    cache = filled()
    cache.held = True
    assert cache.layers(ME) == ()
    published = cache.release()
    assert cache.layers(ME) == (UPSTREAM, SECRETS)
    assert set(published.changed[UPSTREAM][type_urls.CLUSTER]) == {"a", "b"}
    assert cache.layers("default/other") == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"tulle-cache 1", b"tulle-cache 9", 1),
        lambda data: b"\x00" * len(data),
    ],
    ids=["empty", "cut", "flipped", "future", "zeros"],
)
def test_a_damaged_file_is_ignored(tmp_path: Path, damage: object) -> None:
    """A node would crash at its start, or serve rubbish, after a disk lost what was written."""
    assert callable(damage)
    path = stored(filled(), tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    cache = Cache.load(ME, path)
    assert not cache.complete
    assert not cache.table(UPSTREAM, type_urls.CLUSTER)


def test_another_workloads_file_is_ignored(tmp_path: Path) -> None:
    """A workload would be served the inbound ports of another."""
    assert not Cache.load("default/other", stored(filled(), tmp_path)).complete


def test_nobody_else_may_read(tmp_path: Path) -> None:
    """Other users of the machine would read the mesh's configuration, or its keys."""
    path = stored(filled(), tmp_path / "new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    """A kill -9 at the wrong moment would cost the cache."""
    path = tmp_path / "cache.bin"
    program = (
        "import sys; from pathlib import Path; from tulle.node.cache import write_private\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; write_private(Path(sys.argv[1]), bytes([n % 251]) * 300_000); print(flush=True)\n"
    )
    for count in range(1, 6):
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(count):
            writer.stdout.readline()
        os.kill(writer.pid, 9)
        writer.wait()
        writer.stdout.close()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_a_gateways_certificates_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    """A gateway would not start while the control plane is down; or anybody on its host could read its keys."""
    cache = filled()
    name = "kubernetes://shop/cert"
    cache.want(type_urls.SECRET, [name])
    assert not cache.known(type_urls.SECRET, name), "the control plane has yet to say"
    cache.take(type_urls.SECRET, "5", [encode(type_urls.SECRET, name, b"key")], [])
    cache.acknowledged(cache.revision)
    path = stored(cache, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Cache.load(ME, path)
    assert again.known(type_urls.SECRET, name)
    assert not again.known(type_urls.SECRET, "default"), "its own is not there before the node has it"
    assert again.table(UPSTREAM, type_urls.SECRET)[name].value == b"key"
    assert again.wanted[type_urls.SECRET] == {name}
