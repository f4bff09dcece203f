"""Server-side apply and field managers: who owns what, and what an apply changes."""

from __future__ import annotations

import json
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


def test_a_map_that_was_empty_gets_fields() -> None:
    """Broken: the second apply of a file would drop what was written into a map that the first one had as {}."""
    live = apply(None, service(ports=[HTTP], selector={}), manager("one"), LISTS, force=False)
    filled = apply(live, service(ports=[HTTP], selector={"app": "a"}), manager("one"), LISTS, force=False)
    assert filled["spec"]["selector"] == {"app": "a"}
    emptied = apply(filled, service(ports=[HTTP], selector={}), manager("one"), LISTS, force=False)
    assert emptied["spec"]["selector"] == {}


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


def test_a_service_s_selector_is_one_value() -> None:
    """Two managers that each set a label of the selector would make a Service that selects nothing."""
    live = apply(None, service(ports=[HTTP], selector={"app": "a"}), manager("one"), LISTS, force=False)
    with pytest.raises(FieldConflict) as conflict:
        apply(live, service(selector={"version": "v1"}), manager("two"), LISTS, force=False)
    assert conflict.value.causes == [('"one"', ".spec.selector")]
    taken = apply(live, service(selector={"version": "v1"}), manager("two"), LISTS, force=True)
    assert taken["spec"]["selector"] == {"version": "v1"}


def test_an_empty_list_of_managers_resets_nothing() -> None:
    """Clients that do not know the field send none of it; only one empty entry is a reset."""
    live = apply(None, service(ports=[HTTP]), manager("one"), LISTS, force=False)
    unaware = {**live, "metadata": {**live["metadata"], "managedFields": []}}
    assert after_update(live, unaware, manager("edit"), LISTS) == live["metadata"]["managedFields"]


def test_an_object_without_managers_is_taken_from_nobody() -> None:
    """After a reset an apply must not silently change what was there before."""
    bare = {**service(ports=[HTTP], type="ClusterIP")}
    with pytest.raises(FieldConflict) as conflict:
        apply(bare, service(type="NodePort"), manager("one"), LISTS, force=False)
    assert conflict.value.causes == [('"before-first-apply" using v1 at 2026-01-01T00:00:00Z', ".spec.type")]
    shared = apply(bare, service(type="ClusterIP"), manager("one"), LISTS, force=False)
    assert ".spec.type" in owned(shared, "one") & owned(shared, "before-first-apply")


def test_what_kubectl_applied_from_the_client_is_kubectl_s() -> None:
    """People switch to `--server-side`: their own former applies must not conflict, and those of others must."""
    last = json.dumps(service(type="ClusterIP", sessionAffinity="None"))
    live = service(type="ClusterIP", sessionAffinity="ClientIP")
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": last}
    live["metadata"]["managedFields"] = after_update(None, live, manager("kubectl-client-side-apply"), LISTS)
    changed = apply(live, service(type="NodePort"), manager("kubectl"), LISTS, force=False)
    assert changed["spec"]["type"] == "NodePort"
    noted = json.loads(changed["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
    assert noted == service(type="NodePort")
    with pytest.raises(FieldConflict):  # somebody else has changed this one since
        apply(live, service(sessionAffinity="None"), manager("kubectl"), LISTS, force=False)
    with pytest.raises(FieldConflict):
        apply(live, service(type="NodePort"), manager("argocd"), LISTS, force=False)


def test_managers_of_updates_do_not_grow_without_end() -> None:
    """A tool that names itself anew at every write would fill the object."""
    live = service(selector={"app": "a"})
    live["metadata"]["labels"] = {}
    live["metadata"]["managedFields"] = []
    for number in range(30):
        new = {**live, "metadata": {**live["metadata"], "labels": {**live["metadata"]["labels"], f"l{number}": "x"}}}
        new["metadata"]["managedFields"] = after_update(live, new, manager(f"m{number}", f"2026-01-01T00:00:{number:02}Z"), LISTS)
        live = new
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert set(names) == {"ancient-changes", *(f"m{number}" for number in range(21, 30))}
    assert owned(live, "ancient-changes") == {f".metadata.labels.l{number}" for number in range(21)}


def test_owner_references_are_whole() -> None:
    """Of a reference no part makes sense without the rest."""
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"}
    config = service()
    config["metadata"]["ownerReferences"] = [reference]
    live = apply(None, config, manager("one"), LISTS, force=False)
    other = service()
    other["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
    with pytest.raises(FieldConflict) as conflict:
        apply(live, other, manager("two"), LISTS, force=False)
    assert conflict.value.causes == [('"one"', '.metadata.ownerReferences[uid="1"]')]
    more = service()
    more["metadata"]["ownerReferences"] = [{**reference, "name": "b", "uid": "2"}]
    both = apply(live, more, manager("two"), LISTS, force=False)
    assert [one["uid"] for one in both["metadata"]["ownerReferences"]] == ["1", "2"]


def test_true_is_not_one() -> None:
    """A change from 1 to true is a change, though Python takes them for equal."""
    assert not same({"spec": {"a": 1}}, {"spec": {"a": True}})
    assert same({"spec": {"a": 1}}, {"spec": {"a": 1}})
