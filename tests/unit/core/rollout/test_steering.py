"""Weights in routes that are somebody else's."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tulle.core.rollout.steering import (
    Side,
    Sides,
    candidate_of,
    found,
    mirrored,
    mirrors,
    steered,
    unmirrorable,
    unmirrored,
)

SIDES = Sides(Side((("shop", "reviews-v2"),)), Side((("shop", "reviews-v3"),)))
SUBSETS = Sides(Side((("shop", "reviews"),), ("v2",)), Side((("shop", "reviews"),), ("v3",)))


def http_route(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "HTTPRoute", "metadata": {"name": "reviews", "namespace": "shop"}, "spec": {"rules": list(rules)}}


def rule(stable: int | None, candidate: int | None, *others: dict[str, Any], name: str = "") -> dict[str, Any]:
    refs: list[dict[str, Any]] = [{"name": "reviews-v2", "port": 80}, {"name": "reviews-v3", "port": 80}]
    for ref, weight in zip(refs, (stable, candidate), strict=True):
        ref |= {} if weight is None else {"weight": weight}
    return {"backendRefs": [*refs, *others]} | ({"name": name} if name else {})


def weights(route: dict[str, Any]) -> list[list[int]]:
    return [[ref.get("weight") for ref in rule["backendRefs"]] for rule in route["spec"]["rules"]]


def test_every_rule_with_both_versions() -> None:
    """Broken: a part of the traffic would stay with a version that fails."""
    other = {"backendRefs": [{"name": "reviews-v2", "port": 80}]}
    route = http_route(rule(1, 0), other, rule(90, 10))
    assert found(route, SIDES).weight == 10
    new = steered(route, SIDES, 30)
    assert weights(new) == [[70, 30], [None], [70, 30]]
    assert new["spec"]["rules"][1] == other
    assert weights(steered(new, SIDES, 0)) == [[100, 0], [None], [100, 0]]


def test_one_rule_by_name() -> None:
    """Broken: an A/B test would be for everybody."""
    route = http_route(rule(1, 0, name="testers"), rule(1, 0))
    assert weights(steered(route, SIDES, 100, "testers")) == [[0, 100], [1, 0]]
    assert found(steered(route, SIDES, 100, "testers"), SIDES, "testers").weight == 100
    assert found(steered(route, SIDES, 100, "testers"), SIDES, everywhere=True).weight == 0


def test_others_keep_their_part() -> None:
    """Broken: a third backend would gain or lose traffic by a release that does not concern it."""
    route = http_route(rule(8, 0, {"name": "legacy", "port": 80, "weight": 2}))
    new = steered(route, SIDES, 25)
    assert weights(new) == [[600, 200, 200]]
    assert weights(steered(new, SIDES, 100)) == [[0, 800, 200]]
    assert weights(steered(steered(new, SIDES, 100), SIDES, 0)) == [[800, 0, 200]]


def test_subsets_of_a_virtual_service() -> None:
    """Broken: Istio's routes could not be steered."""
    split = [{"destination": {"host": "reviews", "subset": "v2"}}, {"destination": {"host": "reviews.shop", "subset": "v3"}}]
    route = {
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"route": split}]},
    }
    before = copy.deepcopy(route)
    new = steered(route, SUBSETS, 10)
    assert [one["weight"] for one in new["spec"]["http"][0]["route"]] == [90, 10]
    assert route == before, "the route that was read is changed"


@pytest.mark.parametrize("rules", [[], [{"backendRefs": [{"name": "reviews-v2", "port": 80}]}]])
def test_a_route_that_cannot_be_steered_says_what_it_lacks(rules: list[Any]) -> None:
    """Broken: a release would wait for ever, and nobody know for what."""
    weight, trouble = found(http_route(*rules), SIDES)
    assert weight is None
    assert "needed reviews-v2 and reviews-v3 side by side" in trouble


def test_copies_in_a_route_of_the_gateway_api() -> None:
    """Broken: mirrored requests would go nowhere, or a person's own filters would be lost."""
    own = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 80}}}
    route = http_route(rule(1, 0), rule(1, 0) | {"filters": [own]}, {"backendRefs": [{"name": "reviews-v2", "port": 80}]})
    assert candidate_of(route, SIDES) == "shop/reviews-v3"
    new = mirrored(route, SIDES, 20)
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "reviews-v3", "port": 80}, "percent": 20}}
    assert [one.get("filters") for one in new["spec"]["rules"]] == [[mirror], [own, mirror], None]
    assert mirrors(new, "shop/reviews-v3")
    assert not mirrors(route, "shop/reviews-v3")
    assert unmirrored(new, "shop/reviews-v3") == route
    assert weights(new) == weights(route)


def test_copies_in_a_virtual_service() -> None:
    """Broken: Istio's routes could not mirror, or would be refused by their own rules."""
    split = [{"destination": {"host": "reviews", "subset": "v2"}}, {"destination": {"host": "reviews.shop", "subset": "v3"}}]
    route: dict[str, Any] = {
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"name": "a", "route": split}, {"name": "b", "route": split}]},
    }
    new = mirrored(route, SUBSETS, 100, "a")
    entry = {"destination": {"host": "reviews.shop", "subset": "v3"}, "percentage": {"value": 100}}
    assert [one.get("mirrors") for one in new["spec"]["http"]] == [[entry], None]
    assert unmirrored(new, candidate_of(route, SUBSETS)) == route
    assert unmirrorable(route, SUBSETS) == ""
    route["spec"]["http"][1]["mirror"] = {"host": "audit"}
    assert "found mirror in a rule; needed mirrors" in unmirrorable(route, SUBSETS)
    assert unmirrorable(route, SUBSETS, "a") == ""
