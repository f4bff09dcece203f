"""Rules that stand for those of another VirtualService, and rules for some callers alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry
from tests.unit.core.compile.test_virtual_services import vs
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.hosts import virtual_host
from tulle.core.model.route import MatchKind, Route, RouteTableKey, TextMatch, labels_digest

CURL = (("app", "curl"),)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def to(host: str, **rule: Any) -> dict[str, Any]:
    return {"route": [{"destination": {"host": host}}], **rule}


def through(name: str, **rule: Any) -> dict[str, Any]:
    return {"delegate": {"name": name}, **rule}


def delegate(name: str, *rules: dict[str, Any], namespace: str = "default", **spec: Any) -> Object:
    return vs(name, namespace, hosts=[], http=list(rules), **spec)


def shown(routes: tuple[Route, ...]) -> list[tuple[str, str]]:
    """Path and destination of each route."""
    return [
        (route.match.path.value if route.match.path else "", route.destinations[0].destination.hostname.partition(".")[0])
        for route in routes
    ]


def test_a_delegates_rules_take_the_place_of_one(mesh: Mesh) -> None:
    """A team could not keep its routes in an object of its own, or would get requests that are not for it."""
    inner = delegate(
        "team",
        to("ratings", match=[{"uri": {"prefix": "/a/b"}}, {"uri": {"exact": "/elsewhere"}}], timeout="2s"),
        to("details"),
    )
    mesh.apply(
        [inner, vs(http=[through("team", match=[{"uri": {"prefix": "/a"}, "name": "outer"}], timeout="5s"), to("reviews")])]
    )
    routes = mesh.routes("reviews")
    assert shown(routes) == [("/a/b", "ratings"), ("/a", "details"), ("", "reviews")]
    assert [route.timeout for route in routes] == [2.0, 5.0, 0.0]
    assert routes[0].name == "default/team.http[0].outer"
    assert routes[0].origin is not None
    assert routes[0].origin.ref == inner.ref
    assert mesh.problems() == []
    mesh.apply([delegate("team", to("productpage"))])
    assert shown(mesh.routes("reviews")) == [("/a", "productpage"), ("", "reviews")]


def test_delegates_that_are_none(mesh: Mesh) -> None:
    """A rule would end in nothing, and nobody be told."""
    mesh.apply([vs(http=[through("team"), to("reviews")])])
    assert shown(mesh.routes("reviews")) == [("", "reviews")]
    assert [problem.reason for problem in mesh.problems()] == ["DelegateNotFound"]
    mesh.apply([delegate("team", to("ratings"), namespace="default", exportTo=["shop"])])
    assert [problem.reason for problem in mesh.problems()] == ["DelegateNotFound"]
    mesh.apply([vs("team", hosts=["ratings"])])
    assert [problem.reason for problem in mesh.problems()] == ["DelegateNotFound"]


def test_a_circle_of_delegates(mesh: Mesh) -> None:
    """The control plane would run in circles for ever."""
    mesh.apply([delegate("a", through("b")), delegate("b", through("a"), to("ratings")), vs(http=[through("a"), to("reviews")])])
    assert shown(mesh.routes("reviews")) == [("", "reviews")]
    assert {(str(problem.ref), problem.reason) for problem in mesh.problems()} == {
        ("VirtualService default/a", "DelegateCycle"),
        ("VirtualService default/b", "DelegateCycle"),
    }


def test_paths_of_both(mesh: Mesh) -> None:
    """A request would be routed although only one of the two matches holds."""
    rules = [to("ratings", match=[{"uri": {"regex": "/a/[0-9]+"}}]), to("details", match=[{"uri": {"prefix": "/A/B"}}])]
    mesh.apply([delegate("team", *rules), vs(http=[through("team", match=[{"uri": {"prefix": "/a"}, "ignoreUriCase": True}])])])
    (route,) = mesh.routes("reviews")
    assert route.match.path == TextMatch(MatchKind.PREFIX, "/A/B")
    assert mesh.problems() == []


def rules_by_labels() -> Object:
    return vs(http=[to("ratings", match=[{"sourceLabels": {"app": "curl"}}]), to("reviews")])


def test_who_has_the_labels_gets_other_routes(mesh: Mesh) -> None:
    """A rule for one caller would hold for all of them, or for none."""
    before = mesh.pipeline.layers("default/details-v1")
    mesh.apply([rules_by_labels()])
    assert mesh.problems() == []
    assert shown(mesh.routes("reviews")) == [("", "reviews")]
    assert mesh.pipeline.layers("default/details-v1") == before
    layer = f"callers/default/{labels_digest(CURL)}"
    assert mesh.pipeline.layers("default/curl") == ("unguarded", "mesh", layer, "workload/default/curl")
    table = RouteTableKey(9080, "default", labels=CURL)
    assert table.name in mesh.pipeline.table(layer, type_urls.ROUTE)
    row = mesh.pipeline.flow.get(virtual_host, (table, ("default", "reviews"), 9080))
    assert row is not None
    assert shown(row.routes) == [("", "ratings")]
    assert set(mesh.pipeline.table(layer, type_urls.LISTENER)) == set(
        mesh.pipeline.table("namespace/default", type_urls.LISTENER)
    )


def test_labels_that_nobody_asks_for_any_more(mesh: Mesh) -> None:
    """A workload would keep tables that are no longer kept up to date; or its new labels would not count."""
    mesh.apply([rules_by_labels()])
    mesh.apply([entry("curl", "10.0.0.9", {"app": "wget"}, account="curl")])
    assert mesh.pipeline.layers("default/curl") == ("unguarded", "mesh", "namespace/default", "workload/default/curl")
    mesh.apply([entry("curl", "10.0.0.9", {"app": "curl"}, account="curl")])
    assert "namespace/default" not in mesh.pipeline.layers("default/curl")
    mesh.delete([rules_by_labels()])
    assert mesh.pipeline.layers("default/curl") == ("unguarded", "mesh", "namespace/default", "workload/default/curl")


def test_a_callers_namespace(mesh: Mesh) -> None:
    """A rule for the callers of one namespace would hold for all of them, or for none."""
    mesh.apply([entry("client", "10.0.0.70", {"app": "client"}, "shop")])
    mesh.apply([vs(http=[to("ratings", match=[{"sourceNamespace": "shop"}]), to("reviews")])])
    assert shown(mesh.routes("reviews")) == [("", "reviews")]
    assert shown(mesh.routes("reviews", viewer="shop")) == [("", "ratings")]
    assert mesh.problems() == []
