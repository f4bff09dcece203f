"""The state-of-the-world variant of ADS, which gRPC's own `xds:///` resolver speaks: the delta stream in other words.

A request names everything that the client wants of a type, a response to a type of `FULL` has everything that the client is to
have. Both are turned into differences and handed to `DeltaStream`, so that the order, the gates and the waves are the same.
"""

from __future__ import annotations

import msgspec

from tulle.core.encoded import Encoded, Source
from tulle.core.type_urls import CLUSTER, LISTENER
from tulle.kit.wire import field
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.xds.events import Action, Changed, Overdue, Settled
from tulle.xds.messages import WILDCARD, Request, Send
from tulle.xds.status import TypeStatus
from tulle.xds.stream import DeltaStream

# Types whose responses hold everything: what is missing in one is gone. Of other types only what changed is sent.
FULL = frozenset({CLUSTER, LISTENER})


class SotwRequest(msgspec.Struct, frozen=True):
    """A client's request: all `names` that it wants of a type. `nonce` and `error` as in `messages.Request`."""

    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str | None = None


class SotwSend(msgspec.Struct, frozen=True):
    """A response to send."""

    type_url: str
    nonce: str
    revision: int
    resources: tuple[Encoded, ...]

    @property
    def payload(self) -> bytes:
        """The serialised `DiscoveryResponse`: version_info=1 resources=2 type_url=4 nonce=5."""
        parts = [field(1, str(self.revision).encode())]
        parts += [field(2, resource.any) for resource in self.resources]
        parts += [field(4, self.type_url.encode()), field(5, self.nonce.encode())]
        return b"".join(parts)


def parse_request(data: bytes) -> tuple[str, SotwRequest]:
    """The `node.id` (empty after the first request of a stream) and the request; `google.protobuf` errors where malformed."""
    message = discovery_pb2.DiscoveryRequest.FromString(data)
    error = message.error_detail.message or "refused" if message.HasField("error_detail") else None
    return message.node.id, SotwRequest(message.type_url, tuple(message.resource_names), message.response_nonce, error)


class _Type:
    """What the client wants of a type, what it has, and the nonce of the last response (an answer to another is stale)."""

    def __init__(self) -> None:
        self.wanted: frozenset[str] = frozenset()
        self.named = False
        self.has: dict[str, Encoded] = {}
        self.nonce = ""


class SotwStream:
    """The protocol of one stream; the interface of `DeltaStream`. Absence is always a fact here."""

    def __init__(self, source: Source, proxy: str) -> None:
        self.proxy = proxy
        self._delta = DeltaStream(source, proxy)
        self._types: dict[str, _Type] = {}

    @property
    def synced(self) -> int:
        """The latest revision with nothing outstanding."""
        return self._delta.synced

    @property
    def recovering(self) -> bool:
        """Never: a client of this variant says only what it wants, not what it has."""
        return False

    @property
    def held(self) -> bool:
        """Whether this waits for a proxy that the source does not know (yet)."""
        return self._delta.held

    @property
    def outstanding(self) -> tuple[str, ...]:
        """As in `DeltaStream`."""
        return self._delta.outstanding

    def has(self, type_url: str, name: str) -> str:
        """The version of a resource that the proxy has said it took; "" where it has said of none."""
        return self._delta.has(type_url, name)

    @property
    def refused(self) -> dict[tuple[str, str], str]:
        """As in `DeltaStream`."""
        return self._delta.refused

    def status(self) -> tuple[TypeStatus, ...]:
        """What each subscribed type stands at."""
        return self._delta.status()

    def feed(self, event: SotwRequest | Changed | Overdue | Settled) -> list[Action | SotwSend]:
        """What happened, and what is to be done about it."""
        if not isinstance(event, SotwRequest):
            return self._said(self._delta.feed(event))
        kind = self._types.setdefault(event.type_url, _Type())
        if event.nonce and event.nonce != kind.nonce:
            return []  # the client has yet to see the last response, and will say all of this again
        wanted = frozenset(event.names)
        kind.named = kind.named or bool(wanted)
        if not kind.named and event.type_url in FULL:
            wanted = frozenset({WILDCARD})
        more, less = wanted - kind.wanted, kind.wanted - wanted
        kind.wanted = wanted
        if WILDCARD not in wanted:
            for name in [name for name in kind.has if name not in wanted]:
                del kind.has[name]
        request = Request(event.type_url, tuple(sorted(more)), tuple(sorted(less)), nonce=event.nonce, error=event.error)
        return self._said(self._delta.feed(request))

    def _said(self, actions: list[Action]) -> list[Action | SotwSend]:
        said: list[Action | SotwSend] = []
        for action in actions:
            if isinstance(action, Send):
                said += self._send(action)
            else:
                said.append(action)
        return said

    def _send(self, send: Send) -> list[Action | SotwSend]:
        kind = self._types[send.type_url]
        for name in (*send.removed, *send.absent):
            kind.has.pop(name, None)
        kind.has.update((resource.name, resource) for resource in send.resources)
        resources = send.resources
        if send.type_url in FULL:
            resources = tuple(kind.has[name] for name in sorted(kind.has))
        elif not resources:
            # There is no way to say that one of these is gone, and nobody to answer.
            return self._said(self._delta.feed(Request(send.type_url, nonce=send.nonce)))
        kind.nonce = send.nonce
        return [SotwSend(send.type_url, send.nonce, send.revision, resources)]
