"""Routes: which requests go where, and what happens to them on the way. Order within a virtual host decides."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
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
    """All of what is named must hold; an empty match holds for every request. `method` and others are header matches.

    `percent`: of the requests, by chance. One number is drawn for a request, so that of two matches with 20 and 50 percent the
    first holds for a fifth, and the second, where the first does not, for three tenths.
    """

    path: TextMatch | None = None
    headers: tuple[NamedMatch, ...] = ()
    query: tuple[NamedMatch, ...] = ()
    percent: float = 100.0


class HeaderEdit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Changes to headers: `remove` first, then `set` overwrites and `add` appends (both name and value).

    A value is a template: `%%` stands for a percent sign, `%REQ(name)%` and its like for what Envoy knows of the request.
    """

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


NO_EDIT = HeaderEdit()


class Headers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Changes to the headers of a request on its way, and of its response."""

    request: HeaderEdit = NO_EDIT
    response: HeaderEdit = NO_EDIT


UNCHANGED = Headers()


class WeightedDestination(msgspec.Struct, frozen=True, omit_defaults=True):
    """A share of a route's requests: `weight` relative to the sum over the route.

    `headers` and `authority` (a new `:authority`) are for the requests that go there. Envoy edits by them first and by the
    route's after that, as under Istio: where both set a header, the route's value stands. `named_at`: it has no endpoints, but is
    the host that the call itself names, at this port.
    """

    destination: DestinationKey
    weight: int = 1
    headers: Headers = UNCHANGED
    authority: str = ""
    named_at: int = 0


class PathKind(StrEnum):
    """What of a path is replaced. PREFIX: what the route's match took (all, unless that is a prefix). REGEX: what matches."""

    FULL = "full"
    PREFIX = "prefix"
    REGEX = "regex"


class PathEdit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A new path; queries stay. For REGEX, `value` may name the groups of `pattern` as `\\1`."""

    kind: PathKind
    value: str
    pattern: str = ""


class Rewrite(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request is changed to before it goes on: another `:authority`, another path."""

    authority: str = ""
    path: PathEdit | None = None


class Redirect(msgspec.Struct, frozen=True, omit_defaults=True):
    """Send the caller elsewhere: what is empty stays as it was asked for, as does the authority's port with `port` 0.

    `own_port`: the port of the listener instead (the scheme's own, where `scheme` is set); `core.compile` puts its number into
    `port` where the route is placed.
    """

    scheme: str = ""
    host: str = ""
    port: int = 0
    own_port: bool = False
    path: PathEdit | None = None
    status: int = 301


class Mirror(msgspec.Struct, frozen=True, omit_defaults=True):
    """Send a copy of `percent` (0 to 100) of the requests here too, and drop the answers."""

    destination: DestinationKey
    percent: float = 100.0


