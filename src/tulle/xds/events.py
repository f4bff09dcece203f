"""What happens to an ADS stream (events) and what is to be done about it (actions), beside the messages themselves."""

from __future__ import annotations

import msgspec

from tulle.core.encoded import Published
from tulle.xds.messages import Request, Send
from tulle.xds.status import Nack


class Changed(msgspec.Struct, frozen=True):
    """Event: the source moved."""

    published: Published


class Overdue(msgspec.Struct, frozen=True):
    """Event: the proxy had long enough to answer, and to subscribe to what it was pointed at (`DeltaStream.outstanding`).

    Envoy answers no cluster update while any cluster warms, which may be for ever (a name that does not resolve). The rest
    goes on without; the type that is late gets nothing more until it is answered, and the proxy is not in sync until then.
    """


class Settled(msgspec.Struct, frozen=True):
    """Event: a proxy that came back had time to say all that it has and wants (`DeltaStream.recovering`)."""


class Acked(msgspec.Struct, frozen=True):
    """Action: tell that the proxy took a response made at `revision`."""

    type_url: str
    revision: int


class Refused(msgspec.Struct, frozen=True):
    """Action: tell that the proxy refused a response."""

    nack: Nack


class Subscribed(msgspec.Struct, frozen=True):
    """Action: tell that the proxy changed what it wants; `*` stands for all of a type."""

    type_url: str
    subscribe: tuple[str, ...]
    unsubscribe: tuple[str, ...]


class Synced(msgspec.Struct, frozen=True):
    """Action: tell that everything of `revision` is answered."""

    revision: int


Event = Request | Changed | Overdue | Settled
Action = Send | Acked | Refused | Subscribed | Synced
