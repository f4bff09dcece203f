"""UDPRoutes in the mesh: at which addresses whose sidecars listen, where datagrams go, and what says that they do not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.analyze.codes import code_of
from tulle.core.compile.mesh_udp import mesh_udp_endpoints
from tulle.core.compile.names import name
from tulle.kit.problem import Ref
from tulle.pb.envoy.config.listener.v3 import listener_pb2

UDP = {"port": 53, "name": "dns", "protocol": "UDP"}
CURL = "default/curl"


@pytest.fixture
def mesh() -> Mesh:
    workloads = [entry(f"{name}-1", f"10.0.0.{at}", {"app": name}, datagrams="true") for at, name in enumerate("ab", 1)]
    services = [service(name, ports=(UDP,), address=f"240.240.0.{at}") for at, name in enumerate("ab", 1)]
    return Mesh([*workloads, *services, entry("curl", "10.0.0.9", {"app": "curl"}, datagrams="true", ipv6="true")])


def route(*backends: dict[str, Any], name: str = "r", namespace: str = "default", parent: str = "a", **more: Any) -> Object:
    at = {"group": "", "kind": "Service", "name": parent, "namespace": "default", **more}
    spec = {"parentRefs": [at], "rules": [{"backendRefs": [{"port": 53, **one} for one in backends]}]}
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": f"2024-01-0{len(name)}T00:00:00Z"}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "UDPRoute", "metadata": metadata, "spec": spec})


def listeners(mesh: Mesh, proxy: str = CURL) -> dict[str, listener_pb2.Listener]:
    tables = (mesh.pipeline.table(layer, type_urls.LISTENER) for layer in mesh.pipeline.layers(proxy))
    found = {name: one.value for table in tables for name, one in table.items() if name.startswith("udp_")}
    return {name: listener_pb2.Listener.FromString(value) for name, value in found.items()}


def shares(mesh: Mesh, called: str = "a", viewer: str = "") -> dict[str, float]:
    row = mesh.pipeline.flow.get(mesh_udp_endpoints, (("default", called), 53, viewer))
    assert row is not None
    total = sum(one.weight for one in row.endpoints)
    return {one.address: round(one.weight / total, 3) for one in row.endpoints}


def said(mesh: Mesh) -> list[tuple[str, str]]:
    return [(one.reason, one.path) for one in mesh.problems()]


def test_without_a_route_it_reaches_its_own(mesh: Mesh) -> None:
    """Broken: a Service with a UDP port would be silent at its virtual IP until somebody writes a route."""
    found = listeners(mesh)
    assert sorted(found) == ["udp_240.240.0.1_53", "udp_240.240.0.2_53"]
    assert found["udp_240.240.0.1_53"].transparent.value
    assert found["udp_240.240.0.1_53"].address.socket_address.port_value == 53 + 0xF000, "the application may bind 53 itself"
    assert shares(mesh) == {"10.0.0.1": 1.0}
    assert said(mesh) == []


def test_a_route_shares_it_out_and_changes_endpoints_alone(mesh: Mesh) -> None:
    """Broken: weights would not hold, or a change of them open the sockets anew and end what clients have begun."""
    changed = mesh.apply([route({"name": "a", "weight": 3}, {"name": "b", "weight": 1})])
    assert {layer: list(types) for layer, types in changed.items()} == {"udp/default": [type_urls.ENDPOINT]}
    assert shares(mesh) == {"10.0.0.1": 0.75, "10.0.0.2": 0.25}
    mesh.apply([route({"name": "b"})])
    assert shares(mesh) == {"10.0.0.2": 1.0}
    assert shares(mesh, "b") == {"10.0.0.2": 1.0}
    mesh.apply([route({"name": "b", "weight": 0})])
    assert shares(mesh) == {}, "what a route takes nowhere does not fall back to the Service"
    mesh.delete([route({"name": "b"})])
    assert shares(mesh) == {"10.0.0.1": 1.0}


def test_an_instance_that_is_not_ready_has_no_share(mesh: Mesh) -> None:
    """Broken: datagrams would be sent to one that has died, and nobody notices with UDP."""
    mesh.apply([entry("a-2", "10.0.0.3", {"app": "a"}, datagrams="true"), entry("a-1", "10.0.0.1", {"app": "a"}, ready="false")])
    assert shares(mesh) == {"10.0.0.3": 1.0}


def test_the_callers_own_route(mesh: Mesh) -> None:
    """Broken: one namespace's route would move another's callers."""
    mesh.apply([entry("curl", "10.1.0.9", {"app": "curl"}, "other", datagrams="true"), service("c", "other", ports=(UDP,))])
    mesh.apply([entry("c-1", "10.1.0.1", {"app": "c"}, "other"), route({"name": "c"}, namespace="other")])
    assert shares(mesh, viewer="other") == {"10.1.0.1": 1.0}
    assert shares(mesh, viewer="default") == {"10.0.0.1": 1.0}
    assert "udp/other" in mesh.pipeline.layers("other/curl")


def test_backends_of_other_namespaces_need_a_grant(mesh: Mesh) -> None:
    """Broken: datagrams would reach what their owner did not open; or their share fall to others instead of nowhere."""
    mesh.apply([service("c", "other", ports=(UDP,)), entry("c-1", "10.1.0.1", {"app": "c"}, "other", datagrams="true")])
    mesh.apply([route({"name": "a"}, {"name": "c", "namespace": "other"})])
    assert shares(mesh) == {"10.0.0.1": 0.5, "127.0.0.1": 0.5}
    status = written(mesh.pipeline, ("udproutes.gateway.networking.k8s.io", ("default", "r")))
    resolved = condition(status["parents"][0]["conditions"], "ResolvedRefs")
    assert (resolved["status"], resolved["reason"]) == ("False", "RefNotPermitted")
    accepted = condition(status["parents"][0]["conditions"], "Accepted")
    assert accepted["status"] == "True"
    assert "neither encrypts nor authorizes" in accepted["message"]


def test_the_older_route_has_the_port(mesh: Mesh) -> None:
    """Broken: a port would change hands when somebody else names it, and nobody would be told."""
    mesh.apply([route({"name": "b"}), route({"name": "a"}, name="rr")])
    assert shares(mesh) == {"10.0.0.2": 1.0}
    assert said(mesh) == [("Conflict", "spec.parentRefs[0]")]


def test_by_ipv6_where_there_is_some(mesh: Mesh) -> None:
    """Broken: an Envoy would be given an address at which it cannot listen, and refuse it; or nobody answer by IPv6."""
    two = service("a", ports=(UDP,), address="240.240.0.1")
    spec = two.spec.model_copy(update={"cluster_ips": ("240.240.0.1", "fd74:756c:f0f0::1")})  # type: ignore[attr-defined]
    mesh.apply([two.model_copy(update={"spec": spec})])
    assert "udp_fd74:756c:f0f0::1_53" in listeners(mesh)
    assert "udp_fd74:756c:f0f0::1_53" not in listeners(mesh, "default/a-1")


def test_where_datagrams_are_not_captured(mesh: Mesh) -> None:
    """Broken: a proxy in the host's network would take addresses there, a name lead to nobody, or nothing say so."""
    mesh.apply([entry("old", "10.0.0.8", {"app": "old"}, capture="cgroup"), route({"name": "b"})])
    assert listeners(mesh, "default/old") == {}
    found = mesh.pipeline.flow.get(name, ("default", "a"))
    assert found is not None
    assert (found.addresses, found.datagrams) == (("10.0.0.1",), ("240.240.0.1",))
    (problem,) = mesh.problems()
    assert (code_of(problem).code, "workload default/old" in problem.message) == ("TUL0501", True)
    mesh.apply([service("a", ports=(UDP, {"port": 80, "name": "http"}), address="240.240.0.1")])
    assert ("NotYetSupported", "spec.ports[0].protocol") in said(mesh), "at the virtual IP nobody answers that workload"


