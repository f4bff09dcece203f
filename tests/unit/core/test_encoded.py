"""Resources as bytes: what is hand-assembled must be what protobuf reads."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tulle.core.encoded import encode, encode_json
from tulle.core.model.name import Name
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2


@given(st.text(min_size=1), st.binary(max_size=1000), st.lists(st.text(min_size=1), max_size=3))
def test_protobuf_reads_what_is_assembled_by_hand(name: str, value: bytes, aliases: list[str]) -> None:
    """Envoy would refuse, or worse misread, every resource."""
    encoded = encode("type.googleapis.com/x", name, value, aliases=tuple(aliases))
    resource = discovery_pb2.Resource.FromString(encoded.resource)
    assert (resource.name, resource.version, list(resource.aliases)) == (name, encoded.version, aliases)
    assert resource.resource.type_url == "type.googleapis.com/x"
    assert resource.resource.value == value
    assert encoded.value == value


def test_equal_content_is_equal_and_other_content_is_not() -> None:
    """Unchanged resources would be sent again, or changed ones not at all."""
    assert encode("t", "a", b"1") == encode("t", "a", b"1")
    assert encode("t", "a", b"1") != encode("t", "a", b"2")
    assert encode("t", "a", b"1") != encode("t", "b", b"1")
    assert encode("t", "a", b"1").version != encode("t", "a", b"2").version


def test_json_rows_come_back() -> None:
    """The node could not read the names that it is sent."""
    row = Name(hostname="a.b.svc.cluster.local", name="a", namespace="b", addresses=("240.240.0.1",))
    assert msgspec.json.decode(encode_json("t", row.hostname, row).value, type=Name) == row
