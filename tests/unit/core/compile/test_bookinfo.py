"""Istio's Bookinfo files, as they are: what each makes of the mesh, and that nothing stays when it is deleted."""

from __future__ import annotations

import pytest

from tests.support.corpora import corpora
from tests.unit.core.compile.mesh import Mesh, bookinfo, goes, read, to
from tulle.core.model.route import Abort, Delay, MatchKind, NamedMatch, TextMatch

ISTIO = "istio/samples/bookinfo/networking"
GATEWAY_API = "istio/samples/bookinfo/gateway-api"
JASON = (NamedMatch("end-user", TextMatch(MatchKind.EXACT, "jason")),)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh([*bookinfo(), *read(corpora(f"{ISTIO}/destination-rule-all.yaml"))])


def test_without_rules_everything_goes_to_the_service(mesh: Mesh) -> None:
    """A fresh mesh would not route."""
    assert [goes(route) for route in mesh.routes("reviews")] == [to("reviews")]


@pytest.mark.parametrize(
    ("file", "service", "routes"),
    [
        ("virtual-service-all-v1", "productpage", [((), to("productpage:v1"))]),
        ("virtual-service-all-v1", "reviews", [((), to("reviews:v1"))]),
        ("virtual-service-all-v1", "ratings", [((), to("ratings:v1"))]),
        ("virtual-service-all-v1", "details", [((), to("details:v1"))]),
        ("virtual-service-reviews-v3", "reviews", [((), to("reviews:v3"))]),
        ("virtual-service-reviews-80-20", "reviews", [((), to(("reviews:v1", 80), ("reviews:v2", 20)))]),
        ("virtual-service-reviews-90-10", "reviews", [((), to(("reviews:v1", 90), ("reviews:v2", 10)))]),
        ("virtual-service-reviews-50-v3", "reviews", [((), to(("reviews:v1", 50), ("reviews:v3", 50)))]),
        ("virtual-service-reviews-v2-v3", "reviews", [((), to(("reviews:v2", 50), ("reviews:v3", 50)))]),
        ("virtual-service-reviews-test-v2", "reviews", [(JASON, to("reviews:v2")), ((), to("reviews:v1"))]),
        ("virtual-service-reviews-jason-v2-v3", "reviews", [(JASON, to("reviews:v2")), ((), to("reviews:v3"))]),
        ("virtual-service-ratings-test-delay", "ratings", [(JASON, to("ratings:v1")), ((), to("ratings:v1"))]),
        ("virtual-service-ratings-test-abort", "ratings", [(JASON, to("ratings:v1")), ((), to("ratings:v1"))]),
        ("virtual-service-details-v2", "details", [((), to("details:v2"))]),
        ("virtual-service-ratings-mysql", "ratings", [((), to("ratings:v2-mysql"))]),
        ("virtual-service-ratings-mysql-vm", "ratings", [((), to("ratings:v2-mysql-vm"))]),
        # The file's second rule can never be reached.
        ("fault-injection-details-v1", "details", [((), to("details:v1"))]),
    ],
)
def test_a_virtual_service_routes_as_it_says(mesh: Mesh, file: str, service: str, routes: object) -> None:
    """Istio's own example would send requests elsewhere here, or complain, or leave something behind."""
    before = mesh.host(service)
    objects = read(corpora(f"{ISTIO}/{file}.yaml"))
    mesh.apply(objects)
    assert [(route.match.headers, goes(route)) for route in mesh.routes(service)] == routes
    assert all(route.match.path is None for route in mesh.routes(service))
    assert mesh.problems() == []
    mesh.delete([one for one in objects if one.kind == "VirtualService"])
    assert mesh.host(service) == before


def test_delay(mesh: Mesh) -> None:
    """The delay of Istio's fault-injection task would not happen, or to everybody."""
    mesh.apply(read(corpora(f"{ISTIO}/virtual-service-ratings-test-delay.yaml")))
    assert [(route.delay, route.abort) for route in mesh.routes("ratings")] == [(Delay(7.0, 100.0), None), (None, None)]


