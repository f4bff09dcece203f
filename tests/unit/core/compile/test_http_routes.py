"""HTTPRoutes: precedence, shares, broken backends, parents in the mesh and at a gateway."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, goes, obj, service, to
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.model.route import DEFAULT_RETRY, Abort
from tulle.kit.problem import Severity

REVIEWS = {"group": "", "kind": "Service", "name": "reviews", "port": 9080}


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def route(name: str = "r", namespace: str = "default", created: str = "", **spec: Any) -> Object:
    spec.setdefault("parentRefs", [REVIEWS])
    metadata = {"name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {})}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec})


def gateway(name: str = "gw", namespace: str = "default", *listeners: dict[str, Any], gateway_class: str = "tulle") -> Object:
    listeners = listeners or ({"name": "http", "port": 80, "protocol": "HTTP"},)
    spec = {"gatewayClassName": gateway_class, "listeners": list(listeners)}
    metadata = {"name": name, "namespace": namespace}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec})


def backend(name: str, weight: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": 9080, "weight": weight, **more}


def rule(name: str, *matches: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "matches": list(matches) or [{}], "backendRefs": [backend("reviews-v1")], **more}


def path(kind: str, value: str) -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}}


def names(mesh: Mesh, host: str = "*") -> list[str]:
    return [one.name for one in mesh.ingress(host).routes]


def test_precedence(mesh: Mesh) -> None:
    """A general rule would hide a special one that was written after it."""
    rules = [
        rule("all"),
        rule("regex", path("RegularExpression", "/very/long/expression/.*")),
        rule("short", path("PathPrefix", "/a")),
        rule("long", path("PathPrefix", "/a/b")),
        rule("long-get", {**path("PathPrefix", "/a/b"), "method": "GET"}),
        rule("long-header", {**path("PathPrefix", "/a/b"), "headers": [{"name": "x", "value": "1"}]}),
        rule("long-query", {**path("PathPrefix", "/a/b"), "queryParams": [{"name": "x", "value": "1"}]}),
        rule("exact", path("Exact", "/a")),
    ]
    mesh.apply([route(rules=rules)])
    order = ["exact", "long-get", "long-header", "long-query", "long", "short", "all"]
    assert [one.name for one in mesh.routes("reviews")] == order  # behind "all", no expression is ever reached
    mesh.apply([route(rules=rules[1:])])
    assert [one.name for one in mesh.routes("reviews")][-2:] == ["short", "regex"]


def test_of_equal_rules_the_oldest_object_goes_first(mesh: Mesh) -> None:
    """Which of two teams' routes counts would depend on the order of arrival."""
    mesh.apply([route("a", created="2024-02-01T00:00:00Z", rules=[rule("young", path("Exact", "/x"))])])
    mesh.apply([route("b", created="2024-01-01T00:00:00Z", rules=[rule("old", path("Exact", "/x"))])])
    assert [one.name for one in mesh.routes("reviews")] == ["old", "young"]


def test_a_missing_backend_answers_500_for_its_share(mesh: Mesh) -> None:
    """The working backend would get everything, or nothing would work."""
    mesh.apply([route(rules=[rule("r", backendRefs=[backend("reviews-v1", 3), backend("gone", 1)])])])
    (one,) = mesh.routes("reviews")
    assert (goes(one), one.abort) == (to(("reviews-v1", 3)), Abort(500, 25.0))
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason) == ("spec.rules[0].backendRefs[1].name", "BackendNotFound")
    assert problem.message == "no Service gone in namespace default"
    mesh.apply([service("gone")])
    assert [(goes(one), one.abort) for one in mesh.routes("reviews")] == [(to(("reviews-v1", 3), ("gone", 1)), None)]


@pytest.mark.parametrize(
    ("ref", "field", "reason"),
    [
        ({"name": "reviews-v1", "port": 80}, "port", "PortNotFound"),
        ({"name": "reviews-v1", "kind": "Bucket", "group": "example.com"}, "kind", "InvalidKind"),
        ({"name": "reviews", "namespace": "shop", "port": 9080}, "namespace", "RefNotPermitted"),
    ],
)
def test_a_broken_backend(mesh: Mesh, ref: dict[str, Any], field: str, reason: str) -> None:
    """A mistake would not be named, or take the neighbours with it."""
    mesh.apply([service("reviews", "shop")])
    mesh.apply([route(rules=[rule("broken", path("Exact", "/x"), backendRefs=[ref]), rule("whole")])])
    broken, whole = mesh.routes("reviews")
    assert (broken.status, broken.destinations, goes(whole)) == (500, (), to("reviews-v1"))
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason) == (f"spec.rules[0].backendRefs[0].{field}", reason)


