"""VirtualServices beyond Bookinfo's: matches, retries, faults, conflicts, visibility, and what is broken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, goes, obj, read, service, to
from tulle.api.object import Object
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import DEFAULT_RETRY, MatchKind, NamedMatch, Retry, TextMatch
from tulle.kit.problem import Severity

RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
"""


@pytest.fixture
def mesh() -> Mesh:
    return Mesh([*bookinfo(), *read(RULES)])


def vs(name: str = "reviews", namespace: str = "default", created: str = "", **spec: Any) -> Object:
    spec.setdefault("hosts", ["reviews"])
    spec.setdefault("http", [{"route": [{"destination": {"host": "reviews"}}]}])
    metadata = {"name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {})}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec})


def http(**rule: Any) -> list[dict[str, Any]]:
    return [{"route": [{"destination": {"host": "reviews", "subset": "v1"}}], **rule}]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"uri": {"exact": "/a"}}, TextMatch(MatchKind.EXACT, "/a")),
        ({"uri": {"prefix": "/a"}}, TextMatch(MatchKind.PREFIX, "/a")),
        ({"uri": {"regex": "/a+"}}, TextMatch(MatchKind.REGEX, "/a+")),
        ({"uri": {"prefix": "/A"}, "ignoreUriCase": True}, TextMatch(MatchKind.PREFIX, "/A", ignore_case=True)),
    ],
)
def test_paths(mesh: Mesh, said: dict[str, Any], path: TextMatch) -> None:
    """A path would be compared another way than it was written."""
    mesh.apply([vs(http=http(match=[said]))])
    assert [route.match.path for route in mesh.routes("reviews")] == [path]


def test_headers_query_and_the_request_line(mesh: Mesh) -> None:
    """A condition would be lost, and requests go where they should not."""
    match = {
        "headers": {"End-User": {"prefix": "ja"}, "x-there": {}},
        "withoutHeaders": {"x-not": {"exact": "no"}},
        "queryParams": {"q": {"regex": "a|b"}},
        "method": {"exact": "GET"},
        "authority": {"exact": "reviews"},
        "scheme": {"exact": "http"},
    }
    mesh.apply([vs(http=http(match=[match]))])
    (route,) = mesh.routes("reviews")
    assert route.match.headers == (
        NamedMatch(":authority", TextMatch(MatchKind.EXACT, "reviews")),
        NamedMatch(":method", TextMatch(MatchKind.EXACT, "GET")),
        NamedMatch(":scheme", TextMatch(MatchKind.EXACT, "http")),
        NamedMatch("end-user", TextMatch(MatchKind.PREFIX, "ja")),
        NamedMatch("x-not", TextMatch(MatchKind.EXACT, "no"), invert=True),
        NamedMatch("x-there", TextMatch(MatchKind.PRESENT)),
    )
    assert route.match.query == (NamedMatch("q", TextMatch(MatchKind.REGEX, "a|b")),)


def test_several_matches_are_several_routes(mesh: Mesh) -> None:
    """ "Or" would become "and", or only one of them count."""
    mesh.apply([vs(http=http(name="r", match=[{"uri": {"exact": "/a"}, "name": "one"}, {"uri": {"exact": "/b"}}], timeout="2s"))])
    assert [(route.name, route.match.path and route.match.path.value, route.timeout) for route in mesh.routes("reviews")] == [
        ("r.one", "/a", 2.0),
        ("r", "/b", 2.0),
    ]


@pytest.mark.parametrize(
    ("said", "retry"),
    [
        (None, DEFAULT_RETRY),
        ({"attempts": 0}, None),
        ({"attempts": 5}, Retry(5, DEFAULT_RETRY.on, safe=DEFAULT_RETRY.safe)),
        ({"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,reset"}, Retry(3, ("5xx", "reset"), (), 2.0)),
        ({"attempts": 1, "retryOn": "429, 503"}, Retry(1, ("retriable-status-codes",), (429, 503))),
    ],
)
def test_retries(mesh: Mesh, said: dict[str, Any] | None, retry: Retry | None) -> None:
    """Requests would be tried again too often, or not where they should."""
    mesh.apply([vs(http=http(**({"retries": said} if said else {})))])
    assert mesh.routes("reviews")[0].retry == retry


def test_a_direct_response(mesh: Mesh) -> None:
    """A route that answers by itself would be asked of somebody."""
    mesh.apply([vs(http=[{"directResponse": {"status": 418}}])])
    (route,) = mesh.routes("reviews")
    assert (route.destinations, route.status) == ((), 418)
    assert mesh.problems() == []


