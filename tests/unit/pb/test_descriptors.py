"""Envoy's protobuf types out of its own binary."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tulle.kit.errors import Unavailable
from tulle.pb import descriptors, message_class, pack
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.google.protobuf import duration_pb2


def test_messages_are_typed_modules() -> None:
    """Nothing of `core/envoy` could be built: import hook, enums, nested and well-known types."""
    cluster = cluster_pb2.Cluster(name="a", connect_timeout=duration_pb2.Duration(seconds=3), type=cluster_pb2.Cluster.EDS)
    again = cluster_pb2.Cluster.FromString(cluster.SerializeToString())
    assert again.connect_timeout.seconds == 3
    assert again.type == cluster_pb2.Cluster.DiscoveryType.Value("EDS")
    packed = pack(cluster)
    assert packed.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert message_class("envoy.config.cluster.v3.Cluster").FromString(packed.value) == cluster


def test_every_extension_that_we_configure_is_there() -> None:
    """A newer Envoy that dropped one would be noticed only in production."""
    for name in (
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        "envoy.extensions.filters.http.on_demand.v3.OnDemand",
        "envoy.extensions.access_loggers.stats.v3.Config",
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    ):
        assert message_class(name)


def test_a_proto_that_envoy_lacks_is_an_import_error() -> None:
    """A misspelt import would give an empty module and fail far away."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tulle.pb.envoy.config.cluster.v9.cluster_pb2")


def test_files_come_after_what_they_import() -> None:
    """The pool refuses a file whose imports it has not seen."""
    seen: set[str] = set()
    for data in descriptors.load():
        file = FileDescriptorProto.FromString(data)
        assert set(file.dependency) <= seen
        seen.add(file.name)
    assert len(seen) > 500


def test_a_binary_without_descriptors_is_refused_in_words() -> None:
    """Another build of Envoy would crash tulle instead of being named."""
    with pytest.raises(Unavailable, match="no descriptors"):
        descriptors.extract(b"\x7fELF" + b"\x0a\x0bnot.proto\x00" * 10)


def test_a_torn_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while the cache was written would stop tulle for good."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = descriptors.load()
    (cache,) = (tmp_path / "tulle").iterdir()
    cache.write_bytes(cache.read_bytes()[:100])
    assert descriptors.load() == first
    cache.write_bytes(b"")
    assert descriptors.load() == first