def test_a_reference_grant_lets_a_backend_of_another_namespace_in(mesh: Mesh) -> None:
    """Permitted backends would stay broken, or others become permitted."""
    grant = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
        "to": [{"group": "", "kind": "Service", "name": "reviews"}],
    }
    granted = obj(
        {
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": "g", "namespace": "shop"},
            "spec": grant,
        }
    )
    refs = [backend("reviews", namespace="shop"), backend("other", namespace="shop")]
    mesh.apply([service("reviews", "shop"), service("other", "shop"), granted, route(rules=[rule("r", backendRefs=refs)])])
    assert [share.destination.hostname for share in mesh.routes("reviews")[0].destinations] == ["reviews.shop.svc.cluster.local"]
    assert [problem.path for problem in mesh.problems()] == ["spec.rules[0].backendRefs[1].namespace"]


def test_weights_of_zero(mesh: Mesh) -> None:
    """A backend that was switched off would get requests."""
    mesh.apply([route(rules=[rule("r", backendRefs=[backend("reviews-v1", 0), backend("reviews-v2", 5)])])])
    assert goes(mesh.routes("reviews")[0]) == to(("reviews-v2", 5))
    mesh.apply([route(rules=[rule("r", backendRefs=[backend("reviews-v1", 0)])])])
    assert mesh.routes("reviews")[0].status == 500
    assert [problem.reason for problem in mesh.problems()] == ["WeightSumZero"]


def test_timeouts_and_retries(mesh: Mesh) -> None:
    """Requests would wait for ever, or be tried again where they should not."""
    mesh.apply(
        [route(rules=[rule("r", timeouts={"request": "3s", "backendRequest": "1s"}, retry={"attempts": 4, "codes": [500]})])]
    )
    (one,) = mesh.routes("reviews")
    assert (one.timeout, one.retry and (one.retry.attempts, one.retry.statuses, one.retry.per_try_timeout)) == (
        3.0,
        (4, (500,), 1.0),
    )
    mesh.apply([route(rules=[rule("r")])])
    assert (mesh.routes("reviews")[0].timeout, mesh.routes("reviews")[0].retry) == (0.0, DEFAULT_RETRY)
    mesh.apply([route(rules=[rule("r", timeouts={"backendRequest": "1s"})])])
    retry = mesh.routes("reviews")[0].retry
    assert retry, "a time for one try takes no retries away"
    assert (retry.per_try_timeout, retry.on, retry.safe) == (1.0, DEFAULT_RETRY.on, ()), "what is slow is not asked three times"


def test_a_filter_that_is_not_supported_is_never_skipped(mesh: Mesh) -> None:
    """A request that should have been changed on the way would arrive unchanged."""
    filters = [{"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "C", "name": "d"}}]
    mesh.apply([route(rules=[rule("r", filters=filters)])])
    assert mesh.routes("reviews")[0].status == 500
    (problem,) = mesh.problems()
    assert (problem.path, problem.severity) == ("spec.rules[0].filters[0]", Severity.WARNING)


def test_consumer_routes_are_for_their_own_namespace(mesh: Mesh) -> None:
    """A caller's route would change other callers' traffic."""
    parent = {**REVIEWS, "namespace": "default"}
    grant = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Service"}],
    }
    mesh.apply(
        [
            entry("stranger", "10.1.0.1", {"app": "stranger"}, "shop"),
            obj(
                {
                    "apiVersion": "gateway.networking.k8s.io/v1beta1",
                    "kind": "ReferenceGrant",
                    "metadata": {"name": "g"},
                    "spec": grant,
                }
            ),
            route("producer", rules=[rule("producer")]),
            route(
                "consumer",
                "shop",
                parentRefs=[parent],
                rules=[rule("consumer", backendRefs=[backend("reviews-v3", namespace="default")])],
            ),
        ]
    )
    assert [one.name for one in mesh.routes("reviews")] == ["producer"]
    assert [one.name for one in mesh.routes("reviews", viewer="shop")] == ["consumer"]
    assert mesh.problems() == []


def test_http_routes_go_before_virtual_services(mesh: Mesh) -> None:
    """The order between the two APIs would be left to chance."""
    virtual = obj(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"hosts": ["reviews"], "http": [{"name": "vs", "route": [{"destination": {"host": "ratings"}}]}]},
        }
    )
    mesh.apply([virtual, route(rules=[rule("route", path("Exact", "/x"))])])
    assert [one.name for one in mesh.routes("reviews")] == ["route", "vs"]
    (problem,) = mesh.problems()
    assert (problem.reason, problem.severity) == ("Conflict", Severity.WARNING)