@pytest.mark.parametrize(
    ("destination", "field", "reason", "message"),
    [
        ({"host": "ratingz"}, "host", "HostNotFound", "no Service ratingz in namespace default; did you mean ratings?"),
        (
            {"host": "ratings.shop"},
            "host",
            "HostNotFound",
            "no Service ratings in namespace shop; there is one in namespace default: ratings.default",
        ),
        (
            {"host": "a.b.example.com"},
            "host",
            "HostNotFound",
            "a.b.example.com is no Service of the mesh, and no host of a ServiceEntry",
        ),
        (
            {"host": "reviews", "subset": "v9"},
            "subset",
            "SubsetNotFound",
            "no DestinationRule defines subset v9 of default/reviews; it has v1, v2",
        ),
        (
            {"host": "details", "subset": "v1"},
            "subset",
            "SubsetNotFound",
            "no DestinationRule defines subset v1 of default/details; it has none",
        ),
        (
            {"host": "reviews", "port": {"number": 80}},
            "port.number",
            "PortNotFound",
            "80 is not a port of Service default/reviews; it has 9080",
        ),
    ],
)
def test_a_broken_destination(mesh: Mesh, destination: dict[str, Any], field: str, reason: str, message: str) -> None:
    """A typing error would not be named, or take the neighbours with it."""
    rules = [
        {"match": [{"uri": {"exact": "/broken"}}], "route": [{"destination": destination}]},
        {"route": [{"destination": {"host": "reviews", "subset": "v2"}}]},
    ]
    mesh.apply([vs(http=rules)])
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason, problem.message) == (f"spec.http[0].route[0].destination.{field}", reason, message)
    assert problem.severity is Severity.ERROR
    broken, whole = mesh.routes("reviews")
    assert (broken.destinations, broken.status) == ((), 503)
    assert goes(whole) == to("reviews:v2")


def test_a_broken_share_stays_a_share(mesh: Mesh) -> None:
    """The other destination would get all requests, and nobody notice the mistake."""
    shares = [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 75}, {"destination": {"host": "gone"}, "weight": 25}]
    mesh.apply([vs(http=[{"route": shares}])])
    (route,) = mesh.routes("reviews")
    assert [(share.destination, share.weight) for share in route.destinations] == [
        (DestinationKey("reviews.default.svc.cluster.local", 9080, "v1"), 75),
        (DestinationKey("gone.default.svc.cluster.local", 9080), 25),
    ]
    assert [problem.reason for problem in mesh.problems()] == ["HostNotFound"]


def test_a_destination_without_a_port_takes_the_callers(mesh: Mesh) -> None:
    """A Service of two ports would be called at the wrong one."""
    ports = ({"port": 80, "name": "http"}, {"port": 9090, "name": "http-more"})
    mesh.apply([service("two", ports=ports), vs("two", hosts=["two"], http=[{"route": [{"destination": {"host": "two"}}]}])])
    for port in (80, 9090):
        (route,) = mesh.routes("two", port=port)
        assert [share.destination.port for share in route.destinations] == [port]
    mesh.apply([vs("two", hosts=["reviews"], http=[{"route": [{"destination": {"host": "two"}}]}])])
    assert [problem.message for problem in mesh.problems()] == [
        "Service default/two has several ports; needed port.number, one of 80, 9090"
    ]


def test_the_oldest_of_two_for_one_host_has_it(mesh: Mesh) -> None:
    """Who wins would depend on the order of arrival."""
    young = vs(
        "a-young", created="2024-02-01T00:00:00Z", http=[{"route": [{"destination": {"host": "reviews", "subset": "v2"}}]}]
    )
    old = vs("z-old", created="2024-01-01T00:00:00Z", http=http())
    mesh.apply([young])
    mesh.apply([old])
    assert [goes(route) for route in mesh.routes("reviews")] == [to("reviews:v1")]
    (problem,) = mesh.problems()
    assert str(problem) == (
        "VirtualService default/a-young: spec.hosts[0]: VirtualService default/z-old has this host too and goes first; "
        "needed one of the two: this one has no effect"
    )
    assert problem.severity is Severity.WARNING


def test_a_named_host_goes_before_a_wildcard(mesh: Mesh) -> None:
    """A rule for everybody would override the one for this service."""
    mesh.apply([vs("all", created="2024-01-01T00:00:00Z", hosts=["*.default.svc.cluster.local"], http=http(timeout="9s"))])
    assert mesh.routes("details")[0].timeout == 9.0
    mesh.apply([vs("one", created="2024-02-01T00:00:00Z", http=http(timeout="1s"))])
    assert (mesh.routes("reviews")[0].timeout, mesh.routes("details")[0].timeout) == (1.0, 9.0)
    assert mesh.problems() == []


