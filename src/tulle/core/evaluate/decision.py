"""What becomes of a request."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import HeaderEdit, Route


class Outcome(StrEnum):
    """FORWARD: to `destination`. REDIRECT, RESPOND: the proxy answers. PASSTHROUGH: to where it was going."""

    FORWARD = "forward"
    REDIRECT = "redirect"
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

    `virtual_host` and `domain` say by which name it was found, `route` which rule decided, `passed` which rules before it did not
    hold. `asks` would be asked first whether the request may pass, and all else is said of one that may. `destination` is the one
    that chance gives, `shares` are all that it might have given. `status` is that of the proxy's own answer (a call of gRPC gets
    200 with the status `grpc`), `location` where it sends the caller. `path`, `authority` and `headers` are what the destination
    sees (of the headers, what routes have to do with), `response` the changes of the answer's headers, in their order. What else
    happens (faults and mirrors for a part of the requests, time limits, retries) stands in `route`.
    """

    outcome: Outcome
    virtual_host: str = ""
    domain: str = ""
    route: Route | None = None
    asks: DestinationKey | None = None
    destination: DestinationKey | None = None
    shares: tuple[Share, ...] = ()
    status: int = 0
    grpc: int | None = None
    authority: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    response: tuple[HeaderEdit, ...] = ()
    location: str = ""
    passed: tuple[Passed, ...] = ()
