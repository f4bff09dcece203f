"""Bodies and patches from outside: whatever they are, they are applied rightly or refused with a sentence, and never a crash."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.api.registry import kind_for
from tulle.control.apiserver import fields
from tulle.control.apiserver.apply import BadConfiguration, FieldConflict, Manager, after_update, apply, same
from tulle.control.apiserver.deletion import deletion
from tulle.control.apiserver.document import Body
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.lists import applied, strategic
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.patch import BadPatch, equal, json_patch, merge_patch, strategic_merge_patch
from tulle.control.apiserver.routes import _change
from tulle.control.apiserver.target import Target, Writing
from tulle.control.store.memory import MemoryStore

_service, _route, _gateway = (
    kind_for("", "Service"),
    kind_for("networking.istio.io", "VirtualService"),
    kind_for("gateway.networking.k8s.io", "Gateway"),
)
assert _service is not None
assert _route is not None
assert _gateway is not None
SERVICE, ROUTE, GATEWAY = _service, _route, _gateway

# Names that mean something to the code under test, so that the paths behind them are reached.
NAMES = st.sampled_from(
    [
        *("a", "b", "metadata", "spec", "status", "ports", "port", "protocol", "name", "selector", "listeners", "conditions"),
        *("type", "finalizers", "ownerReferences", "uid", "labels", "annotations", "managedFields", "secrets", "namespace"),
        *("$patch", "$retainKeys", "$setElementOrder/ports", "$deleteFromPrimitiveList/finalizers", "~", "/", "", "é"),
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats(-10, 10) | st.sampled_from(["", "x", "TCP", "replace", "delete"])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=14)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=4)
POINTERS = st.lists(
    NAMES.map(lambda name: name.replace("~", "~0").replace("/", "~1")) | st.sampled_from(["0", "1", "-", "01", "²"]), max_size=4
).map(lambda steps: "".join(f"/{step}" for step in steps)) | st.sampled_from(["a", "/~", "//"])
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "jump"]), "path": POINTERS},
    optional={"from": POINTERS | st.integers(), "value": JSON},
)


def answered(call: Callable[[], Any], *refusals: int) -> Any:
    """What the call gives, or the `Denial` that it raises, which must be one of these."""
    try:
        return call()
    except Denial as denial:
        refused = denial
    assert refused.http in refusals
    return refused


@settings(deadline=None)
@given(JSON, st.lists(OPERATIONS | JSON, max_size=6) | JSON)
def test_a_json_patch_is_applied_or_refused(target: Any, operations: Any) -> None:
    """All of it or nothing, and what it was given stays as it was."""
    before = copy.deepcopy(target)
    with contextlib.suppress(BadPatch):
        json_patch(target, operations)
    assert equal(target, before)


@settings(deadline=None)
@given(JSON, JSON)
def test_a_json_patch_can_replace_anything_by_anything(target: Any, value: Any) -> None:
    """The simplest patch of all, and a test of the result."""
    operations = [{"op": "replace", "path": "", "value": value}, {"op": "test", "path": "", "value": value}]
    assert equal(json_patch(target, operations), value)


@settings(deadline=None)
@given(JSON, JSON)
def test_a_merge_patch_is_the_same_twice(target: Any, patch: Any) -> None:
    """Clients repeat a patch whose answer they did not get."""
    before = copy.deepcopy(target)
    once = merge_patch(target, patch)
    assert equal(merge_patch(once, patch), once)
    assert equal(target, before)


@settings(deadline=None)
@given(OBJECTS, OBJECTS | JSON, st.sampled_from([SERVICE, ROUTE]))
def test_a_strategic_merge_patch_is_applied_or_refused(target: Any, patch: Any, kind: Any) -> None:
    """kubectl's own language, with its directives, by whoever writes it."""
    before = copy.deepcopy(target)
    with contextlib.suppress(BadPatch):
        strategic_merge_patch(target, patch, strategic(kind))
    assert equal(target, before)


ONE = Manager("one", "v1", "", "2026-01-01T00:00:00Z")
TWO = Manager("two", "v1", "", "2026-01-01T00:00:01Z")


def _as_object(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body.get("metadata")
    named = {**(metadata if isinstance(metadata, dict) else {}), "name": "x"}
    named.pop("managedFields", None)
    return {**body, "metadata": named}


@settings(deadline=None)
@given(OBJECTS, OBJECTS, st.sampled_from([SERVICE, ROUTE, GATEWAY]))
def test_an_apply_holds_what_it_says(live: Any, config: Any, kind: Any) -> None:
    """Everything that was applied is there afterwards, the same again changes nothing, and nothing else was touched."""
    lists = applied(kind)
    live, config = _as_object(live), _as_object(config)
    before = copy.deepcopy((live, config))
    try:
        done = apply(live, config, ONE, lists, force=True)
    except BadConfiguration:
        return
    assert equal((live, config)[0], before[0])
    assert equal((live, config)[1], before[1])
    wanted = fields.leaves(fields.owned_part(config), lists)
    found = fields.leaves(fields.owned_part(done), lists)
    for path, value in wanted.items():
        if value == {} and path not in found:  # an empty map says that it is there, and others have filled it
            assert any(other[: len(path)] == path for other in found)
        else:
            assert value is fields.ITEM or equal(found[path], value)
    assert same(apply(done, config, ONE, lists, force=False), done)


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([SERVICE, ROUTE, GATEWAY]))
def test_what_was_applied_can_be_taken_back(config: Any, kind: Any) -> None:
    """An apply of nothing leaves nothing of what the same manager applied."""
    lists = applied(kind)
    config = _as_object(config)
    try:
        done = apply({"metadata": {"name": "x"}}, config, ONE, lists, force=False)
    except BadConfiguration:
        return
    bare = apply(done, _as_object({}), ONE, lists, force=False)
    kept = fields.leaves(fields.owned_part(bare), lists)
    assert not kept.keys() & {path for path in fields.leaves(fields.owned_part(config), lists) if len(path) > 1}


