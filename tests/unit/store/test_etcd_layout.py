"""Where things lie in etcd, and what names a cluster; the rest is shown with a real etcd (tests/conformance/store)."""

from __future__ import annotations

import pytest

from tulle.control.store.etcd_cluster import Place, parse
from tulle.control.store.etcd_layout import Layout, decode_past, encode_past
from tulle.kit.errors import Refused
from tulle.ports import Cause, Key


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("etcd://a:1", Place(("a:1",), "/tulle/", False)),
        ("etcd://a,b:22/mesh", Place(("a:2379", "b:22"), "/mesh/", False)),
        ("etcds://10.0.0.1:1,[fd00::1]:2,[::1]/a/b/", Place(("10.0.0.1:1", "[fd00::1]:2", "[::1]:2379"), "/a/b/", True)),
    ],
)
def test_addresses(url: str, place: Place) -> None:
    """A control plane would talk to another cluster, or keep its objects elsewhere."""
    assert parse(url) == place


@pytest.mark.parametrize(
    "url", ["etcd://", "etcd://a:x", "http://a:1", "etcd://a:1,", "etcd://u:p@a:1", "etcd://a:70000", "etcd://a?b"]
)
def test_what_is_no_address(url: str) -> None:
    """A mistyped address must be named, with what is needed."""
    with pytest.raises(Refused, match="needed etcd://HOST:PORT"):
        parse(url)


KEYS = [Key("services", "default", "a"), Key("gatewayclasses.gateway.networking.k8s.io", "", "tulle"), Key("_x", "", "a/b/c")]


@pytest.mark.parametrize("key", KEYS)
def test_keys_come_back(key: Key) -> None:
    """An object would be found under another name; a history under another object."""
    layout = Layout("/tulle/")
    assert layout.place(layout.key(key)) == key
    past = layout.new_past(key, 1234.567)
    assert layout.place_of_past(past) == key
    assert layout.time_of_past(past) == 1234.567
    assert layout.mark <= layout.key(key) < layout.end


def test_ranges_hold_what_they_should() -> None:
    """A list of a namespace would have another's objects, whose name only begins alike."""
    layout = Layout("/tulle/")
    start, end = layout.objects("services", "default")
    inside = [Key("services", "default", "a"), Key("services", "default", "zz")]
    outside = [Key("services", "default-2", "a"), Key("services", "", "a"), Key("service", "default", "a")]
    assert all(start <= layout.key(key) < end for key in inside)
    assert not any(start <= layout.key(key) < end for key in outside)


def test_a_change_of_the_past_comes_back() -> None:
    """What a rollback puts back would not be what was there."""
    cause = Cause("anna", "192.0.2.1", 12.5, "update")
    key = KEYS[0]
    bodies: dict[bytes | None, object] = {None: None, b'{"a":"\xc3\xbc"}': {"a": "ü"}, b'{"a":2}': {"a": 2}, b"{}": {}}
    bodies[b'{"a":[]}'] = {"a": []}
    for previous, body in ((b'{"a":"\xc3\xbc"}', b'{"a":2}'), (None, b"{}"), (b'{"a":[]}', None)):
        change = decode_past(key, 7, encode_past(previous, body, cause))
        assert (change.previous, change.body) == (bodies[previous], bodies[body])
        assert (change.key, change.revision, change.cause) == (key, 7, cause)
