"""What crosses an ADS stream, as small structs, and the bytes they stand for.

Requests are parsed with Envoy's own types; responses are put together from bytes that were serialised and hashed once
(`core.encoded`), so that a thousand streams cost a thousand concatenations and no serialisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tulle.core.encoded import Encoded
from tulle.core.type_urls import VIRTUAL_HOST
from tulle.kit.wire import field
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.xds.refs import refs_of

WILDCARD = "*"


class Request(msgspec.Struct, frozen=True):
    """A client's delta request. `nonce` is empty unless it answers a response; `error` is why that was refused, or None.

    `versions` (name → version) is what the client holds already; only the first request of a type on a stream may say so.
    """

    type_url: str
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    versions: Mapping[str, str] = {}
    nonce: str = ""
    error: str | None = None


class Send(msgspec.Struct, frozen=True):
    """A delta response to send. `removed` were there and are to be forgotten; `absent` were asked for and do not exist."""

    type_url: str
    nonce: str
    revision: int
    resources: tuple[Encoded, ...] = ()
    removed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def payload(self) -> bytes:
        """The serialised `DeltaDiscoveryResponse`: system_version_info=1 resources=2 type_url=4 nonce=5 removed_resources=6.

        What is absent is a removed resource; but a virtual host is a `Resource` with its name as alias and no body, for that
        is the answer that Envoy's on-demand filter understands.
        """
        parts = [field(1, str(self.revision).encode())]
        parts += [field(2, resource.resource) for resource in self.resources]
        removed = self.removed
        if self.type_url == VIRTUAL_HOST:
            parts += [field(2, field(3, name.encode()) + field(4, name.encode())) for name in self.absent]
        else:
            removed += self.absent
        parts += [field(4, self.type_url.encode()), field(5, self.nonce.encode())]
        parts += [field(6, name.encode()) for name in removed]
        return b"".join(parts)


def parse_request(data: bytes) -> tuple[str, Request]:
    """The `node.id` (empty after the first request of a stream) and the request; `google.protobuf` errors where malformed."""
    message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    request = Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message or "refused" if message.HasField("error_detail") else None,
    )
    return message.node.id, request


class Response(msgspec.Struct, frozen=True):
    """A response as a client sees it: new or changed `resources`; `removed` are gone, or never were.

    `nonce` is what the answer has to name. The resources carry the `refs` that can be read off them.
    """

    type_url: str
    nonce: str
    revision: int
    resources: tuple[Encoded, ...]
    removed: tuple[str, ...]


def parse_response(data: bytes) -> Response:
    """Take a serialised `DeltaDiscoveryResponse` apart; the resources keep their bytes. `ValueError` where malformed."""
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
    resources: list[Encoded] = []
    removed = list(message.removed_resources)
    for resource in message.resources:
        if not resource.HasField("resource"):
            removed.append(resource.name)
            continue
        resources.append(
            Encoded(
                type_url=message.type_url,
                name=resource.name,
                version=resource.version,
                any=resource.resource.SerializeToString(deterministic=True),
                resource=resource.SerializeToString(deterministic=True),
                refs=refs_of(message.type_url, resource.resource.value),
            )
        )
    revision = message.system_version_info
    return Response(
        message.type_url, message.nonce, int(revision) if revision.isdecimal() else 0, tuple(resources), tuple(removed)
    )
