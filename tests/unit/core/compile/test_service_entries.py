"""Hosts of ServiceEntries as services: their names, addresses, endpoints, and who sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.envoy import validate
from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.destinations import destination
from tulle.core.compile.endpoints import endpoints
from tulle.core.compile.names import name
from tulle.core.compile.outbound import outbound
from tulle.core.compile.service_entries import RANGE
from tulle.core.compile.services import service as registered
from tulle.core.model.destination import Destination, Transport
from tulle.core.model.service import Resolution
from tulle.core.model.service import Service as Registered
from tulle.core.model.workload import OutboundTcp

HTTP = {"number": 80, "name": "http", "protocol": "HTTP"}
TLS = {"number": 443, "name": "tls", "protocol": "TLS"}


def se(
    name: str = "one", namespace: str = "default", created: str = "2026-01-01T00:00:00Z", ports: Any = (HTTP,), **spec: Any
) -> Any:
    """A ServiceEntry of api.example.com, found by DNS, unless `spec` says otherwise."""
    whole = {"hosts": ["api.example.com"], "resolution": "DNS", "ports": list(ports), **spec}
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata, "spec": whole})


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def row(mesh: Mesh, host: str = "api.example.com") -> Registered:
    found = mesh.pipeline.flow.get(registered, ("", host))
    assert found is not None
    return found


def sent(mesh: Mesh, port: int = 80, host: str = "api.example.com") -> Destination:
    found = mesh.pipeline.flow.get(destination, (("", host), port, ""))
    assert found is not None
    return found


def tcp(mesh: Mesh, namespace: str = "default") -> list[OutboundTcp]:
    found = mesh.pipeline.flow.get(outbound, namespace)
    assert found is not None
    return [one for one in found.tcp if "example" in one.destination.hostname]


def test_an_address_is_kept(mesh: Mesh) -> None:
    """Applications that remember an address would reach another host after somebody added a ServiceEntry or a Service."""
    mesh.apply([se()])
    before = row(mesh).address
    assert before in {str(one) for one in RANGE}
    mesh.apply([se(f"n{number}", hosts=[f"n{number}.example.com"], created="2026-02-01T00:00:00Z") for number in range(50)])
    assert row(mesh).address == before
    every = [row(mesh, f"n{number}.example.com").address for number in range(50)]
    assert len({*every, before}) == 51


def test_an_address_is_nobody_elses(mesh: Mesh) -> None:
    """Two services under one virtual IP: TCP would reach the wrong one."""
    mesh.apply([se()])
    first = row(mesh).address
    mesh.apply([service("late", address=first)])
    assert row(mesh).address not in ("", first)


def test_addresses_that_are_given(mesh: Mesh) -> None:
    """Istio's examples name addresses; calls to these would pass the mesh by."""
    mesh.apply([se(ports=[TLS], addresses=["192.0.2.9", "198.51.100.7/24"], resolution="STATIC")])
    assert (row(mesh).address, row(mesh).networks) == ("192.0.2.9", ("198.51.100.0/24",))
    assert [one.address for one in tcp(mesh)] == ["192.0.2.9", "198.51.100.0/24"]
    other = se("two", hosts=["two.example.com"], addresses=["192.0.2.9"], created="2026-02-01T00:00:00Z")
    mesh.apply([other])
    assert row(mesh, "two.example.com").address not in ("", "192.0.2.9")
    assert "belongs to api.example.com" in " ".join(mesh.said())


def test_wildcards_are_told_by_name(mesh: Mesh) -> None:
    """TLS to a wildcard's hosts has no address of the mesh: without the server name it would be unknown traffic."""
    mesh.apply([se(hosts=["*.example.com"], ports=[TLS], resolution="NONE")])
    assert row(mesh, "*.example.com").address == ""
    assert [(one.address, one.names) for one in tcp(mesh)] == [("", ("*.example.com",))]
    assert sent(mesh, 443, "*.example.com").resolution is Resolution.ORIGINAL


