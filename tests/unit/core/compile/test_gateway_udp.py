"""UDPRoutes at gateways: whose a port is, where datagrams go and in which shares, and what stays TCP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.gateway_udp import udp_bound, udp_endpoints
from tulle.core.compile.workloads import inbound

INGRESS = ("tulle-system", "ingress")
DNS = {"port": 53, "name": "dns", "protocol": "UDP"}
NOWHERE = ("127.0.0.1", 0)


@pytest.fixture
def mesh() -> Mesh:
    workloads = [
        entry(f"{name}-{number}", f"10.0.{index}.{number}", {"app": name}) for index, name in enumerate("ab") for number in (1, 2)
    ]
    gateway_ = entry("ingress", "10.0.0.9", {"istio": "ingressgateway"}, "tulle-system", "ingress", capture="none")
    return Mesh([*workloads, gateway_, *(service(name, ports=(DNS, {"port": 80, "name": "http"})) for name in "ab")])


def gateway(name: str = "gw", created: str = "2024-01-01T00:00:00Z", **more: Any) -> Object:
    listeners = [{"name": "udp", "port": 53, "protocol": "UDP", **more}]
    metadata = {"name": name, "creationTimestamp": created}
    spec = {"gatewayClassName": "tulle", "listeners": listeners}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec})


def route(*backends: dict[str, Any], name: str = "r", created: str = "2024-01-01T00:00:00Z", parent: str = "gw") -> Object:
    spec = {"parentRefs": [{"name": parent}], "rules": [{"backendRefs": [{"port": 53, **one} for one in backends]}]}
    metadata = {"name": name, "creationTimestamp": created}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "UDPRoute", "metadata": metadata, "spec": spec})


def shares(mesh: Mesh, port: int = 53) -> dict[tuple[str, int], float]:
    row = mesh.pipeline.flow.get(udp_endpoints, (INGRESS, port))
    assert row is not None
    total = sum(one.weight for one in row.endpoints)
    return {(one.address, one.port): round(one.weight / total, 3) for one in row.endpoints}


def problems(mesh: Mesh) -> set[tuple[str, str]]:
    return {(one.reason, one.path) for one in mesh.problems()}


def listeners(mesh: Mesh) -> list[str]:
    return sorted(mesh.pipeline.table("workload/tulle-system/ingress", type_urls.LISTENER))


def test_shares(mesh: Mesh) -> None:
    """A backend would get more or less than its weight, or one with weight 0 anything."""
    mesh.apply([gateway(), route({"name": "a", "weight": 3}, {"name": "b", "weight": 1}, {"name": "c", "weight": 0})])
    assert listeners(mesh) == ["udp_0.0.0.0_53"]
    assert shares(mesh) == {("10.0.0.1", 53): 0.375, ("10.0.0.2", 53): 0.375, ("10.0.1.1", 53): 0.125, ("10.0.1.2", 53): 0.125}
    assert problems(mesh) == {("BackendNotFound", "spec.rules[0].backendRefs[2].name")}


def test_an_instance_behind_two_backends_has_both_shares(mesh: Mesh) -> None:
    """Envoy knows an address once: the second backend's share would be lost."""
    mesh.apply([service("same", ports=(DNS,), selector={"app": "a"}), gateway(), route({"name": "a"}, {"name": "same"})])
    assert shares(mesh) == {("10.0.0.1", 53): 0.5, ("10.0.0.2", 53): 0.5}


def test_the_share_of_what_is_not_there_goes_nowhere(mesh: Mesh) -> None:
    """Backends that are there would be flooded with what was not meant for them."""
    empty, elsewhere = service("empty", ports=(DNS,)), service("secret", "other", ports=(DNS,))
    foreign = {"name": "secret", "namespace": "other"}
    mesh.apply([gateway(), empty, elsewhere, route({"name": "a"}, {"name": "empty"}, {"name": "nobody"}, foreign)])
    assert shares(mesh) == {("10.0.0.1", 53): 0.125, ("10.0.0.2", 53): 0.125, NOWHERE: 0.75}
    assert problems(mesh) == {
        ("BackendNotFound", "spec.rules[0].backendRefs[2].name"),
        ("RefNotPermitted", "spec.rules[0].backendRefs[3].namespace"),
    }


def test_the_oldest_route_of_the_oldest_gateway_has_the_port(mesh: Mesh) -> None:
    """The port would change hands when somebody else names it."""
    later = "2024-02-01T00:00:00Z"
    mesh.apply([gateway(), route({"name": "b"}, name="late", created=later), route({"name": "a"})])
    assert [one.route[1] for one in mesh.pipeline.flow.get(udp_bound, INGRESS) or ()] == ["r"]
    mesh.apply([gateway("younger", later), route({"name": "b"}, name="other", created="2023-01-01T00:00:00Z", parent="younger")])
    assert [one.route[1] for one in mesh.pipeline.flow.get(udp_bound, INGRESS) or ()] == ["r"]
    mesh.delete([route({"name": "a"}), route({"name": "b"}, name="late")])
    assert [one.route[1] for one in mesh.pipeline.flow.get(udp_bound, INGRESS) or ()] == ["other"], "the older has none any more"
    mesh.delete([route({"name": "b"}, name="other")])
    assert listeners(mesh) == []


def test_udp_ports_are_no_ports_of_tcp(mesh: Mesh) -> None:
    """A sidecar would take a UDP port for one of TCP, or a gateway bind TCP where it should bind UDP."""
    mesh.apply([gateway(), route({"name": "a"})])
    assert [one.port for one in mesh.pipeline.flow.get(inbound, ("default", "a-1")) or ()] == [80]
    names = mesh.pipeline.table("mesh", type_urls.CLUSTER)
    assert sorted(name for name in names if "|" in name) == [f"outbound|80||{name}.default.svc.cluster.local" for name in "ab"]
    http = {"name": "a", "port": 80}
    mesh.apply([route(http)])
    assert problems(mesh) == {("PortNotFound", "spec.rules[0].backendRefs[0].port")}


def test_the_port_that_the_service_in_front_says(mesh: Mesh) -> None:
    """Datagrams would be sent where nobody listens."""
    ports = ({"port": 53, "name": "tcp", "targetPort": 1}, {"port": 53, "name": "udp", "protocol": "UDP", "targetPort": 10053})
    front = service("ingressgateway", "tulle-system", ports, {"istio": "ingressgateway"})
    mesh.apply([front, gateway(), route({"name": "a"})])
    assert listeners(mesh) == ["udp_0.0.0.0_10053"]
    assert mesh.problems() == []


def test_a_second_rule_is_never_reached(mesh: Mesh) -> None:
    """Broken: somebody would believe that the other rule takes a part; or not hear that it takes nothing."""
    spec = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": name, "port": 53}]} for name in "ab"]}
    raw = {"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "UDPRoute", "metadata": {"name": "r"}, "spec": spec}
    mesh.apply([gateway(), obj(raw)])
    assert shares(mesh) == {("10.0.0.1", 53): 0.5, ("10.0.0.2", 53): 0.5}
    assert ("UnreachableRule", "spec.rules[1]") in problems(mesh)
    status = written(mesh.pipeline, ("udproutes.gateway.networking.k8s.io", ("default", "r")))
    accepted = condition(status["parents"][0]["conditions"], "Accepted")
    assert (accepted["status"], "the others have no effect" in accepted["message"]) == ("True", True)