def test_short_names_mean_the_objects_own_namespace(mesh: Mesh) -> None:
    """A VirtualService of another namespace would take over a service of the same name."""
    mesh.apply([service("reviews", "shop"), vs("reviews", "shop", http=http(timeout="3s"))])
    assert mesh.routes("reviews")[0].timeout == 0.0
    assert mesh.routes("reviews", namespace="shop")[0].timeout == 3.0


@pytest.mark.parametrize("host", ["reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"])
def test_longer_names_mean_the_same_service(mesh: Mesh, host: str) -> None:
    """A host that resolves in Kubernetes would not be understood."""
    mesh.apply([vs("other", "shop", hosts=[host], http=[{"route": [{"destination": {"host": host, "subset": "v2"}}]}])])
    assert [goes(route) for route in mesh.routes("reviews")] == [to("reviews:v2")]


def test_export_to_keeps_other_namespaces_out(mesh: Mesh) -> None:
    """A private rule would change the traffic of strangers."""
    mesh.apply([entry("stranger", "10.1.0.1", {"app": "stranger"}, "shop"), vs(exportTo=["."], http=http(timeout="4s"))])
    assert mesh.routes("reviews")[0].timeout == 4.0
    assert mesh.routes("reviews", viewer="shop")[0].timeout == 0.0
    mesh.apply([vs(exportTo=["*"], http=http(timeout="4s"))])
    assert mesh.routes("reviews", viewer="shop")[0].timeout == 4.0


def test_a_virtual_service_for_gateways_leaves_the_sidecars_alone(mesh: Mesh) -> None:
    """Ingress rules would apply between services."""
    gateway = obj(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "gw"},
            "spec": {"servers": [{"port": {"number": 80, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}]},
        }
    )
    mesh.apply([gateway, vs(gateways=["gw"], http=http(timeout="5s"))])
    assert mesh.routes("reviews")[0].timeout == 0.0
    rules = [*http(match=[{"gateways": ["gw"]}], timeout="6s"), *http(match=[{"gateways": ["mesh"]}], timeout="7s"), *http()]
    mesh.apply([vs(gateways=["gw", "mesh"], http=rules)])
    assert [route.timeout for route in mesh.routes("reviews")] == [7.0]
    assert [route.timeout for route in mesh.ingress("reviews").routes] == [6.0]


def test_what_cannot_be_said_yet_is_said(mesh: Mesh) -> None:
    """A field would be dropped in silence, and its author believe that it works."""
    rule = http(
        match=[{"uri": {"prefix": "/a"}, "statPrefix": "a"}],
        fault={"delay": {"exponentialDelay": "1s"}, "abort": {"http2Error": "REFUSED_STREAM"}},
    )
    mesh.apply([vs(http=rule)])
    found = {(problem.path, problem.reason, problem.severity) for problem in mesh.problems()}
    fields = ("fault.abort.http2Error", "fault.delay.exponentialDelay", "match[0].statPrefix")
    assert found == {(f"spec.http[0].{field}", "NotYetSupported", Severity.WARNING) for field in fields}


def test_a_gateway_that_is_not_there(mesh: Mesh) -> None:
    """A typing error in `gateways` would look like a route that does not work."""
    mesh.apply([vs(gateways=["bookinfo-gatewayz"])])
    mesh.apply(
        [
            obj(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "Gateway",
                    "metadata": {"name": "bookinfo-gateway"},
                    "spec": {
                        "selector": {"istio": "ingressgateway"},
                        "servers": [{"port": {"number": 80, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}],
                    },
                }
            )
        ]
    )
    assert mesh.said() == [
        "VirtualService default/reviews: spec.gateways[0]: "
        "no Gateway bookinfo-gatewayz in namespace default; did you mean bookinfo-gateway?"
    ]


def test_a_host_that_is_no_service_is_only_a_warning(mesh: Mesh) -> None:
    """Rules could not be written before their service is there."""
    mesh.apply([vs(hosts=["later"])])
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason, problem.severity) == ("spec.hosts[0]", "HostNotFound", Severity.WARNING)
    mesh.apply([service("later")])
    assert mesh.problems() == []
    assert goes(mesh.routes("later")[0]) == to("reviews")