def test_abort(mesh: Mesh) -> None:
    """The errors of Istio's fault-injection task would not happen, or to everybody."""
    mesh.apply(read(corpora(f"{ISTIO}/virtual-service-ratings-test-abort.yaml")))
    assert [route.abort for route in mesh.routes("ratings")] == [Abort(500, 100.0), None]
    mesh.apply(read(corpora(f"{ISTIO}/fault-injection-details-v1.yaml")))
    assert [route.abort for route in mesh.routes("details")] == [Abort(555, 100.0)]


PAGES = [
    (MatchKind.EXACT, "/productpage"),
    (MatchKind.PREFIX, "/static"),
    (MatchKind.EXACT, "/login"),
    (MatchKind.EXACT, "/logout"),
    (MatchKind.PREFIX, "/api/v1/products"),
]


def test_istios_gateway(mesh: Mesh) -> None:
    """Istio's Gateway file would not open the ingress."""
    mesh.apply(read(corpora(f"{ISTIO}/bookinfo-gateway.yaml")))
    host = mesh.ingress()
    assert host.domains == ("*",)
    paths = [route.match.path for route in host.routes]
    assert [(path.kind, path.value) for path in paths if path] == PAGES
    assert {tuple(goes(route)) for route in host.routes} == {tuple(to("productpage"))}
    assert mesh.problems() == []
    workload = mesh.pipeline.workload("tulle-system/ingress")
    assert workload
    assert [(listener.port, listener.tables[0].name) for listener in workload.listeners] == [
        (18080, "http.18080.tulle-system.ingress")
    ]


def test_the_gateway_apis_gateway(mesh: Mesh) -> None:
    """The same in the Gateway API's kinds would not open the ingress, or in the wrong order of precedence."""
    mesh.apply(read(corpora(f"{GATEWAY_API}/bookinfo-gateway.yaml")))
    paths = [route.match.path for route in mesh.ingress().routes]
    assert [(path.kind, path.value) for path in paths if path] == [
        (MatchKind.EXACT, "/productpage"),
        (MatchKind.EXACT, "/logout"),
        (MatchKind.EXACT, "/login"),
        (MatchKind.SEGMENTS, "/api/v1/products"),
        (MatchKind.SEGMENTS, "/static"),
    ]
    assert mesh.problems() == []


def test_both_gateways_at_once(mesh: Mesh) -> None:
    """Two Gateways on one bound port would hide each other instead of merging."""
    mesh.apply(read(corpora(f"{GATEWAY_API}/bookinfo-gateway.yaml")))
    mesh.apply(read(corpora(f"{ISTIO}/bookinfo-gateway.yaml")))
    origins = [route.origin.ref.kind for route in mesh.ingress().routes if route.origin]
    assert origins == ["HTTPRoute"] * 5 + ["VirtualService"] * 5


@pytest.mark.parametrize(
    ("file", "shares"),
    [
        ("route-reviews-v1", to("reviews-v1")),
        ("route-reviews-v3", to("reviews-v3")),
        ("route-reviews-50-v3", to(("reviews-v1", 50), ("reviews-v3", 50))),
        ("route-reviews-90-10", to(("reviews-v1", 90), ("reviews-v2", 10))),
        ("route-all-v1", to("reviews-v1")),
    ],
)
def test_http_routes_in_the_mesh(mesh: Mesh, file: str, shares: object) -> None:
    """An HTTPRoute with a Service as parent would not steer the sidecars."""
    before = mesh.host("reviews")
    objects = read(corpora(f"{GATEWAY_API}/{file}.yaml"))
    mesh.apply(objects)
    assert [goes(route) for route in mesh.routes("reviews")] == [shares]
    assert mesh.problems() == []
    mesh.delete(objects)
    assert mesh.host("reviews") == before


def test_mtls_rules(mesh: Mesh) -> None:
    """Istio's rules with ISTIO_MUTUAL would complain or change what is mutual TLS anyway."""
    mesh.apply(read(corpora(f"{ISTIO}/destination-rule-all-mtls.yaml")))
    assert mesh.problems() == []
