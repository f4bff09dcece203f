"""A configuration resource as bytes: serialised once, hashed once, then shared by every proxy that is sent it.

`envoy/` makes these, `xds/` compares `version`s and sends `resource` as it is, between the control plane and a node as between
a node and its Envoy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tulle.kit.wire import field, fields


class Encoded(msgspec.Struct, frozen=True):
    """One resource.

    `version` is a hash of the content; `resource` the serialised `envoy.service.discovery.v3.Resource` that wraps it (delta),
    `any` the serialised `google.protobuf.Any` (state of the world). `refs` are the (type URL, name) pairs that a proxy will
    ask for because of this resource: a cluster's endpoints, a listener's routes. They decide what must be acknowledged
    before what points to this resource may be sent.
    """

    type_url: str
    name: str
    version: str
    any: bytes
    resource: bytes
    refs: tuple[tuple[str, str], ...] = ()

    def __eq__(self, other: object) -> bool:
        """By hash: equal content is equal, which is what stops propagation in `flow`."""
        return isinstance(other, Encoded) and (self.version, self.name, self.type_url, self.refs) == (
            other.version,
            other.name,
            other.type_url,
            other.refs,
        )

    def __hash__(self) -> int:
        return hash((self.type_url, self.name, self.version))

    def __repr__(self) -> str:
        """Without the content, which may be a key."""
        return f"Encoded({self.type_url.rpartition('.')[2]} {self.name} {self.version})"

    @property
    def value(self) -> bytes:
        """The serialised message itself, taken out of `any`."""
        found: bytes = dict(fields(self.any)).get(2, b"")
        return found


def encode(
    type_url: str,
    name: str,
    value: bytes,
    refs: tuple[tuple[str, str], ...] = (),
    aliases: tuple[str, ...] = (),
) -> Encoded:
    """Wrap a serialised message. `value` must be serialised deterministically: its hash is the version.

    Field numbers: `google.protobuf.Any` type_url=1 value=2; `envoy.service.discovery.v3.Resource` version=1 resource=2
    name=3 aliases=4.
    """
    version = hashlib.sha256(value).hexdigest()[:16]
    wrapped = field(1, type_url.encode()) + field(2, value)
    resource = field(1, version.encode()) + field(2, wrapped) + field(3, name.encode())
    resource += b"".join(field(4, alias.encode()) for alias in aliases)
    return Encoded(type_url=type_url, name=name, version=version, any=wrapped, resource=resource, refs=refs)


def encode_json(type_url: str, name: str, row: Any) -> Encoded:
    """Wrap a model row as JSON bytes: for the types that only tulle's own programs read."""
    return encode(type_url, name, msgspec.json.encode(row, order="deterministic"))


class Published(msgspec.Struct, frozen=True):
    """What one revision changed, layer by layer: layer → type URL → name → the new resource, or None where it went.

    A layer is a set of resources that several proxies share: `mesh` (destinations, endpoints, names), `namespace/NS` (outbound
    listeners and route tables of that namespace's sidecars), `workload/NS/NAME` (what only one proxy has). `proxies` are
    those whose own object became another, which may say that another node runs them.
    """

    revision: int
    changed: Mapping[str, Mapping[str, Mapping[str, Encoded | None]]]
    proxies: frozenset[str] = frozenset()


class Source(Protocol):
    """Where an xDS server takes resources from: the pipeline in the control plane, the cache in a node."""

    @property
    def revision(self) -> int:
        """The revision that the tables show now."""
        ...

    def layers(self, proxy: str) -> tuple[str, ...]:
        """The layers that a proxy (by id) sees; empty where it is not known. Of resources with one name the last counts."""
        ...

    def table(self, layer: str, type_url: str) -> Mapping[str, Encoded]:
        """The resources of a layer and type by name. Never changed in place: a new revision has a new mapping."""
        ...
