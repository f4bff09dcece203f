"""Random routing objects of both APIs together, for the same hosts, and random requests that have a chance to match them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.property.routing_gateway_api import grpc_route, grpc_rule, http_route, http_rule
from tests.property.routing_istio import delegates, rule, virtual_service
from tests.property.routing_words import (
    HEADERS,
    METHODS,
    METHODS_OF,
    NAMES,
    PATTERNS,
    SENT,
    SERVICES,
    TEXTS,
    Json,
    created,
    some,
)
from tulle.core.evaluate import Request

_WIDE = "*.default.svc.cluster.local"
_EXPORTS: tuple[Json, ...] = ({}, {}, {}, {"exportTo": ["."]}, {"exportTo": ["elsewhere"]})


def _delegated(found: list[Json]) -> tuple[str, ...]:
    return tuple(one["metadata"]["name"] for one in found)


@st.composite
def mesh_objects(draw: st.DrawFn) -> list[Json]:
    """For each of the services a VirtualService, routes of the Gateway API, both or neither; and one VirtualService for all."""
    found = draw(delegates())
    rules = rule(_delegated(found))
    for name in NAMES:
        parent = {"group": "", "kind": "Service", "name": name, "namespace": "default"}
        if draw(st.integers(0, 3)):
            hosts = draw(st.sampled_from(([name], [f"{name}.default.svc.cluster.local"], [name, "z"])))
            one = virtual_service(f"v-{name}", hosts, draw(some(rules, 4, 1)), draw(_gateways()), draw(created()))
            one["spec"] |= draw(st.sampled_from(_EXPORTS))
            found.append(one)
        if not draw(st.integers(0, 2)):
            found.append(http_route(name, parent, [], draw(some(http_rule(), 3, 1)), **draw(created())))
        if not draw(st.integers(0, 4)):
            found.append(grpc_route(name, parent, [], draw(some(grpc_rule(), 2, 1))))
        if not draw(st.integers(0, 5)):  # a consumer's
            found.append(http_route(f"c-{name}", parent, [], draw(some(http_rule(), 2, 1)), namespace="elsewhere"))
    if not draw(st.integers(0, 2)):
        found.append(virtual_service("wide", [_WIDE], draw(some(rules, 2, 1)), []))
    return found


def _gateways() -> st.SearchStrategy[list[str]]:
    return st.sampled_from(([], [], ["mesh"], ["mesh", "tulle-system/istio"]))


@st.composite
def gateway_objects(draw: st.DrawFn) -> list[Json]:
    """Routes of both APIs at a gateway, for names that overlap, at listeners whose names overlap."""
    found = draw(delegates())
    rules = rule(_delegated(found))
    hosts = st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True)

    def parent() -> Json:
        listener = draw(st.sampled_from(("", "", "http", "wild", "one")))
        return {"name": "api", "namespace": "tulle-system"} | ({"sectionName": listener} if listener else {})

    for index in range(draw(st.integers(0, 3))):
        found.append(http_route(f"r{index}", parent(), draw(hosts), draw(some(http_rule(), 3, 1)), **draw(created())))
    for index in range(draw(st.integers(0, 2))):
        found.append(grpc_route(f"g{index}", parent(), draw(hosts), draw(some(grpc_rule(), 2, 1)), **draw(created())))
    for index in range(draw(st.integers(0, 3))):
        names = draw(hosts) or ["*"]
        own = ["tulle-system/istio"]
        gateways = own if names == ["*"] else draw(st.sampled_from((own, ["mesh", *own])))
        found.append(virtual_service(f"v{index}", names, draw(some(rules, 3, 1)), gateways, draw(created())))
    return found


@st.composite
def requests(draw: st.DrawFn, authorities: tuple[str, ...]) -> tuple[Request, int]:
    """A request, and the number by which its share of a weighted route is drawn. Some are calls of gRPC, some ask for CORS."""
    authority = draw(st.sampled_from(authorities))
    if authorities is NAMES:
        authority += draw(st.sampled_from(("", "", ":9080", ":80", ".default", ".default.svc.cluster.local:9080", ".nowhere")))
    query = draw(st.sampled_from(("", "", "?q=a", "?q=ab&r=b", "?a", "?r=1&q=b&q=a", "?", "?q=%61", "?q=a=b&&r=")))
    headers = draw(some(st.tuples(st.sampled_from(HEADERS), st.sampled_from(TEXTS)), 3))
    method, path = draw(st.sampled_from(METHODS)), draw(st.sampled_from(SENT)) + query
    kind = draw(st.integers(0, 5))
    if kind == 0:
        method = draw(st.sampled_from(("POST", "POST", "POST", "GET")))
        path = f"/{draw(st.sampled_from(SERVICES))}/{draw(st.sampled_from(METHODS_OF))}"
        headers.append(
            ("content-type", draw(st.sampled_from(("application/grpc", "application/grpc+proto", "application/grpc-x"))))
        )
    elif kind == 1:
        method = "OPTIONS"
        headers.append(("origin", draw(st.sampled_from(("http://a", "http://b", "http://b.a")))))
        headers += [("access-control-request-method", "PUT")] * draw(st.integers(0, 1))
    elif kind == 2 and draw(st.booleans()):
        method, path = "CONNECT", ""
        authority = authority if ":" in authority else f"{authority}:9080"
    return Request(authority=authority, method=method, path=path, headers=tuple(headers)), draw(st.integers(0, 400))
