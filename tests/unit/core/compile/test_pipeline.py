"""The pipeline: one change costs what it touches, and only what became another is published."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, changes, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.pipeline import Pipeline
from tulle.ports import Key

SERVICES = 500


def vs(name: str, weight: int) -> Object:
    shares = [
        {"destination": {"host": name, "subset": "v0"}, "weight": weight},
        {"destination": {"host": name, "subset": "v1"}, "weight": 100 - weight},
    ]
    spec = {"hosts": [name], "http": [{"route": shares}]}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name}, "spec": spec})


def rule(name: str) -> Object:
    subsets = [{"name": f"v{index}", "labels": {"version": f"v{index}"}} for index in range(2)]
    spec = {"host": name, "subsets": subsets}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": name}, "spec": spec})


def instance(index: int, address: str = "", **notes: Any) -> Object:
    labels = {"app": f"s{index}", "version": "v0"}
    return entry(f"s{index}", address or f"10.0.{index // 250}.{index % 250 + 1}", labels, account=f"s{index}", **notes)


@pytest.fixture(scope="module")
def large() -> Pipeline:
    objects: list[Object] = []
    for index in range(SERVICES):
        objects += [service(f"s{index}", address=f"240.240.{index // 250}.{index % 250 + 1}"), instance(index)]
        objects += [rule(f"s{index}"), vs(f"s{index}", 50)]
    pipeline = Pipeline()
    pipeline.commit(changes(objects))
    return pipeline


def test_one_virtual_service_among_hundreds(large: Pipeline) -> None:
    """A changed weight would cost in proportion to the mesh, and be sent as much more than it is."""
    large.flow.computed.clear()
    published = large.commit(changes([vs("s7", 10)]))
    assert list(published.changed) == ["namespace/default"]
    assert {kind: list(names) for kind, names in published.changed["namespace/default"].items()} == {
        type_urls.VIRTUAL_HOST: ["9080.default/s7.default.svc.cluster.local:9080"]
    }
    assert large.flow.computed.total() <= 8, large.flow.computed


def test_one_endpoint_among_hundreds(large: Pipeline) -> None:
    """A restarted instance would be more than one small resource for every proxy."""
    large.flow.computed.clear()
    published = large.commit(changes([instance(9, "10.9.9.9")]))
    assert {
        layer: {type_urls.SHORT[kind]: len(names) for kind, names in types.items()} for layer, types in published.changed.items()
    } == {"mesh": {"EDS": 2}}
    assert large.flow.computed.total() <= 25, large.flow.computed


def test_one_more_service_among_hundreds(large: Pipeline) -> None:
    """A new service would recompute all the others."""
    large.flow.computed.clear()
    new = service("new", address="240.241.0.1")
    published = large.commit(changes([new]))
    assert {
        layer: {type_urls.SHORT[kind]: len(names) for kind, names in types.items()} for layer, types in published.changed.items()
    } == {
        "mesh": {"CDS": 1, "EDS": 1, "NDS": 1},
        "namespace/default": {"VHDS": 1},
    }
    assert large.flow.computed.total() <= 35, large.flow.computed
    large.commit({("services", "default", "new"): None})


def test_problems_of_one_change_among_hundreds(large: Pipeline) -> None:
    """Every question after mistakes would check the whole mesh."""
    assert large.problems() == []
    large.flow.computed.clear()
    large.commit(changes([vs("s8", 20)]))
    assert large.problems() == []
    assert large.flow.computed.total() <= 20, large.flow.computed


def test_a_trial_tells_and_changes_nothing(large: Pipeline) -> None:
    """A warning at the time of a write would leave the write behind, in what is published or in what is wrong."""
    revision, tables = large.revision, {kind: dict(large.table("namespace/default", kind)) for kind in type_urls.ORDER}
    problems = large.problems()
    resource, alone = "virtualservices.networking.istio.io", large.analysis.alone
    assert any("nowhere" in problem.message for problem in alone(resource, ("default", "s7"), vs("nowhere", 50)))
    assert alone(resource, ("default", "s7"), vs("s7", 60)) == ()
    assert alone(resource, ("default", "new"), vs("nowhere", 50)) != ()
    assert large.revision == revision
    assert large.problems() == problems
    assert large.commit({}).changed == {}
    assert {kind: dict(large.table("namespace/default", kind)) for kind in type_urls.ORDER} == tables


def test_nothing_new_is_nothing_published(large: Pipeline) -> None:
    """A resync, a written status or a new resource version would be sent to every proxy."""
    one = vs("s5", 50)
    seen = one.model_copy(
        update={
            "status": {"x": 1},
            "metadata": one.metadata.model_copy(update={"resource_version": "99", "generation": 3, "uid": "u"}),
        }
    )
    large.flow.computed.clear()
    assert large.commit(changes([seen])).changed == {}
    assert large.flow.computed.total() == 0


def test_a_batch_is_one_revision() -> None:
    """Half of a change would be seen by proxies."""
    mesh = Mesh(bookinfo())
    revision = mesh.pipeline.revision
    before = mesh.pipeline.flow.computed.copy()
    changed = mesh.apply([rule("reviews"), vs("reviews", 30)])
    assert mesh.pipeline.revision == revision + 1
    assert set(changed) == {"mesh", "namespace/default"}
    assert mesh.pipeline.flow.computed["encoded_virtual_host"] - before["encoded_virtual_host"] == 1


def test_the_stores_revision_is_taken_over() -> None:
    """`tulle wait --revision` would wait for a number that never comes."""
    pipeline = Pipeline()
    assert pipeline.commit({}, revision=41).revision == pipeline.revision == 41
    assert pipeline.commit({}).revision == 42
    with pytest.raises(ValueError, match="behind"):
        pipeline.commit({}, revision=7)


def test_store_keys_and_foreign_kinds_are_taken() -> None:
    """The control plane could not hand on what its store says."""
    pipeline = Pipeline()
    one = service("reviews")
    published = pipeline.commit(
        {Key("services", "default", "reviews"): one, Key("configmaps", "default", "x"): one, Key("_tokens", "", "t"): None}
    )
    assert list(published.changed) == ["mesh"]


def test_tables_are_never_changed_in_place() -> None:
    """A proxy that is being sent a table would get a mixture of two revisions."""
    mesh = Mesh([*bookinfo(), rule("reviews"), vs("reviews", 30)])
    before = mesh.pipeline.table("namespace/default", type_urls.VIRTUAL_HOST)
    copy = dict(before)
    mesh.apply([vs("reviews", 60)])
    mesh.delete([service("details")])
    assert before == copy
    after = mesh.pipeline.table("namespace/default", type_urls.VIRTUAL_HOST)
    assert "9080.default/details.default.svc.cluster.local:9080" in set(before) - set(after)


def test_published_changes_are_the_difference_of_the_tables() -> None:
    """A proxy that follows the changes would not have what a proxy that starts now gets."""
    mesh = Mesh()
    mirror: dict[tuple[str, str, str], object] = {}

    def follow(changed: dict[str, Any]) -> None:
        for layer, types in changed.items():
            for kind, names in types.items():
                for name, one in names.items():
                    if one is None:
                        del mirror[layer, kind, name]
                    else:
                        assert mirror.get((layer, kind, name)) != one
                        mirror[layer, kind, name] = one

    follow(mesh.apply(bookinfo()))
    follow(mesh.apply([rule("reviews"), vs("reviews", 30)]))
    follow(mesh.delete([rule("reviews"), service("ratings")]))
    follow(mesh.apply([entry("stranger", "10.1.0.1", {"app": "stranger"}, "shop")]))
    follow(mesh.delete(bookinfo()))
    layers = {layer for layer, _kind, _name in mirror}
    now = {
        (layer, kind, name): one
        for layer in layers
        for kind in type_urls.ORDER
        for name, one in mesh.pipeline.table(layer, kind).items()
    }
    assert mirror == now


def test_everything_gone_leaves_nothing_behind() -> None:
    """Memory would grow with every object that was ever there."""
    mesh = Mesh()
    mesh.apply([])
    size = mesh.pipeline.flow.size
    objects = [*bookinfo(), rule("reviews"), vs("reviews", 30)]
    mesh.apply(objects)
    mesh.problems()
    mesh.delete(objects)
    assert mesh.problems() == []
    mesh.apply([])
    assert mesh.pipeline.flow.size == size
