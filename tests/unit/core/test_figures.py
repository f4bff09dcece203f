"""Counted calls as people read them: each call once, and by what it was."""

from __future__ import annotations

import msgspec
import pytest

from tulle.core.figures import By, Health, figures, short, table
from tulle.core.graph import Graph, Level, Role, graph
from tulle.core.inventory import Inventory, ServiceItem, WorkloadItem
from tulle.core.model.calls import Count, Edge

HOST = "reviews.default.svc.cluster.local"


def edge(reporter: str = "destination", version: str = "v1", **more: object) -> Edge:
    """A call of productpage to reviews."""
    return msgspec.structs.replace(
        Edge(
            reporter,
            "default/productpage-v1",
            "productpage",
            "v1",
            f"default/reviews-{version}",
            "reviews",
            version,
            HOST,
            code="200",
            mutual=True,
        ),
        **more,
    )


def calls(number: int) -> Count:
    return Count(number, 1.0 * number, tuple([0, number] + [number] * 14))


def test_each_call_once() -> None:
    """Broken: every call of the mesh would be counted twice, or those that reached nobody not at all."""
    rows = [
        (edge("source"), calls(10)),
        (edge("destination"), calls(10)),
        (edge("source", destination="", code="503", flags="UH"), calls(2)),
        (edge("source", code="503", flags="UF"), calls(3)),
        (edge("plaintext"), calls(99)),
    ]
    (row,) = table(rows, By.SERVICE, 10.0)
    assert row.key == {"service": "default/reviews"}
    assert (row.figures.calls, row.figures.failures, row.figures.rate) == (15, 5, 1.5)
    assert row.figures.success == pytest.approx(10 / 15)
    assert row.figures.health is Health.FAILING
    assert row.figures.secured == 1.0
    assert row.figures.reasons == {"503 UF": 3, "503 UH": 2}
    assert row.figures.p50 == pytest.approx(0.75)


def test_no_calls() -> None:
    """Broken: a service that nobody calls would look as if it failed, or divide by nothing."""
    assert figures([], 0.0).health is Health.IDLE
    assert figures([], 0.0).success is None


def test_rows_of_a_namespace() -> None:
    """Broken: `-n shop` would show others' services, or hide the hosts outside that its workloads call."""
    outside = edge("source", destination="", service="api.example.com", source="shop/cart")
    rows = [(edge(), calls(1)), (outside, calls(1))]
    assert [row.key for row in table(rows, By.SERVICE, 1.0, "shop")] == [{"service": "api.example.com"}]
    assert [row.key["destination"] for row in table(rows, By.EDGE, 1.0, "shop")] == ["unknown"]


def test_routes_are_what_callers_count() -> None:
    """Broken: nobody could see how the rule does that he has just written."""
    rows = [(edge("source", route="default/reviews.http[0]"), calls(4)), (edge(), calls(4))]
    (row,) = table(rows, By.ROUTE, 1.0)
    assert row.key == {"service": "default/reviews", "route": "default/reviews.http[0]"}


@pytest.mark.parametrize(("host", "name"), [(HOST, "default/reviews"), ("api.example.com", "api.example.com"), ("", "unknown")])
def test_short_names(host: str, name: str) -> None:
    """Broken: services would be called otherwise than people call them."""
    assert short(host) == name


THERE = Inventory(
    services=(ServiceItem("default/reviews", "Service", "default", "reviews", HOST, "", (), 3, 3),),
    workloads=(
        *(
            WorkloadItem(f"default/reviews-{v}", "reviews", v, "", "", "", v != "v3", True, False, ("default/reviews",))
            for v in ("v1", "v2", "v3")
        ),
        WorkloadItem("shop/cart", "cart", "", "", "", "", True, True, False),
    ),
)
ROWS = [
    (edge("source"), calls(80)),
    (edge(), calls(80)),
    (edge(version="v2"), calls(20)),
    (edge("source", version="v2"), calls(20)),
    (edge("source", source="", source_app="", destination="", service="api.example.com", mutual=False), calls(5)),
]


def drawn(level: Level, **more: object) -> Graph:
    return graph(ROWS, level, THERE, 0.0, 10.0, **more)  # type: ignore[arg-type]


def test_levels() -> None:
    """Broken: the graph would show workloads where people want to see applications, or one version for all."""
    assert [one.id for one in drawn(Level.APP, idle=False).nodes] == [
        "default/productpage",
        "default/reviews",
        "host:api.example.com",
        "unknown",
    ]
    assert {one.id for one in drawn(Level.VERSION).nodes} >= {"default/reviews@v1", "default/reviews@v2", "default/reviews@v3"}
    assert {one.id for one in drawn(Level.WORKLOAD).nodes} >= {"default/productpage-v1", "default/reviews-v3", "shop/cart"}
    assert {one.id for one in drawn(Level.SERVICE).nodes} >= {"default/productpage", "default/reviews", "shop/cart"}


def test_shares_and_health() -> None:
    """Broken: a shift of traffic could not be seen; what has nobody ready would look well."""
    found = drawn(Level.VERSION)
    shares = {link.target: link.share for link in found.links}
    assert shares == {"default/reviews@v1": 0.8, "default/reviews@v2": 0.2, "host:api.example.com": 1.0}
    nodes = {node.id: node for node in found.nodes}
    assert nodes["default/reviews@v1"].health is Health.HEALTHY
    assert nodes["default/reviews@v3"].health is Health.FAILING, "it is not ready"
    assert nodes["host:api.example.com"].role is Role.OUTSIDE
    assert nodes["unknown"].role is Role.UNKNOWN


def test_idle_ones_of_one_namespace() -> None:
    """Broken: who looks at one namespace would see all that is idle anywhere."""
    assert "shop/cart" not in {node.id for node in drawn(Level.APP, namespace="default").nodes}
