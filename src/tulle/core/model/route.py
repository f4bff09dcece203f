"""Routes: which requests go where, and what happens to them on the way. Order within a virtual host decides."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey
from tulle.kit.problem import Ref


class MatchKind(StrEnum):
    """How a text is compared. SEGMENTS: a path prefix that ends at a `/` (the Gateway API's PathPrefix)."""

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"
    REGEX = "regex"
    PRESENT = "present"


class TextMatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A comparison; regexes are RE2 and match the whole text, as Envoy's do."""

    kind: MatchKind
    value: str = ""
    ignore_case: bool = False


class NamedMatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A header or query parameter by name; `invert` makes it match where the text does not (or is absent)."""

    name: str
    match: TextMatch
    invert: bool = False


class RouteMatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of what is named must hold; an empty match holds for every request. `method` and others are header matches."""

    path: TextMatch | None = None
    headers: tuple[NamedMatch, ...] = ()
    query: tuple[NamedMatch, ...] = ()


class WeightedDestination(msgspec.Struct, frozen=True, omit_defaults=True):
    """A share of a route's requests: `weight` relative to the sum over the route."""

    destination: DestinationKey
    weight: int = 1


class Delay(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold `percent` (0 to 100) of the requests for `duration` seconds before they go on."""

    duration: float
    percent: float = 100.0


class Abort(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer `percent` (0 to 100) of the requests with `status` without asking anybody."""

    status: int
    percent: float = 100.0


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retry up to `attempts` more times on the Envoy conditions in `on`; `per_try_timeout` in seconds, 0 for none.

    `statuses` are response codes that are retried too (`retriable-status-codes`).
    """

    attempts: int
    on: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    per_try_timeout: float = 0.0


# What a route gets that says nothing of retries: Istio's defaults.
DEFAULT_RETRY = Retry(
    attempts=2,
    on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"),
    statuses=(503,),
)


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The object and field that caused a row of the model, for `explain` and for people who read a route's name."""

    ref: Ref
    path: str = ""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule: the first route whose `match` holds decides.

    A route without `destinations` answers `status` itself (500 for a broken backend, as the Gateway API says). `timeout` is
    seconds, 0 for none. `name` is shown in access logs.
    """

    name: str = ""
    match: RouteMatch = RouteMatch()
    destinations: tuple[WeightedDestination, ...] = ()
    status: int = 0
    timeout: float = 0.0
    retry: Retry | None = DEFAULT_RETRY
    delay: Delay | None = None
    abort: Abort | None = None
    origin: Origin | None = None


class VirtualHost(msgspec.Struct, frozen=True, omit_defaults=True):
    """Routes for a set of `domains` (as they stand in `:authority`, with and without port). `name` is unique in its table.

    `passthrough`: send what arrives to where it was going (only in sidecars: hosts that the mesh does not know).
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    passthrough: bool = False


class RouteTableKey(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Names a table of virtual hosts.

    For sidecars: `port` and the callers' `namespace` (short names resolve in it): `9080.default`. For gateways: the bound
    `port` and the gateway workload (`namespace/name`): `http.8080.tulle-system.ingressgateway`. Port 0 is the forward
    proxy of `proxy` capture, which has the services of all ports.
    """

    port: int
    namespace: str
    gateway: str = ""

    @property
    def name(self) -> str:
        """The Envoy RouteConfiguration's name; no `/` in it, for VHDS separates its names by one."""
        if self.gateway:
            return f"http.{self.port}.{self.gateway.replace('/', '.')}"
        return f"{self.port}.{self.namespace}"

    def host_resource(self, virtual_host: str) -> str:
        """The VHDS resource name of a virtual host in this table."""
        return f"{self.name}/{virtual_host}"