def test_parents_without_such_a_port(mesh: Mesh) -> None:
    """Broken: a route without effect would look as if it had one."""
    mesh.apply([service("web"), route({"name": "a"}, parent="web")])
    assert [code_of(one).code for one in mesh.problems()] == ["TUL0220"]
    mesh.apply([route({"name": "a"}, port=54)])
    assert [code_of(one).code for one in mesh.problems()] == ["TUL0104"]
    mesh.apply([service("a", ports=(UDP,), address="10.96.0.1"), route({"name": "a"})])
    assert said(mesh) == [("NotYetSupported", "spec.parentRefs[0]")], "nobody captures that address"


def test_ports_that_are_the_same_to_a_sidecar(mesh: Mesh) -> None:
    """Broken: an Envoy would be given two listeners at one place, and refuse one of them."""
    ports = (UDP, {**UDP, "name": "other", "port": 53 + 4096})
    mesh.apply([service("a", ports=ports, address="240.240.0.1")])
    assert "udp_240.240.0.1_4149" not in listeners(mesh)
    assert said(mesh) == [("NotYetSupported", "spec.ports[1].port")]


def test_who_is_to_blame(mesh: Mesh) -> None:
    """Broken: a listener that Envoy refuses would be reported on nobody's object."""
    mesh.apply([route({"name": "b"})])
    found = mesh.pipeline.made_by(CURL, type_urls.LISTENER, "udp_240.240.0.1_53")
    group = "gateway.networking.k8s.io"
    assert {Ref("Service", "default", "a"), Ref("UDPRoute", "default", "r", group)} <= found
    assert Ref("Service", "default", "b") not in found


def test_a_sidecar_leaves_it_out(mesh: Mesh) -> None:
    """Broken: those who follow a Sidecar would listen for the whole mesh's datagrams all the same."""
    spec = {"egress": [{"hosts": ["./b.default.svc.cluster.local"]}]}
    raw = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "s"}, "spec": spec}
    mesh.apply([obj(raw)])
    assert list(listeners(mesh)) == ["udp_240.240.0.2_53"]
