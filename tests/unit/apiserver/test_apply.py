"""Server-side apply and field managers: who owns what, and what an apply changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.api.registry import kind_of_resource
from tulle.control.apiserver import fields
from tulle.control.apiserver.apply import FieldConflict, Manager, after_update, apply, same
from tulle.control.apiserver.lists import applied

_kind = kind_of_resource("services")
assert _kind is not None
LISTS = applied(_kind)


def manager(name: str, time: str = "2026-01-01T00:00:00Z") -> Manager:
    return Manager(name, "v1", "", time)


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}, "spec": spec}


def owned(body: dict[str, Any], name: str) -> set[str]:
    """The fields of a manager as kubectl prints them."""
    return {
        fields.shown(path)
        for entry in body["metadata"]["managedFields"]
        if entry["manager"] == name
        for path in fields.decode(entry["fieldsV1"])
    }


HTTP = {"port": 80, "name": "http"}


def test_applying_again_changes_nothing() -> None:
    """Every `kubectl apply --server-side` of the same file would otherwise be a new revision for all proxies."""
    config = service(ports=[HTTP], selector={"app": "a"})
    first = apply(None, config, manager("one"), LISTS, force=False)
    again = apply(first, config, manager("one", "2027-01-01T00:00:00Z"), LISTS, force=False)
    assert same(first, again)
    assert first["spec"] == config["spec"]


def test_what_is_no_longer_named_goes_and_what_others_set_stays() -> None:
    """Removing a line from a file must remove the field, and nothing that somebody else set."""
    live = apply(
        None,
        service(ports=[HTTP, {"port": 81, "name": "admin"}], selector={"app": "a", "v": "1"}),
        manager("one"),
        LISTS,
        force=False,
    )
    live["spec"]["clusterIP"] = "240.240.0.7"
    less = apply(live, service(ports=[HTTP], selector={"app": "a"}), manager("one"), LISTS, force=False)
    assert less["spec"] == {"ports": [HTTP], "selector": {"app": "a"}, "clusterIP": "240.240.0.7"}
    nothing = apply(less, service(ports=[HTTP]), manager("one"), LISTS, force=False)
    assert nothing["spec"] == {"ports": [HTTP], "clusterIP": "240.240.0.7"}


def test_managers_conflict_over_different_values_only() -> None:
    """Two files that disagree must not silently fight; two that agree share the field."""
    live = apply(None, service(ports=[HTTP], type="ClusterIP"), manager("one"), LISTS, force=False)
    shared = apply(live, service(type="ClusterIP"), manager("two"), LISTS, force=False)
    assert ".spec.type" in owned(shared, "one") & owned(shared, "two")
    with pytest.raises(FieldConflict) as conflict:
        apply(shared, service(type="NodePort", ports=[{"port": 80, "name": "other"}]), manager("three"), LISTS, force=False)
    assert conflict.value.causes == [
        ('"one"', '.spec.ports[port=80,protocol="TCP"].name'),
        ('"one"', ".spec.type"),
        ('"two"', ".spec.type"),
    ]
    forced = apply(shared, service(type="NodePort"), manager("three"), LISTS, force=True)
    assert forced["spec"]["type"] == "NodePort"
    assert ".spec.type" not in owned(forced, "one") | owned(forced, "two")
    # A shared field stays while one of its owners names it.
    dropped = apply(shared, service(ports=[HTTP]), manager("one"), LISTS, force=False)
    assert dropped["spec"]["type"] == "ClusterIP"


def test_items_of_keyed_lists_belong_to_their_managers() -> None:
    """Two managers may each bring a port; one that leaves takes only its own."""
    live = apply(None, service(ports=[HTTP]), manager("one"), LISTS, force=False)
    both = apply(live, service(ports=[{"port": 9, "protocol": "UDP"}]), manager("two"), LISTS, force=False)
    assert [port["port"] for port in both["spec"]["ports"]] == [80, 9]
    left = apply(both, service(ports=[]), manager("two"), LISTS, force=False)
    assert left["spec"]["ports"] == [HTTP]
    named = apply(both, service(ports=[{"port": 9, "protocol": "UDP", "name": "x"}]), manager("three"), LISTS, force=False)
    kept = apply(named, service(), manager("two"), LISTS, force=False)
    assert kept["spec"]["ports"][1] == {"port": 9, "protocol": "UDP", "name": "x"}
    assert len(both["spec"]["ports"][1]) == 2  # what went in is not changed


def test_an_update_owns_what_it_changed() -> None:
    """After `kubectl edit` an apply over the edited field must conflict, and over others must not."""
    live = apply(None, service(ports=[HTTP], type="ClusterIP"), manager("one"), LISTS, force=False)
    edited = {**live, "spec": {**live["spec"], "type": "NodePort"}, "metadata": dict(live["metadata"])}
    edited["metadata"]["managedFields"] = after_update(live, edited, manager("edit"), LISTS)
    assert owned(edited, "edit") == {".spec.type"}
    assert ".spec.type" not in owned(edited, "one")
    with pytest.raises(FieldConflict):
        apply(edited, service(ports=[HTTP], type="ClusterIP"), manager("one"), LISTS, force=False)
    same_value = {**edited, "metadata": dict(edited["metadata"])}
    assert after_update(edited, same_value, manager("x"), LISTS) == edited["metadata"]["managedFields"]


def test_an_update_that_removes_a_field_ends_its_ownership() -> None:
    """A field that is gone must not block anybody."""
    live = apply(None, service(ports=[HTTP], type="ClusterIP"), manager("one"), LISTS, force=False)
    less = {**live, "spec": {"ports": [HTTP]}, "metadata": dict(live["metadata"])}
    less["metadata"]["managedFields"] = after_update(live, less, manager("edit"), LISTS)
    assert ".spec.type" not in owned(less, "one")
    assert apply(less, service(type="NodePort"), manager("two"), LISTS, force=False)["spec"]["type"] == "NodePort"


def test_managed_fields_can_be_renamed_and_reset() -> None:
    """kubectl moves fields from its client-side manager by patching them; `[{}]` resets them."""
    live = apply(None, service(ports=[HTTP]), manager("one"), LISTS, force=False)
    renamed = {**live, "metadata": {**live["metadata"]}}
    renamed["metadata"]["managedFields"] = [{**live["metadata"]["managedFields"][0], "manager": "two"}]
    assert after_update(live, renamed, manager("edit"), LISTS)[0]["manager"] == "two"
    reset = {**live, "metadata": {**live["metadata"], "managedFields": [{}]}}
    assert after_update(live, reset, manager("edit"), LISTS) == []


step = st.one_of(
    st.sampled_from(["f:a", "f:b.c/d", "f:é", 'k:{"port":80,"protocol":"TCP"}', 'v:"x"']), st.from_regex(r"\Af:[a-z]{1,3}\Z")
)


@given(st.sets(st.lists(step, min_size=1, max_size=4).map(tuple)))
def test_fields_v1_round_trips(paths: set[tuple[str, ...]]) -> None:
    """A set that changes by being stored would give fields to nobody, or to the wrong manager."""
    assert fields.decode(fields.encode(paths)) == paths


@pytest.mark.parametrize("junk", [None, [], "x", {"nonsense": {}}, {"f:a": 1}, {"f:a": {"x:b": {}}}])
def test_junk_in_managed_fields_is_ignored(junk: Any) -> None:
    """Managed fields come from clients; a bad one must not break every later write."""
    assert fields.decode(junk) == set() or junk == {"f:a": {"x:b": {}}}
