"""What a person is told of a host: the objects of both APIs in their order, the routes, the endpoints; and of one request."""

from __future__ import annotations

from tests.unit.core.compile.mesh import Mesh, bookinfo, read, service
from tulle.core.describe import Description, describe, heard
from tulle.core.evaluate import Outcome, Request, decide_route
from tulle.core.model.service import Resolution

BOTH = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: jason}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - matches: [{headers: [{name: end-user, value: jason}], path: {value: /reviews}}]
    backendRefs: [{name: reviews-v2, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: split, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 75}
    - {destination: {host: reviews, subset: v3}, weight: 25}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: late, creationTimestamp: "2026-02-01T00:00:00Z"}
spec: {hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: subsets}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: tulle
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: "*.example"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: reviews, port: 9080}]}]
"""


def described(mesh: Mesh, host: str = "reviews") -> Description:
    return describe(mesh.pipeline, host, "default")


def test_objects_of_both_apis_stand_in_the_order_in_which_they_take_effect() -> None:
    """Broken: who writes a second object for a host would not learn which of them decides."""
    found = described(Mesh([*bookinfo(), *read(BOTH)]))
    assert [(one.place, one.object, one.effect) for one in found.objects] == [
        (1, "HTTPRoute default/jason", "routes"),
        (2, "VirtualService default/split", "routes"),
        (3, "DestinationRule default/subsets", "how its destinations are reached"),
        (0, "VirtualService default/late", "none: others come before it"),
    ]
    (rules,) = found.routes
    assert (rules.port, rules.callers) == (9080, ("namespace default",))
    name = "default.svc.cluster.local:9080"
    assert [(one.match, one.action, one.object, one.path) for one in rules.rules] == [
        ("path prefix /reviews, header end-user exact jason", f"reviews-v2.{name}", "HTTPRoute default/jason", "spec.rules[0]"),
        ("every request", f"75% reviews.{name} v1, 25% reviews.{name} v3", "VirtualService default/split", "spec.http[0]"),
    ]
    assert [(goal.name, [one.workload for one in goal.endpoints]) for goal in found.destinations] == [
        (f"reviews-v2.{name}", ["default/reviews-v2"]),
        (f"reviews.{name} v1", ["default/reviews-v1"]),
        (f"reviews.{name} v3", ["default/reviews-v3"]),
    ]
    assert any("late" in problem for problem in found.problems), "and the one without effect says so itself"


def test_a_host_at_a_gateway_is_described_too_and_a_service_with_what_leads_to_it() -> None:
    """Broken: of requests from outside nobody would be told anything."""
    mesh = Mesh([*bookinfo(), *read(GATEWAY)])
    at_gateway = described(mesh, "shop.example")
    assert [(rules.callers, rules.rules[0].object) for rules in at_gateway.routes] == [
        (("gateway tulle-system/ingress",), "HTTPRoute default/shop")
    ]
    callers = [rules.callers for rules in described(mesh).routes]
    assert callers == [("namespace default",), ("gateway tulle-system/ingress",)]
    assert described(mesh, "nobody.example").routes == ()


def test_one_request_is_followed_from_the_proxy_that_gets_it() -> None:
    """Broken: `tulle describe request` would look into another table than the proxy does."""
    mesh = Mesh([*bookinfo(), service("far", "shop"), *read(BOTH), *read(GATEWAY)])
    found = heard(mesh.pipeline, "default/curl", "reviews:9080", 9080)
    assert found is not None
    assert found.table is not None
    assert found.host is not None
    asked = Request("reviews:9080", path="/reviews/0", headers=(("end-user", "jason"),))
    decision = decide_route(found.table, found.host, found.domain, asked)
    assert (decision.outcome, decision.destination and decision.destination.hostname) == (
        Outcome.FORWARD,
        "reviews-v2.default.svc.cluster.local",
    )
    unknown = heard(mesh.pipeline, "default/curl", "else.where", 9080)
    assert unknown is not None
    assert unknown.domain == "*"
    undeclared = Mesh([*bookinfo(), service("thing", ports=({"port": 7777},), address="240.240.7.7")])
    for authority, wanted in (("thing:7777", "thing.default.svc.cluster.local:7777"), ("else.where:7777", "")):
        at = heard(undeclared.pipeline, "default/curl", authority, 7777)
        assert at is not None
        assert (at.host.name if at.host else "") == wanted, at
    nowhere = heard(mesh.pipeline, "default/curl", "reviews", 7)
    assert nowhere is not None
    assert (nowhere.table, nowhere.ports[-1]) == (None, 9080)
    assert heard(mesh.pipeline, "default/nobody", "reviews", 9080) is None


OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example.com]
  addresses: [198.51.100.7]
  ports: [{number: 5432, name: pg, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web}
spec:
  hosts: [web.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec: {hosts: ["*.wild.example"], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DYNAMIC_DNS}
"""


def test_services_outside_the_mesh_are_described() -> None:
    """Broken: of what is no HTTP nothing would be said, and a host that DNS finds would look as if it were answered 503."""
    mesh = Mesh([*bookinfo(), *read(OUTSIDE)])
    db = described(mesh, "db.example.com")
    assert [(one.object, one.effect) for one in db.objects] == [("ServiceEntry default/db", "the service itself")]
    assert [(rules.port, rule.match, rule.action) for rules in db.routes for rule in rules.rules] == [
        (5432, "connections to 198.51.100.7", "db.example.com:5432")
    ]
    assert [one.address for goal in db.destinations for one in goal.endpoints] == ["192.0.2.1:5432"]
    web = described(mesh, "web.example.com")
    assert [rules.port for rules in web.routes] == [80, 443]
    assert {(goal.found, goal.endpoints[0].address) for goal in web.destinations} == {
        (Resolution.DNS, "web.example.com:80"),
        (Resolution.DNS, "web.example.com:443"),
    }
    (wild,) = described(mesh, "*.wild.example").destinations
    assert (wild.found, wild.endpoints) == (Resolution.DYNAMIC, ())
    for host, carried in (("a.wild.example", "TLS for *.wild.example: *.wild.example:443"), ("else.where", "")):
        at = heard(mesh.pipeline, "default/curl", host, 443)
        assert at is not None
        assert at.carried == carried
