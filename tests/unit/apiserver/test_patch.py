"""The patch languages, by the examples of their standards and by what kubectl sends."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api.registry import kind_of_resource
from tulle.control.apiserver.lists import strategic
from tulle.control.apiserver.patch import BadPatch, json_patch, merge_patch, strategic_merge_patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    """RFC 7386's own table: `kubectl patch --type=merge`, label and annotate would change something else."""
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("target", "operations", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["a", "b", "c"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "c"]}),
        ({"foo": "bar"}, [{"op": "replace", "path": "/foo", "value": 1}], {"foo": 1}),
        ({"foo": {"a": 1}, "bar": {}}, [{"op": "move", "from": "/foo/a", "path": "/bar/b"}], {"foo": {}, "bar": {"b": 1}}),
        ({"foo": {"a": 1}}, [{"op": "copy", "from": "/foo", "path": "/bar"}], {"foo": {"a": 1}, "bar": {"a": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}, {"op": "remove", "path": "/m~0n"}], {"a/b": 1}),
        ({"foo": "bar"}, [{"op": "replace", "path": "", "value": {"x": 1}}], {"x": 1}),
    ],
)
def test_json_patch(target: Any, operations: Any, result: Any) -> None:
    """RFC 6902's examples: `kubectl patch --type=json` would change something else."""
    before = repr(target)
    assert json_patch(target, operations) == result
    assert repr(target) == before


@pytest.mark.parametrize(
    ("operations", "rejected"),
    [
        ({"op": "add"}, False),
        ([{"op": "add", "path": "/a"}], False),
        ([{"op": "grow", "path": "/a", "value": 1}], False),
        ([{"op": "add", "path": "a", "value": 1}], False),
        ([{"op": "remove", "path": "/absent"}], True),
        ([{"op": "replace", "path": "/list/7", "value": 1}], True),
        ([{"op": "add", "path": "/list/x", "value": 1}], True),
        ([{"op": "test", "path": "/text", "value": "other"}], True),
        ([{"op": "add", "path": "/text/deep", "value": 1}], True),
        ([{"op": "move", "from": "/absent", "path": "/a"}], True),
        ([{"op": "remove", "path": "/text/deep"}], True),
        ([{"op": "add", "path": "", "value": None}, {"op": "move", "from": "/a", "path": ""}], True),
    ],
)
def test_json_patch_mistakes(operations: Any, rejected: bool) -> None:
    """A patch that does not fit must change nothing, and must say whether the patch or the object is at fault."""
    with pytest.raises(BadPatch) as bad:
        json_patch({"text": "t", "list": [1]}, operations)
    assert bad.value.rejected is rejected


def service(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"ports": list(ports), "selector": {"app": "a"}}, "metadata": {"finalizers": ["x", "y"]}}


HTTP, ADMIN = {"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 81}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"spec": {"ports": [{"port": 80, "targetPort": 9}]}}, [{**HTTP, "targetPort": 9}, ADMIN]),
        ({"spec": {"ports": [{"port": 81, "$patch": "delete"}]}}, [HTTP]),
        ({"spec": {"ports": [{"port": 82, "name": "new"}]}}, [HTTP, ADMIN, {"port": 82, "name": "new"}]),
        ({"spec": {"ports": [{"$patch": "replace"}, {"port": 9}]}}, [{"port": 9}]),
        ({"spec": {"$setElementOrder/ports": [{"port": 81}, {"port": 80}], "ports": []}}, [ADMIN, HTTP]),
        ({"spec": {"ports": [{"port": 80, "targetPort": None}]}}, [{"name": "http", "port": 80}, ADMIN]),
        ({"spec": {"ports": None}}, None),
    ],
)
def test_strategic_merge_patch_of_ports(patch: Any, expected: Any) -> None:
    """What `kubectl apply` sends for a changed Service: ports merge by number, and go by directive."""
    kind = kind_of_resource("services")
    assert kind is not None
    result = strategic_merge_patch(service(HTTP, ADMIN), patch, strategic(kind))
    assert result["spec"].get("ports") == expected
    assert result["spec"]["selector"] == {"app": "a"}


def test_strategic_merge_patch_of_sets_and_maps() -> None:
    """Finalizers are added and taken out one by one; a map can be replaced or kept in part."""
    kind = kind_of_resource("services")
    assert kind is not None
    lists = strategic(kind)
    live = service(HTTP)
    added = strategic_merge_patch(live, {"metadata": {"finalizers": ["y", "z"]}}, lists)
    assert added["metadata"]["finalizers"] == ["x", "y", "z"]
    less = strategic_merge_patch(live, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, lists)
    assert less["metadata"]["finalizers"] == ["y"]
    replaced = strategic_merge_patch(live, {"spec": {"selector": {"$patch": "replace", "b": "c"}}}, lists)
    assert replaced["spec"]["selector"] == {"b": "c"}
    kept = strategic_merge_patch(live, {"spec": {"$retainKeys": ["ports"], "type": "ClusterIP"}}, lists)
    assert kept["spec"] == {"ports": [HTTP], "type": "ClusterIP"}
    assert live == service(HTTP)


@pytest.mark.parametrize("patch", [[], {"spec": {"$patch": "grow"}}, {"spec": {"ports": [{"name": "no port"}]}}])
def test_strategic_merge_patch_mistakes(patch: Any) -> None:
    """A patch that cannot be meant must not be guessed at."""
    kind = kind_of_resource("services")
    assert kind is not None
    with pytest.raises(BadPatch):
        strategic_merge_patch(service(HTTP), patch, strategic(kind))
