"""Statuses of the kinds that no conformance manifest shows, and that only what changed is computed again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tests.unit.core.compile.test_http_routes import gateway, route, rule
from tulle.api.object import Object
from tulle.api.registry import KINDS
from tulle.core import type_urls
from tulle.core.status.features import FEATURES, SUPPORTED
from tulle.core.status.objects import BY_RESOURCE

GATEWAY = "gateways.gateway.networking.k8s.io"
ROUTE = "httproutes.gateway.networking.k8s.io"
AT_GATEWAY = [{"name": "gw"}]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def status(mesh: Mesh, resource: str, name: str, namespace: str = "default") -> dict[str, Any]:
    return written(mesh.pipeline, (resource, (namespace, name)))


def said(conditions: list[dict[str, Any]], kind: str) -> str:
    one = condition(conditions, kind)
    return f"{one['status']} {one['reason']}"


def taken(mesh: Mesh, most: int = 1000) -> list[tuple[str, tuple[str, str]]]:
    """Everything that became another since this was last asked."""
    found: list[tuple[str, tuple[str, str]]] = []
    while mesh.pipeline.statuses.waiting:
        found += mesh.pipeline.statuses.take(most)
    return found


def listeners(mesh: Mesh, name: str = "gw") -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in status(mesh, GATEWAY, name)["listeners"]}


def parents(mesh: Mesh, name: str = "r", namespace: str = "default") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = status(mesh, ROUTE, name, namespace).get("parents", [])
    return found


def policy(name: str, created: str, section: str = "") -> Object:
    target = {"group": "", "kind": "Service", "name": "reviews", **({"sectionName": section} if section else {})}
    spec = {"targetRefs": [target], "validation": {"hostname": "reviews.example.com", "wellKnownCACertificates": "System"}}
    metadata = {"name": name, "creationTimestamp": created}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec})


def listener(name: str, port: int, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **more}


def test_listeners_in_conflict_are_neither_accepted_nor_served(mesh: Mesh) -> None:
    """One of two listeners that exclude each other would be served, and which one nobody could tell."""
    tls = {"mode": "Terminate", "options": {"a": "b"}}
    mesh.apply([gateway("gw", "default", listener("web", 80), listener("tls", 80, "HTTPS", tls=tls), listener("own", 8080))])
    found = listeners(mesh)
    for name in ("web", "tls"):
        assert said(found[name]["conditions"], "Conflicted") == "True ProtocolConflict"
        assert said(found[name]["conditions"], "Accepted") == "False ProtocolConflict"
        assert said(found[name]["conditions"], "Programmed") == "False Invalid"
    assert said(found["own"]["conditions"], "Conflicted") == "False NoConflicts"
    assert said(status(mesh, GATEWAY, "gw")["conditions"], "Accepted") == "True ListenersNotValid"
    workload = mesh.pipeline.workload("tulle-system/ingress")
    assert workload
    assert [one.port for one in workload.listeners] == [18080], "port 8080 alone, by way of the Service"
    mesh.apply([route(parentRefs=[{"name": "gw", "sectionName": "web"}], rules=[rule("r")])])
    assert said(parents(mesh)[0]["conditions"], "Accepted") == "False NotAllowedByListeners"
    assert mesh.ingress().routes == ()
    mesh.apply([gateway("gw", "default", listener("web", 80))])
    assert said(parents(mesh)[0]["conditions"], "Accepted") == "True Accepted"
    assert listeners(mesh)["web"]["attachedRoutes"] == 1
    assert [one.name for one in mesh.ingress().routes] == ["r"]


def test_udp_does_not_conflict_with_tcp(mesh: Mesh) -> None:
    """DNS over both would be refused as a conflict."""
    mesh.apply([gateway("gw", "default", listener("web", 53), listener("udp", 53, "UDP"))])
    found = listeners(mesh)
    assert said(found["web"]["conditions"], "Accepted") == "True Accepted"
    assert said(found["udp"]["conditions"], "Accepted") == "True Accepted"


def test_a_port_that_the_proxy_has_for_itself(mesh: Mesh) -> None:
    """Envoy would refuse the listener, and with it perhaps the others."""
    mesh.apply([gateway("gw", "default", listener("health", 15021), listener("web", 80))])
    found = listeners(mesh)
    assert said(found["health"]["conditions"], "Accepted") == "False PortUnavailable"
    assert said(found["web"]["conditions"], "Accepted") == "True Accepted"
    workload = mesh.pipeline.workload("tulle-system/ingress")
    assert workload
    assert [one.port for one in workload.listeners] == [18080]
    assert [problem.reason for problem in mesh.problems()] == ["PortUnavailable"]


def test_a_gateway_without_a_workload_is_not_programmed(mesh: Mesh) -> None:
    """A Gateway that nobody serves would say that it is there."""
    mesh.apply([gateway()])
    assert said(status(mesh, GATEWAY, "gw")["conditions"], "Programmed") == "True Programmed"
    assert status(mesh, GATEWAY, "gw")["addresses"] == [{"type": "IPAddress", "value": "10.0.0.2"}]
    mesh.delete([entry("ingress", "10.0.0.2", {}, "tulle-system", capture="none")])
    found = status(mesh, GATEWAY, "gw")
    assert said(found["conditions"], "Programmed") == "False NoResources"
    assert "addresses" not in found
    assert said(found["conditions"], "Accepted") == "True Accepted"


def test_a_class_is_ours_by_its_gateway_class(mesh: Mesh) -> None:
    """Another controller's Gateways would be served and their status fought over; one's own under another name would not be."""

    def gateway_class(name: str, controller: str, **more: Any) -> Object:
        spec = {"controllerName": controller, **more}
        return obj(
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name}, "spec": spec}
        )

    mesh.apply([gateway(gateway_class="edge"), route(parentRefs=AT_GATEWAY, rules=[rule("r")])])
    assert (status(mesh, GATEWAY, "gw"), parents(mesh), mesh.problems()) == ({}, [], [])
    mesh.apply([gateway_class("edge", "tulle.dev/gateway-controller")])
    assert said(parents(mesh)[0]["conditions"], "Accepted") == "True Accepted"
    assert [one.name for one in mesh.ingress().routes] == ["r"]
    found = status(mesh, "gatewayclasses.gateway.networking.k8s.io", "edge", "")
    assert said(found["conditions"], "Accepted") == "True Accepted"
    assert [one["name"] for one in found["supportedFeatures"]] == list(SUPPORTED)
    parameters = {"group": "example.com", "kind": "Settings", "name": "x"}
    mesh.apply([gateway_class("edge", "tulle.dev/gateway-controller", parametersRef=parameters)])
    found = status(mesh, "gatewayclasses.gateway.networking.k8s.io", "edge", "")
    assert said(found["conditions"], "Accepted") == "False InvalidParameters"
    mesh.apply([gateway_class("edge", "example.com/controller"), gateway_class("tulle", "example.com/controller")])
    assert status(mesh, "gatewayclasses.gateway.networking.k8s.io", "edge", "") == {}
    mesh.apply([gateway()])
    assert status(mesh, GATEWAY, "gw") == {}, "its class is another's now"


def test_supported_features_are_sorted_and_known() -> None:
    """Tools would refuse the list, or take a promise for true that is not kept."""
    assert list(SUPPORTED) == sorted(SUPPORTED)
    assert len(SUPPORTED) <= 64
    assert list(FEATURES) == sorted(FEATURES)


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ({"group": "", "kind": "Service", "name": "reviews", "port": 9080}, "True Accepted"),
        ({"group": "", "kind": "Service", "name": "reviews"}, "True Accepted"),
        ({"group": "", "kind": "Service", "name": "reviews", "port": 1}, "False NoMatchingParent"),
        ({"group": "", "kind": "Service", "name": "gone"}, "False NoMatchingParent"),
        ({"name": "gone"}, "False NoMatchingParent"),
        ({"kind": "ListenerSet", "name": "set"}, "False NoMatchingParent"),
    ],
)
def test_parents(mesh: Mesh, parent: dict[str, Any], expected: str) -> None:
    """A route that is attached to nothing would look as if it were."""
    mesh.apply([route(parentRefs=[parent], rules=[rule("r")])])
    (one,) = parents(mesh)
    assert said(one["conditions"], "Accepted") == expected
    assert one["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", **parent}


def test_parents_that_are_nobodys_of_ours_have_no_entry(mesh: Mesh) -> None:
    """We would speak for another controller."""
    mesh.apply([gateway(gateway_class="other")])
    mesh.apply([route(parentRefs=[{"name": "gw"}, {"group": "example.com", "kind": "Edge", "name": "x"}], rules=[rule("r")])])
    assert parents(mesh) == []


def test_a_consumer_route_is_accepted(mesh: Mesh) -> None:
    """A namespace's own routes to a Service of another would be called wrong."""
    parent = {"group": "", "kind": "Service", "name": "reviews", "namespace": "default"}
    backend = {"name": "curl", "port": 9080}
    mesh.apply([service("curl", "shop"), route("r", "shop", parentRefs=[parent], rules=[rule("r", backendRefs=[backend])])])
    (one,) = parents(mesh, "r", "shop")
    assert (said(one["conditions"], "Accepted"), said(one["conditions"], "ResolvedRefs")) == (
        "True Accepted",
        "True ResolvedRefs",
    )