@pytest.mark.parametrize(
    ("parent", "at", "reason", "message"),
    [
        ({"name": "gatewayz"}, "name", "GatewayNotFound", "no Gateway gatewayz in namespace default; did you mean gateway?"),
        (
            {"name": "gateway", "sectionName": "https"},
            "sectionName",
            "NoMatchingParent",
            "https is not a listener of Gateway default/gateway; it has http (80)",
        ),
        (
            {"name": "gateway", "port": 81},
            "port",
            "NoMatchingParent",
            "81 is not a listener of Gateway default/gateway; it has http (80)",
        ),
        (
            {"group": "", "kind": "Service", "name": "reviewz"},
            "name",
            "HostNotFound",
            "no Service reviewz in namespace default; did you mean reviews?",
        ),
        (
            {"group": "", "kind": "Service", "name": "reviews", "port": 1},
            "port",
            "PortNotFound",
            "1 is not a port of Service default/reviews; it has 9080",
        ),
        (
            {"kind": "Fence", "name": "x"},
            "kind",
            "InvalidKind",
            "found Fence.gateway.networking.k8s.io; needed a Gateway, or a Service for the mesh",
        ),
    ],
)
def test_parents_that_are_not_there(mesh: Mesh, parent: dict[str, Any], at: str, reason: str, message: str) -> None:
    """A route without effect would look as if it had one."""
    mesh.apply([gateway("gateway"), route(parentRefs=[parent], rules=[rule("r")])])
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason, problem.message) == (f"spec.parentRefs[0].{at}", reason, message)


def test_listeners_choose_their_routes_namespaces(mesh: Mesh) -> None:
    """A stranger could take over the ingress, or an invited guest not come in."""
    closed = {"name": "http", "port": 80, "protocol": "HTTP"}
    guest = route("guest", "shop", parentRefs=[{"name": "gw", "namespace": "default"}], rules=[rule("guest")])
    mesh.apply([gateway("gw", "default", closed), guest, service("reviews-v1", "shop")])
    assert names(mesh) == []
    assert [problem.reason for problem in mesh.problems()] == ["NotAllowedByListeners"]
    mesh.apply([gateway("gw", "default", {**closed, "allowedRoutes": {"namespaces": {"from": "All"}}})])
    assert (names(mesh), mesh.problems()) == (["guest"], [])
    invited = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"invited": "yes"}}}}
    mesh.apply([gateway("gw", "default", {**closed, "allowedRoutes": invited})])
    assert names(mesh) == []
    mesh.apply([obj({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"invited": "yes"}}})])
    assert (names(mesh), mesh.problems()) == (["guest"], [])


def test_hostnames_meet(mesh: Mesh) -> None:
    """A route would be served for hosts that its listener is not for."""
    mesh.apply([gateway("gw", "default", {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"})])
    mesh.apply([route(parentRefs=[{"name": "gw"}], hostnames=["a.example.com", "example.org", "*.com"], rules=[rule("r")])])
    table = mesh.pipeline.table("workload/tulle-system/ingress", type_urls.VIRTUAL_HOST)
    prefix = "http.18080.tulle-system.ingress/"
    assert sorted(table) == [f"{prefix}*.example.com:18080", f"{prefix}*:18080", f"{prefix}a.example.com:18080"]
    assert (names(mesh, "a.example.com"), names(mesh, "*.example.com"), names(mesh, "*")) == (["r"], ["r"], [])
    mesh.apply([route(parentRefs=[{"name": "gw"}], hostnames=["example.org"], rules=[rule("r")])])
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [("spec.hostnames", "NoMatchingListenerHostname")]


def test_a_request_that_its_own_host_does_not_take_falls_to_the_wider_one(mesh: Mesh) -> None:
    """A route for one host would hide the paths that a route for all hosts serves."""
    mesh.apply([gateway()])
    mesh.apply(
        [route("narrow", parentRefs=[{"name": "gw"}], hostnames=["a.example.com"], rules=[rule("narrow", path("Exact", "/x"))])]
    )
    mesh.apply([route("wide", parentRefs=[{"name": "gw"}], hostnames=["*.example.com"], rules=[rule("wide")])])
    assert names(mesh, "a.example.com") == ["narrow", "wide"]


def test_the_most_specific_listener_has_the_request(mesh: Mesh) -> None:
    """A route on the listener for everything would be served on one that it was not attached to."""
    everything = {"name": "all", "port": 80, "protocol": "HTTP"}
    special = {"name": "special", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"}
    mesh.apply([gateway("gw", "default", everything, special)])
    mesh.apply([route("wide", parentRefs=[{"name": "gw", "sectionName": "all"}], rules=[rule("wide")])])
    assert (names(mesh), names(mesh, "a.example.com")) == (["wide"], [])


def test_gateways_of_other_classes_are_not_ours(mesh: Mesh) -> None:
    """Another controller's Gateway would open our ingress."""
    mesh.apply([gateway(gateway_class="nginx"), route(parentRefs=[{"name": "gw"}], rules=[rule("r")])])
    workload = mesh.pipeline.workload("tulle-system/ingress")
    assert workload
    assert workload.listeners == ()
    assert mesh.problems() == []