def test_only_some_see_it(mesh: Mesh) -> None:
    """exportTo would not hold: a namespace's private host would take over everybody's calls to it."""
    mesh.apply([se(namespace="shop", exportTo=["."], ports=[HTTP, TLS]), entry("curl", "10.0.9.9", {}, "shop")])
    assert tcp(mesh) == []
    assert [one.port for one in tcp(mesh, "shop")] == [443]
    with pytest.raises(AssertionError):
        mesh.host("api.example.com", namespace="", port=80)
    assert mesh.host("api.example.com", "shop", "", 80).domains[0] == "api.example.com"


def test_the_name_of_a_service_is_the_services(mesh: Mesh) -> None:
    """A ServiceEntry would take a Service's callers, or two virtual hosts would have one domain, which Envoy refuses."""
    mesh.apply([se("a", hosts=["reviews", "reviews.default", "reviews.default.svc.cluster.local"])])
    found = mesh.pipeline.flow.get(registered, ("default", "reviews"))
    assert found is not None
    assert not found.entry
    assert mesh.pipeline.flow.get(registered, ("", "reviews.default")) is None


def test_one_host_of_two_entries(mesh: Mesh) -> None:
    """People write one ServiceEntry a port; the second would be lost, or its endpoints answer for the first's port."""
    one = se("a", resolution="STATIC", endpoints=[{"address": "192.0.2.1"}])
    two = se("b", ports=[TLS], resolution="STATIC", endpoints=[{"address": "192.0.2.2"}], created="2026-02-01T00:00:00Z")
    mesh.apply([two, one])
    for port, address in ((80, "192.0.2.1"), (443, "192.0.2.2")):
        found = mesh.pipeline.flow.get(endpoints, (("", "api.example.com"), port, ""))
        assert found is not None
        assert [endpoint.address for endpoint in found.endpoints] == [address]


def test_a_host_that_another_namespace_has(mesh: Mesh) -> None:
    """A younger ServiceEntry without effect would look as if it had one."""
    mesh.apply([se(), se("late", "shop", "2026-02-01T00:00:00Z", resolution="NONE")])
    assert row(mesh).resolution is Resolution.DNS
    assert any("ServiceEntry shop/late" in said and "this one has no effect" in said for said in mesh.said())


def test_dns_finds_the_host_itself_or_its_endpoints(mesh: Mesh) -> None:
    """Without endpoints the host is the endpoint; with them it is not asked for."""
    mesh.apply([se()])
    assert [(one.address, one.port) for one in sent(mesh).endpoints] == [("api.example.com", 80)]
    mesh.apply([se(endpoints=[{"address": "edge.example.net", "ports": {"http": 8080}}])])
    assert [(one.address, one.port) for one in sent(mesh).endpoints] == [("edge.example.net", 8080)]


def test_a_service_inside_the_mesh(mesh: Mesh) -> None:
    """Workloads behind a ServiceEntry would be called in plain text, or would not know the port at which they are called."""
    spec: dict[str, Any] = {"resolution": "STATIC", "workloadSelector": {"labels": {"app": "legacy"}}}
    mesh.apply([se(location="MESH_INTERNAL", **spec), entry("legacy", "10.0.9.1", {"app": "legacy"}, account="old")])
    assert (sent(mesh).transport, sent(mesh).identities) == (Transport.MTLS, ("spiffe://cluster.local/ns/default/sa/old",))
    workload = mesh.pipeline.workload("default/legacy")
    assert workload is not None
    assert [port.port for port in workload.inbound] == [80]
    mesh.apply([se(location="MESH_EXTERNAL", **spec)])
    assert sent(mesh).transport is Transport.PLAINTEXT


def test_rules_name_it_as_a_service(mesh: Mesh) -> None:
    """VirtualServices and DestinationRules for hosts outside would do nothing, also where the name could be a Service's."""
    mesh.apply(
        [
            se(hosts=["httpbin.org"]),
            obj(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": {"name": "httpbin"},
                    "spec": {
                        "hosts": ["httpbin.org"],
                        "http": [{"timeout": "3s", "route": [{"destination": {"host": "httpbin.org"}}]}],
                    },
                }
            ),
            obj(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "DestinationRule",
                    "metadata": {"name": "httpbin"},
                    "spec": {"host": "httpbin.org", "trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "7s"}}}},
                }
            ),
        ]
    )
    (route,) = mesh.routes("httpbin.org", namespace="", port=80)
    assert (route.timeout, route.destinations[0].destination.cluster) == (3.0, "outbound|80||httpbin.org")
    assert sent(mesh, host="httpbin.org").connect_timeout == 7.0
    assert mesh.said() == []