class Cors(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which pages of other `origins` may call, and how. `max_age` in seconds.

    `forward_unmatched`: a preflight of another origin is the application's to answer. `echo`: allow the headers that a preflight
    asks for, whatever they are; to callers with credentials a wildcard says nothing.
    """

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: float | None = None
    credentials: bool = False
    forward_unmatched: bool = True
    echo: bool = False


class Delay(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold `percent` (0 to 100) of the requests for `duration` seconds before they go on."""

    duration: float
    percent: float = 100.0


class Abort(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer `percent` (0 to 100) of the requests with `status` without asking anybody; with `grpc` instead, if it is set."""

    status: int
    percent: float = 100.0
    grpc: int | None = None


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retry up to `attempts` more times on the Envoy conditions in `on`; `per_try_timeout` in seconds, 0 for none.

    `statuses` are response codes that are retried too (`retriable-status-codes`). Between tries it waits some of `backoff`
    seconds (0: Envoy's 25 ms), more each time, up to `longest` (0: ten times that). `elsewhere`: not to an endpoint that has
    failed this request already; `other_localities`: nor to its locality. `safe`: conditions that hold too, for methods that
    change nothing (GET, HEAD, OPTIONS; RFC 9110, 9.2.1).
    """

    attempts: int
    on: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    per_try_timeout: float = 0.0
    backoff: float = 0.0
    longest: float = 0.0
    elsewhere: bool = True
    other_localities: bool = False
    safe: tuple[str, ...] = ()


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests that carry a session go to the endpoint that began it. It is told in a `cookie`, or in a `header`.

    `path` and `lifetime` (seconds; 0: until the browser is closed) are the cookie's.
    """

    cookie: str = ""
    header: str = ""
    path: str = "/"
    lifetime: float = 0.0


# What a route gets that says nothing of retries: Istio's defaults, which repeat only what nobody has acted on. A sidecar that
# does not reach its application is a `connect-failure` too. What changes nothing is also repeated where an instance was lost
# with it; a sidecar that loses its application is a `reset` too.
DEFAULT_RETRY = Retry(
    attempts=2,
    on=("connect-failure", "refused-stream", "reset-before-request", "unavailable", "cancelled"),
    safe=("reset",),
)


# The largest body of a route's own answer, in bytes; Istio's number.
MOST_BODY = 1024 * 1024


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The object and field that caused a row of the model, for `explain` and for people who read a route's name."""

    ref: Ref
    path: str = ""


class RouteCounters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Under which names (`rate_limit.RouteLimited`) requests are counted: those of the whole route, those of one rule of it."""

    whole: str = ""
    rule: str = ""


UNCOUNTED = RouteCounters()


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule: the first route whose `match` holds decides.

    A route without `destinations` and `redirect` answers `status` and `body` itself (500 for a broken backend, as the Gateway
    API says). `timeout` and `idle_timeout` (with no byte in either direction) are seconds, 0 for none. `name` is shown in access
    logs. `limits` say where its requests are counted.
    """

    name: str = ""
    match: RouteMatch = RouteMatch()
    destinations: tuple[WeightedDestination, ...] = ()
    redirect: Redirect | None = None
    status: int = 0
    body: bytes = b""
    rewrite: Rewrite | None = None
    headers: Headers = UNCHANGED
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    auth: ExternalAuth | None = None
    timeout: float = 0.0
    idle_timeout: float = 0.0
    retry: Retry | None = DEFAULT_RETRY
    session: Session | None = None
    delay: Delay | None = None
    abort: Abort | None = None
    origin: Origin | None = None
    limits: RouteCounters = UNCOUNTED


class VirtualHost(msgspec.Struct, frozen=True, omit_defaults=True):
    """Routes for a set of `domains` (as they stand in `:authority`, with and without port). `name` is unique in its table.

    `passthrough`: send what arrives to where it was going (only in sidecars: hosts that the mesh does not know). `require_tls`: a
    request that did not come by TLS is sent there (301).
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    passthrough: bool = False
    require_tls: bool = False


def labels_digest(labels: tuple[tuple[str, str], ...]) -> str:
    """A short name for some labels."""
    return hashlib.sha256(repr(labels).encode()).hexdigest()[:8]


class RouteTableKey(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Names a table of virtual hosts.

    For sidecars: `port` and the callers' `namespace` (short names resolve in it): `9080.default`. For gateways: the bound
    `port` and the gateway workload (`namespace/name`): `http.8080.tulle-system.ingressgateway`. Port 0 is the forward
    proxy of `proxy` capture, which has the services of all ports. Where rules tell callers of one namespace apart by `labels`,
    those who have some of them have tables of their own: `9080.default.3f2a9c01`. `section` names a gateway's listener or server
    whose TLS ends there, for those have tables of their own too: `https.8443.https~shop~default.tulle-system.ingressgateway`.
    A `service` whose port is undeclared and known by its address has a table of its own, for all that is called there is its:
    `thing.default.svc.cluster.local:7777.default`. What is called at an address of the sidecar's own (`bind`) has one, too:
    `127.0.0.1_15002.default`.
    """

    port: int
    namespace: str
    gateway: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    section: str = ""
    service: str = ""
    bind: str = ""

    def __repr__(self) -> str:
        """As people read it in dumps of the model; sections and services are rare."""
        section = f", section={self.section!r}" if self.section else ""
        section += f", service={self.service!r}" if self.service else ""
        section += f", bind={self.bind!r}" if self.bind else ""
        where = f"port={self.port}, namespace={self.namespace!r}, gateway={self.gateway!r}, labels={self.labels!r}"
        return f"RouteTableKey({where}{section})"

    @property
    def name(self) -> str:
        """The Envoy RouteConfiguration's name; no `/` in it, for VHDS separates its names by one."""
        if self.section:
            section = self.section.replace("%", "%25").replace("/", "%2F")  # a person may name a port so
            return f"https.{self.port}.{section}.{self.gateway.replace('/', '.')}"
        if self.gateway:
            return f"http.{self.port}.{self.gateway.replace('/', '.')}"
        service = f"{self.service}:" if self.service else f"{self.bind.replace('/', '%2F')}_" if self.bind else ""
        if self.labels:
            return f"{service}{self.port}.{self.namespace}.{labels_digest(self.labels)}"
        return f"{service}{self.port}.{self.namespace}"

    def host_resource(self, virtual_host: str) -> str:
        """The VHDS resource name of a virtual host in this table."""
        return f"{self.name}/{virtual_host}"