@settings(deadline=None)
@given(OBJECTS, OBJECTS, OBJECTS, JSON, st.sampled_from([SERVICE, ROUTE, GATEWAY]))
def test_managed_fields_take_anything(live: Any, new: Any, config: Any, junk: Any, kind: Any) -> None:
    """They come back from clients; whatever they hold, later writes must work."""
    lists = applied(kind)
    live, new = _as_object(live), _as_object(new)
    live["metadata"]["managedFields"] = new["metadata"]["managedFields"] = junk
    new["metadata"]["managedFields"] = after_update(live, new, TWO, lists)
    try:
        apply(new, _as_object(config), ONE, lists, force=False)
    except (FieldConflict, BadConfiguration):
        return


@settings(deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bodies_are_read_as_json_or_refused(data: bytes) -> None:
    """The same value as any other reader gets, and never a value that cannot be written again."""
    value = answered(lambda: Body(data).value, 400)
    if isinstance(value, Denial):
        return
    assert equal(value, json.loads(data))
    json.dumps(value, allow_nan=False).encode()


@pytest.mark.parametrize(
    "data", [b'{"a":1e999}', b'{"a":NaN}', b"\xff{}", b'{"a":-Infinity}', b"[" * 100_000, b'{"a":"\x00"}', b""]
)
def test_bodies_that_are_none(data: bytes) -> None:
    """What cannot be stored is refused at the door."""
    with pytest.raises(Denial) as refused:
        Body(data)
    assert refused.value.http == 400


def test_numbers_and_texts_that_other_readers_know() -> None:
    """Beyond 64 bits a number is one with a point, as Go reads it; half a character becomes the replacement character."""
    assert Body(b'{"a":12345678901234567890123}').value == {"a": 1.2345678901234568e22}
    assert Body(b'{"a":9223372036854775807,"b":-9223372036854775808}').value == {"a": 2**63 - 1, "b": -(2**63)}
    assert Body(rb'{"a":"x\ud800y","\udc00":"\ud83d\ude00"}').value == {"a": "x\ufffdy", "\ufffd": "\U0001f600"}


BASES: dict[str, dict[str, Any]] = {
    "services": {"spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "name": "http"}]}},
    "virtualservices.networking.istio.io": {"spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}},
    "gateways.gateway.networking.k8s.io": {
        "spec": {"gatewayClassName": "tulle", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}
    },
}
TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([SERVICE, ROUTE, GATEWAY]),
    st.sampled_from(["create", "update", "apply", *TYPES]),
    st.lists(OPERATIONS, max_size=4) | OBJECTS | JSON,
    st.sampled_from(["", "status"]),
)
def test_whatever_is_written_is_written_or_refused(kind: Any, how: str, value: Any, subresource: str) -> None:
    """The whole way of a write, from the body to the store: a status and a sentence, or an object that reads back."""

    async def write() -> None:
        store = MemoryStore()
        objects = Objects(store, lambda: 1_700_000_000.0)
        await objects.prepare()
        by = Writing("fuzz", validation="Warn")
        at = Target(kind, kind.versions[0], "default", "x", subresource if how != "create" else "")
        base = copy.deepcopy(BASES[kind.resource])
        await objects.create(Target(kind, kind.versions[0], "default"), {**base, "metadata": {"name": "x"}}, by)
        refused = None
        try:
            if how == "create":
                await objects.create(Target(kind, kind.versions[0], "default"), value, by)
            elif how == "update":
                await objects.update(at, value, by)
            elif how == "apply":
                await objects.apply(at, value, by)
            else:
                await objects.patch(at, _change(how, kind, value), by)
        except Denial as denial:
            refused = denial
        assert refused is None or (refused.http in (400, 409, 413, 415, 422) and len(refused.body["message"]) > 10)
        for stored in (await store.list(kind.resource))[0]:
            assert json.loads(stored.json)["metadata"]["name"]
        await store.close()

    asyncio.run(write())


@settings(deadline=None)
@given(JSON)
def test_delete_options_take_anything(value: Any) -> None:
    """A delete is understood or refused."""
    answered(lambda: deletion(value, {}), 400, 422)
