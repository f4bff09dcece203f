"""Endpoints by place: who is near to whom, what is shared out where, and who has a copy of what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.localities import Standpoint, endpoints_from, matches, standpoint_named
from tulle.core.model.destination import EndpointSet, Locality

REGION, ZONE, SUBZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"
EDS = "outbound|9080||web.default.svc.cluster.local"


def at(name: str, address: str, region: str, zone: str, app: str = "web", **labels: str) -> Object:
    return entry(name, address, {"app": app, REGION: region, ZONE: zone, **labels})


def rule(policy: dict[str, Any], **spec: Any) -> Object:
    metadata = {"name": "web", "namespace": "default"}
    spec = {"host": "web", "trafficPolicy": policy, **spec}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec})


def near(**setting: Any) -> Object:
    return rule({"loadBalancer": {"localityLbSetting": setting}})


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(
        [
            service("web"),
            at("a", "10.0.0.1", "eu", "north", version="v1"),
            at("b", "10.0.0.2", "eu", "south", version="v2"),
            at("c", "10.0.0.3", "us", "east", version="v1"),
            at("d", "10.0.0.4", "ap", "west", version="v2"),
            at("caller", "10.0.1.1", "eu", "north", "curl", version="v2"),
        ]
    )


def seen(mesh: Mesh, here: Standpoint) -> EndpointSet:
    assert mesh.problems() == []
    row = mesh.pipeline.flow.get(endpoints_from, ((("default", "web"), 9080, ""), here))
    assert row
    return row


def order(mesh: Mesh, region: str, zone: str, **labels: str) -> dict[str, int]:
    """Each endpoint's priority."""
    here = Standpoint(Locality(region, zone), tuple(sorted(labels.items())))
    return {one.workload.removeprefix("default/"): one.priority for one in seen(mesh, here).endpoints}


def test_without_a_rule_all_share_one_copy(mesh: Mesh) -> None:
    """Broken: a mesh that asks for nothing would pay for places."""
    assert EDS in mesh.pipeline.table("mesh", type_urls.ENDPOINT)
    assert mesh.pipeline.layers("default/caller") == ("unguarded", "mesh", "namespace/default", "workload/default/caller")


def test_with_a_rule_each_place_has_one(mesh: Mesh) -> None:
    """Broken: a proxy would see no endpoints, those of another place, or those of two places at once."""
    changed = mesh.apply([rule({"outlierDetection": {"consecutive5xxErrors": 1}})])
    assert EDS not in mesh.pipeline.table("mesh", type_urls.ENDPOINT)
    assert changed["mesh"][type_urls.ENDPOINT] == {EDS: None}
    layers = mesh.pipeline.layers("default/caller")
    assert layers == ("unguarded", "mesh", "place/eu/north/", "namespace/default", "workload/default/caller")
    assert mesh.pipeline.layers("default/a")[2] == "place/eu/north/"  # shared
    for proxy in ("a", "b", "c", "d", "caller"):
        tables = [mesh.pipeline.table(layer, type_urls.ENDPOINT) for layer in mesh.pipeline.layers(f"default/{proxy}")]
        assert sum(EDS in one for one in tables) == 1
    mesh.delete([rule({"outlierDetection": {"consecutive5xxErrors": 1}})])
    assert EDS in mesh.pipeline.table("mesh", type_urls.ENDPOINT)
    assert mesh.pipeline.table("place/eu/north/", type_urls.ENDPOINT) == {}


def test_near_before_far(mesh: Mesh) -> None:
    """Broken: requests would cross the ocean while an instance next door is free."""
    mesh.apply([rule({"outlierDetection": {"consecutive5xxErrors": 1}})])
    assert order(mesh, "eu", "north") == {"a": 0, "b": 1, "c": 2, "d": 2}
    assert order(mesh, "us", "east") == {"c": 0, "a": 1, "b": 1, "d": 1}
    assert order(mesh, "af", "cape") == {"a": 0, "b": 0, "c": 0, "d": 0}


