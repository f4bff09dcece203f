"""Ports whose protocol nobody declared: what is spoken to them, by sidecars and by gateways."""

from __future__ import annotations

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.destinations import destination
from tulle.core.envoy.speaking import AS_CALLED, HTTP1, OPTIONS
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2

NAME = "outbound|7000||any.default.svc.cluster.local"


def seen(mesh: Mesh, proxy: str) -> cluster_pb2.Cluster:
    """The cluster that a proxy would be sent."""
    tables = [mesh.pipeline.table(layer, type_urls.CLUSTER) for layer in mesh.pipeline.layers(proxy)]
    found = [table[NAME] for table in tables if NAME in table]
    return cluster_pb2.Cluster.FromString(found[-1].value)


def mesh() -> Mesh:
    return Mesh(
        [*bookinfo(), service("any", ports=({"port": 7000},), address="240.240.0.50"), entry("any", "10.0.0.50", {"app": "any"})]
    )


def test_a_sidecar_speaks_as_its_application_does() -> None:
    """Broken: an undeclared gRPC service would be called in HTTP/1, or be no HTTP at all."""
    assert seen(mesh(), "default/curl").typed_extension_protocol_options[OPTIONS] == AS_CALLED


def test_a_gateway_speaks_what_all_speak() -> None:
    """Broken: a browser that speaks HTTP/2 with a gateway would break each undeclared application that does not."""
    assert seen(mesh(), "tulle-system/ingress").typed_extension_protocol_options[OPTIONS] == HTTP1


def test_what_a_rule_says_holds_for_both() -> None:
    """Broken: a gateway would call in HTTP/1 what is said to speak HTTP/2."""
    spec = {"host": "any", "trafficPolicy": {"connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}}}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "any"}, "spec": spec}
    found = mesh()
    found.apply([obj(rule)])
    assert found.problems() == []
    assert seen(found, "default/curl") == seen(found, "tulle-system/ingress")
    row = found.pipeline.flow.get(destination, (("default", "any"), 7000, ""))
    assert row is not None
    assert row.auto
