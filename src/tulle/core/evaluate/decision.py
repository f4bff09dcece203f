"""What becomes of a request."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Route


class Outcome(StrEnum):
    """FORWARD: to `destination`. RESPOND: the proxy answers `status`. PASSTHROUGH: to where it was going."""

    FORWARD = "forward"
    RESPOND = "respond"
    PASSTHROUGH = "passthrough"
    NO_ROUTE = "no-route"


class Passed(msgspec.Struct, frozen=True):
    """A route that came before the one that decides, and why it is not for this request."""

    route: str
    because: str


class Share(msgspec.Struct, frozen=True):
    """A destination and its part of the route's requests, from 0 to 1."""

    destination: DestinationKey
    part: float


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a proxy does with a request.

    `virtual_host` and `domain` say by which name it was found, `route` which rule decided, `passed` which rules before it did
    not hold. `destination` is the one that chance gives, `shares` are all that it might have given. `status` is that of the
    proxy's own answer. `path` and `authority` are what the destination sees. Faults for a part of the requests stand in `route`.
    """

    outcome: Outcome
    virtual_host: str = ""
    domain: str = ""
    route: Route | None = None
    destination: DestinationKey | None = None
    shares: tuple[Share, ...] = ()
    status: int = 0
    authority: str = ""
    path: str = ""
    passed: tuple[Passed, ...] = ()