def test_hosts_that_calls_name(mesh: Mesh) -> None:
    """DYNAMIC_DNS: a caller could choose the port by Host; ports that name no host would lead nowhere."""
    ports = (
        {**HTTP, "targetPort": 8080},
        TLS,
        {"number": 9000, "name": "tcp", "protocol": "TCP"},
        {"number": 9001, "name": "any"},
    )
    mesh.apply([se(hosts=["*.example.com"], resolution="DYNAMIC_DNS", addresses=["198.51.100.1"], ports=ports)])
    found = row(mesh, "*.example.com")
    assert (found.resolution, found.address, [port.number for port in found.ports]) == (Resolution.DYNAMIC, "", [80, 443])
    (route,) = mesh.routes("*.example.com", namespace="", port=80)
    assert route.destinations[0].named_at == 8080
    assert [(one.names, one.named_at) for one in tcp(mesh)] == [(("*.example.com",), 443)]
    assert sorted(problem.path for problem in mesh.problems()) == [
        "spec.addresses",
        "spec.ports[2].protocol",
        "spec.ports[3].protocol",
    ]


@pytest.mark.parametrize("resolution", ["NONE", "DYNAMIC_DNS"])
def test_what_a_call_names_has_no_sidecar(mesh: Mesh, resolution: str) -> None:
    """Inside the mesh, too, such a host may be anything: mutual TLS to it would fail where nothing answers it."""
    mesh.apply([se(hosts=["*.example.com"], resolution=resolution, location="MESH_INTERNAL")])
    assert sent(mesh, host="*.example.com").transport is Transport.PLAINTEXT


def test_a_gateway_is_known_by_its_identity(mesh: Mesh) -> None:
    """An egress gateway has no sidecar; with ISTIO_MUTUAL any workload of the mesh could pose as one."""
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "egress"},
        "spec": {"host": "egress", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}},
    }
    gateway = entry("egress-1", "10.0.0.7", {"app": "egress"}, account="egress", node="host", capture="none")
    mesh.apply([service("egress"), gateway, obj(rule)])
    found = mesh.pipeline.flow.get(destination, (("default", "egress"), 9080, ""))
    assert found is not None
    assert (found.transport, found.identities) == (Transport.MTLS, ("spiffe://cluster.local/ns/default/sa/egress",))


def test_udp_is_not_led_astray(mesh: Mesh) -> None:
    """A name with a virtual IP at which no sidecar answers UDP: what worked without the mesh would fail in it."""
    udp = {"port": 53, "name": "dns", "protocol": "UDP"}
    mesh.apply([service("dns", ports=(udp,), address="240.240.4.1"), entry("dns-1", "10.0.0.53", {"app": "dns"})])
    found = mesh.pipeline.flow.get(name, ("default", "dns"))
    assert found is not None
    assert found.addresses == ("10.0.0.53",)
    assert tcp(mesh) == []
    mesh.apply([service("dns", ports=(udp, {"port": 53, "name": "tcp-dns"}), address="240.240.4.1")])
    found = mesh.pipeline.flow.get(name, ("default", "dns"))
    assert found is not None
    assert found.addresses == ("240.240.4.1",)
    assert any("datagrams of workload default/" in said and "nobody answers them at the virtual" in said for said in mesh.said())
    mesh.apply([se("time", hosts=["time.example.com"], ports=[{"number": 123, "name": "ntp", "protocol": "UDP"}])])
    assert mesh.pipeline.flow.get(name, ("", "time.example.com")) is None


def test_a_wildcard_within_a_label(mesh: Mesh, tmp_path: Path) -> None:
    """HTTP is told by such a host; a listener for TLS by it would be refused, and with it all that is called at the port."""
    mesh.apply([se(hosts=["*-eu.example.com"], resolution="NONE", ports=[HTTP, TLS])])
    assert tcp(mesh) == []
    assert mesh.routes("*-eu.example.com", namespace="", port=80)
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [("spec.hosts[0]", "NotYetSupported")]
    sent_ = [encoded for url in type_urls.ORDER for encoded in mesh.pipeline.table("namespace/default", url).values()]
    assert validate([sent_], tmp_path) == ""