def test_filters_that_are_not_supported_yet(mesh: Mesh) -> None:
    """A route whose requests are all answered 500 would be called accepted, or one bad rule would condemn the others."""
    unknown = [{"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "C", "name": "d"}}]
    bad = rule("bad", {"path": {"type": "Exact", "value": "/x"}}, filters=unknown, backendRefs=[])
    mesh.apply([gateway(), route(parentRefs=AT_GATEWAY, rules=[bad])])
    (one,) = parents(mesh)
    assert said(one["conditions"], "Accepted") == "False UnsupportedValue"
    assert [kind["type"] for kind in one["conditions"]] == ["Accepted", "ResolvedRefs"]
    assert listeners(mesh)["http"]["attachedRoutes"] == 0
    mesh.apply([route(parentRefs=AT_GATEWAY, rules=[bad, rule("good")])])
    (one,) = parents(mesh)
    assert said(one["conditions"], "Accepted") == "True Accepted"
    assert said(one["conditions"], "PartiallyInvalid") == "True UnsupportedValue"
    assert "spec.rules[0].filters[0]" in condition(one["conditions"], "PartiallyInvalid")["message"]
    assert listeners(mesh)["http"]["attachedRoutes"] == 1


def test_fields_without_effect_are_said(mesh: Mesh) -> None:
    """A person would trust a field that does nothing."""
    sessions = {"cookie": {"lifetimeType": "Session"}, "absoluteTimeout": "1h"}
    mesh.apply([gateway(), route(parentRefs=AT_GATEWAY, rules=[rule("r", sessionPersistence=sessions)])])
    (one,) = parents(mesh)
    assert said(one["conditions"], "Accepted") == "True Accepted"
    assert "spec.rules[0].sessionPersistence.absoluteTimeout" in condition(one["conditions"], "Accepted")["message"]


def test_a_backend_that_speaks_tls(mesh: Mesh) -> None:
    """Plain requests would be sent to a port of TLS, and fail with a riddle."""
    mesh.apply([service("secure", ports=({"port": 443, "name": "web", "appProtocol": "https"},))])
    mesh.apply([route(rules=[rule("r", backendRefs=[{"name": "secure", "port": 443}])])])
    (one,) = parents(mesh)
    assert said(one["conditions"], "ResolvedRefs") == "False UnsupportedProtocol"
    assert [one.status for one in mesh.routes("reviews")] == [500]


def test_policies_of_one_service_the_oldest_wins(mesh: Mesh) -> None:
    """Which of two policies counts would depend on who reads first."""
    mesh.apply([gateway(), route(parentRefs=AT_GATEWAY, rules=[rule("r", backendRefs=[{"name": "reviews", "port": 9080}])])])
    mesh.apply([policy("old", "2024-01-01T00:00:00Z"), policy("young", "2024-02-01T00:00:00Z")])
    resource = "backendtlspolicies.gateway.networking.k8s.io"

    def accepted(name: str) -> tuple[str, str]:
        (ancestor,) = status(mesh, resource, name)["ancestors"]
        return ancestor["ancestorRef"]["kind"], said(ancestor["conditions"], "Accepted")

    assert accepted("old") == ("Gateway", "True Accepted")
    assert accepted("young") == ("Gateway", "False Conflicted")
    mesh.delete([route(parentRefs=AT_GATEWAY, rules=[rule("r")])])
    assert accepted("old") == ("Service", "True Accepted")
    mesh.apply([policy("young", "2024-02-01T00:00:00Z", "gone")])
    assert accepted("young") == ("Service", "False TargetNotFound")


def virtual_service(host: str) -> Object:
    spec = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": host}}]}]}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "vs"}, "spec": spec})


def test_istio_objects_say_what_analysis_found(mesh: Mesh) -> None:
    """A mistake in an object would be seen only by who asks for problems."""
    mesh.apply([virtual_service("reviewz")])
    found = status(mesh, "virtualservices.networking.istio.io", "vs")
    assert said(found["conditions"], "Reconciled") == "True Reconciled"
    assert said(found["conditions"], "PassedAnalysis") == "False ErrorsFound"
    (message,) = found["validationMessages"]
    assert message == {"type": {"name": "HostNotFound", "code": "TUL0101"}, "level": "ERROR"}
    assert condition(found["conditions"], "PassedAnalysis")["message"].startswith("spec.http[0].route[0].destination.host: ")
    assert found["observedGeneration"] == 1
    mesh.apply([virtual_service("ratings")])
    found = status(mesh, "virtualservices.networking.istio.io", "vs")
    assert said(found["conditions"], "PassedAnalysis") == "True NoProblems"
    assert "validationMessages" not in found


def test_a_kind_that_is_not_acted_on_is_not_reconciled(mesh: Mesh) -> None:
    """Somebody's policy would be called enforced while nothing enforces it."""
    raw = {"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": {"name": "s"}, "spec": {}}
    kind = next(kind for kind in KINDS if not kind.acted_on and kind.kind == "ProxyConfig")
    assert obj(raw)
    mesh.pipeline.commit({(kind.resource, "default", "s"): obj(raw)})
    found = status(mesh, kind.resource, "s")
    assert said(found["conditions"], "Reconciled") == "False NotYetSupported"


def test_only_what_changed_is_computed_again(mesh: Mesh) -> None:
    """A change of one route would compute the status of every object."""
    objects: list[Object] = [gateway(), gateway("other")]
    objects += [route(f"r{index}", parentRefs=AT_GATEWAY, rules=[rule("r")]) for index in range(20)]
    mesh.apply(objects)
    assert taken(mesh, 7)
    computed = mesh.pipeline.flow.computed
    computed.clear()
    mesh.apply([route("r3", parentRefs=AT_GATEWAY, rules=[rule("r", backendRefs=[{"name": "gone", "port": 1}])])])
    assert taken(mesh) == [(ROUTE, ("default", "r3"))]
    assert computed["route_status"] == 1
    assert computed["gateway_status"] == 0, "as many routes are attached as before"
    mesh.delete([route("r3", parentRefs=AT_GATEWAY, rules=[rule("r")])])
    assert taken(mesh) == [(GATEWAY, ("default", "gw"))]
    assert listeners(mesh)["http"]["attachedRoutes"] == 19


def test_a_written_status_and_a_new_label_are_no_news(mesh: Mesh) -> None:
    """A status write would lead to the next, and every one of them to a compile."""
    mesh.apply([gateway()])
    taken(mesh)
    raw = gateway().model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    since = {"reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-31T23:59:59Z"}
    raw["status"] = {"conditions": [{"type": "Accepted", "status": "True", **since}]}
    raw["metadata"] |= {"resourceVersion": "77", "managedFields": []}
    raw.setdefault("kind", "Gateway")
    raw.setdefault("apiVersion", "gateway.networking.k8s.io/v1")
    mesh.pipeline.flow.computed.clear()
    mesh.apply([obj(raw)])
    assert taken(mesh) == []
    assert not mesh.pipeline.flow.computed


def test_a_new_generation_is_news_even_where_the_status_stays(mesh: Mesh) -> None:
    """observedGeneration would stay behind, and `kubectl wait` would wait for ever."""
    statuses = mesh.pipeline.statuses

    def generation(number: int) -> Object:
        one = gateway()
        return one.model_copy(update={"metadata": one.metadata.model_copy(update={"generation": number})})

    mesh.apply([generation(1)])
    taken(mesh)
    mesh.apply([generation(2)])
    assert taken(mesh) == [(GATEWAY, ("default", "gw"))]
    seen = statuses.seen((GATEWAY, ("default", "gw")))
    assert seen
    assert (seen.generation, seen.revision) == (2, mesh.pipeline.revision)


def test_who_is_to_blame_for_a_resource(mesh: Mesh) -> None:
    """A refusal of one Gateway's listener would be written on every object."""
    mesh.apply([gateway(), gateway("far", "default", listener("far", 9999)), virtual_service("ratings")])
    mesh.apply([route(parentRefs=AT_GATEWAY, rules=[rule("r")])])

    def made_by(proxy: str, url: str, name: str) -> list[str]:
        return sorted(str(ref) for ref in mesh.pipeline.made_by(proxy, url, name))

    ingress = "tulle-system/ingress"
    assert made_by(ingress, type_urls.LISTENER, "0.0.0.0_18080") == ["Gateway default/gw"]
    assert made_by(ingress, type_urls.LISTENER, "0.0.0.0_9999") == ["Gateway default/far"]
    table = "http.18080.tulle-system.ingress"
    assert made_by(ingress, type_urls.VIRTUAL_HOST, f"{table}/*:18080") == ["Gateway default/gw", "HTTPRoute default/r"]
    host = "9080.default/reviews.default.svc.cluster.local:9080"
    assert made_by("default/curl", type_urls.VIRTUAL_HOST, host) == ["VirtualService default/vs"]
    assert made_by("default/curl", type_urls.CLUSTER, "no such thing") == []
    external = {"hosts": ["db.example"], "ports": [{"number": 5432, "name": "pg", "protocol": "TCP"}], "resolution": "DNS"}
    rule_ = {"host": "db.example", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}
    tcp = {"hosts": ["db.example"], "tcp": [{"route": [{"destination": {"host": "db.example"}}]}]}
    parts = (("ServiceEntry", "db", external), ("DestinationRule", "db", rule_), ("VirtualService", "tcp", tcp))
    istio = "networking.istio.io/v1"
    mesh.apply([obj({"apiVersion": istio, "kind": kind, "metadata": {"name": name}, "spec": spec}) for kind, name, spec in parts])
    cluster = "outbound|5432||db.example"
    assert made_by("default/curl", type_urls.CLUSTER, cluster) == ["DestinationRule default/db", "ServiceEntry default/db"]
    (listener_,) = (name for name in mesh.pipeline.table("namespace/default", type_urls.LISTENER) if name.endswith("_5432"))
    assert made_by("default/curl", type_urls.LISTENER, listener_) == ["ServiceEntry default/db", "VirtualService default/tcp"]
    endpoints = made_by("default/curl", type_urls.ENDPOINT, "outbound|9080||ratings.default.svc.cluster.local")
    assert endpoints == ["Service default/ratings", "WorkloadEntry default/ratings-v1"]


def test_listeners_have_a_revision(mesh: Mesh) -> None:
    """A Gateway would be called programmed because of an acknowledgement of what was there before."""
    before = mesh.pipeline.listened("tulle-system/ingress")
    mesh.apply([gateway()])
    opened = mesh.pipeline.listened("tulle-system/ingress")
    assert before < opened == mesh.pipeline.revision
    mesh.apply([route(parentRefs=AT_GATEWAY, rules=[rule("r")])])
    assert mesh.pipeline.listened("tulle-system/ingress") == opened, "a route opens no port"


def test_every_kind_with_a_status_is_known() -> None:
    """A kind would be registered and never get a status."""
    ours = {kind.resource for kind in KINDS if kind.group.endswith((".istio.io", "gateway.networking.k8s.io"))}
    assert ours - BY_RESOURCE.keys() == {"workloadentries.networking.istio.io", "referencegrants.gateway.networking.k8s.io"}