def test_where_to_fail_over(mesh: Mesh) -> None:
    """Broken: a region would fail over to one that a person ruled out."""
    mesh.apply([near(failover=[{"from": "us", "to": "ap"}])])
    assert order(mesh, "us", "east") == {"c": 0, "d": 1, "a": 2, "b": 2}
    assert order(mesh, "eu", "north") == {"a": 0, "b": 1, "c": 2, "d": 2}


def test_priority_by_labels(mesh: Mesh) -> None:
    """Broken: a caller's own labels would not decide who is near."""
    mesh.apply([near(failoverPriority=["version", REGION])])
    assert mesh.pipeline.layers("default/caller")[2] == "place/eu/north/?version=v2"
    assert order(mesh, "eu", "north", version="v2") == {"b": 0, "d": 1, "a": 2, "c": 2}
    mesh.apply([near(failoverPriority=["version=v1", REGION])])
    assert order(mesh, "us", "east") == {"c": 0, "a": 1, "b": 2, "d": 2}


def test_shares(mesh: Mesh) -> None:
    """Broken: a geographic rule would send callers elsewhere, or a part of them."""
    mesh.apply([near(distribute=[{"from": "eu/north", "to": {"eu/*": 90, "us/east": 10}}, {"from": "us", "to": {"ap": 100}}])])
    row = seen(mesh, Standpoint(Locality("eu", "north")))
    assert row.shares == (
        (Locality("eu", "north"), 450_000),
        (Locality("eu", "south"), 450_000),
        (Locality("us", "east"), 100_000),
    )
    assert [one.workload for one in row.endpoints] == ["default/a", "default/b", "default/c"]
    assert [one.workload for one in seen(mesh, Standpoint(Locality("us", "east"))).endpoints] == ["default/d"]
    # Nothing is said about callers from elsewhere: near comes first.
    assert order(mesh, "ap", "west") == {"d": 0, "a": 1, "b": 1, "c": 1}


def test_switched_off(mesh: Mesh) -> None:
    """Broken: `enabled: false` would not be."""
    mesh.apply([rule({"outlierDetection": {}, "loadBalancer": {"localityLbSetting": {"enabled": False}}})])
    assert EDS in mesh.pipeline.table("mesh", type_urls.ENDPOINT)


def test_who_moves_is_told(mesh: Mesh) -> None:
    """Broken: a workload that moved to another zone would keep its old view."""
    mesh.apply([rule({"outlierDetection": {"consecutive5xxErrors": 1}})])
    mesh.apply([at("caller", "10.0.1.1", "us", "x/y z", "curl")])
    assert mesh.pipeline.layers("default/caller")[2] == "place/us/x%2Fy%20z/"
    assert EDS in mesh.pipeline.table("place/us/x%2Fy%20z/", type_urls.ENDPOINT)


@pytest.mark.parametrize(
    "one", [Standpoint(), Standpoint(Locality("a/b", "", "c?d"), (("k/=", "v&"), ("l", ""))), Standpoint(Locality("é", "%", "*"))]
)
def test_names_of_standpoints(one: Standpoint) -> None:
    """Broken: callers of two places would share a layer."""
    assert standpoint_named(one.name) == one


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        *((pattern, True) for pattern in ("*", "eu", "eu/*", "eu/north", "eu/north/*", "eu/north/a", "*/north")),
        *((pattern, False) for pattern in ("us", "eu/south", "eu/north/b")),
    ],
)
def test_patterns(pattern: str, fits: bool) -> None:
    """Broken: a rule would be for other places than it says."""
    assert matches(Locality("eu", "north", "a"), pattern) is fits


def test_a_place_by_labels_or_by_the_entry() -> None:
    """Broken: a workload would stand nowhere."""
    by_entry = at("b", "10.0.0.2", "x", "y")
    raw = by_entry.model_dump(by_alias=True, exclude_none=True)
    raw["spec"]["locality"] = "eu/north/a"
    mesh = Mesh([service("web"), at("a", "10.0.0.1", "eu", "north", **{SUBZONE: "a"}), obj(raw), near(enabled=True)])
    assert {one.locality for one in seen(mesh, Standpoint()).endpoints} == {Locality("eu", "north", "a")}
