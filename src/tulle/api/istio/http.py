"""Parts of a VirtualService's HTTP rule: destinations, matches, and what happens to a request on its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import destination_fault, gateway_name_fault, header_name_fault
from tulle.api.istio.shared import Percent, PortSelector, StringMatch
from tulle.api.object import Fault, Ruled, Schema
from tulle.api.regex import regex_fault
from tulle.api.rules import at_most_one
from tulle.api.values import Duration, Int32, Many, Map, Nullable, UInt32


class Destination(Ruled):
    """A service's `host` (a short name resolves in the VirtualService's namespace), perhaps a `subset` and a port of it."""

    host: str
    subset: str = ""
    port: PortSelector | None = None

    def faults(self) -> Iterator[Fault]:
        """A host name."""
        yield from destination_fault(self.host)


class HeaderOperations(Schema):
    """Headers to overwrite, append and remove."""

    set: Map[str] = Field(default_factory=dict)
    add: Map[str] = Field(default_factory=dict)
    remove: Many[str] = ()


class Headers(Ruled):
    """Changes to the headers of requests and responses."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None

    def faults(self) -> Iterator[Fault]:
        """Names of headers."""
        for side in ("request", "response"):
            operations: HeaderOperations | None = getattr(self, side)
            if operations is None:
                continue
            for verb in ("set", "add"):
                for name in getattr(operations, verb):
                    yield from header_name_fault(name, side, verb, name)
            for index, name in enumerate(operations.remove):
                yield from header_name_fault(name, side, "remove", index)


class RouteDestination(Schema):
    """A TCP or TLS destination and its share."""

    destination: Destination
    weight: Int32 = 0


class HTTPRouteDestination(Schema):
    """A destination, its share of the requests, and changes of headers for those that go there."""

    destination: Destination
    weight: Int32 = 0
    headers: Headers | None = None


class HTTPMatchRequest(Ruled):
    """All of what is written must hold for a request."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Map[StringMatch] = Field(default_factory=dict)
    without_headers: Map[StringMatch] = Field(default_factory=dict)
    query_params: Map[StringMatch] = Field(default_factory=dict)
    ignore_uri_case: bool = False
    port: UInt32 | None = None
    source_labels: Map[str] = Field(default_factory=dict)
    source_namespace: str = ""
    gateways: Many[str] = ()
    stat_prefix: str = ""

    def faults(self) -> Iterator[Fault]:
        """Names of headers and gateways."""
        for field, names in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name in names:
                yield from header_name_fault(name, field, name)
        for index, gateway in enumerate(self.gateways):
            yield from gateway_name_fault(gateway, "gateways", index)
        if self.port == 0 or (self.port or 0) > 65535:
            yield Fault(("port",), f"found {self.port}; needed a port from 1 to 65535")


class HTTPRedirect(Ruled):
    """Answer with a redirect."""

    uri: str = ""
    authority: str = ""
    prefix_rewrite: str = ""
    scheme: str = ""
    port: UInt32 | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    redirect_code: UInt32 = 0

    def faults(self) -> Iterator[Fault]:
        """A redirect's status, and one way to say the port."""
        yield from at_most_one(self, "port", "derivePort")
        if self.uri and self.prefix_rewrite:
            yield Fault((), "found uri and prefixRewrite; needed at most one of uri or prefixRewrite", "OneOf")
        if self.redirect_code not in (0, 301, 302, 303, 307, 308):
            yield Fault(("redirectCode",), f"found {self.redirect_code}; needed 301, 302, 303, 307 or 308")
        if self.scheme not in ("", "http", "https"):
            yield Fault(("scheme",), f'found "{self.scheme}"; needed "http" or "https"')


class HTTPBody(Ruled):
    """The body of a direct response."""

    string: str | None = None
    bytes: Annotated[str, Field(json_schema_extra={"format": "byte"})] | None = None  # base64

    def faults(self) -> Iterator[Fault]:
        """One of the two."""
        yield from at_most_one(self, "string", "bytes")


class HTTPDirectResponse(Ruled):
    """Answer without asking anybody."""

    status: UInt32
    body: HTTPBody | None = None

    def faults(self) -> Iterator[Fault]:
        """An HTTP status."""
        if not 200 <= self.status <= 599:
            yield Fault(("status",), f"found {self.status}; needed an HTTP status from 200 to 599")


class RegexRewrite(Ruled):
    """Rewrite what matches."""

    match: str = ""
    rewrite: str = ""

    def faults(self) -> Iterator[Fault]:
        """An RE2 expression."""
        yield from regex_fault(self.match, "match")


class HTTPRewrite(Ruled):
    """Change the path or the authority before a request goes on."""

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None

    def faults(self) -> Iterator[Fault]:
        """One way to rewrite the path."""
        if self.uri and self.uri_regex_rewrite:
            yield Fault((), "found uri and uriRegexRewrite; needed at most one of uri or uriRegexRewrite", "OneOf")
        if not (self.uri or self.authority or self.uri_regex_rewrite):
            yield Fault((), "found nothing to rewrite; needed uri, authority or uriRegexRewrite", "Required")


# Conditions that `retryOn` may name beside HTTP statuses: Envoy's.
RETRY_CONDITIONS = frozenset(
    [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ]
)


class HTTPRetry(Ruled):
    """When and how often a request is tried again."""

    attempts: Int32 = 0
    per_try_timeout: Duration | None = None
    retry_on: str = ""
    retry_remote_localities: Nullable[bool] = None
    retry_ignore_previous_hosts: Nullable[bool] = None
    backoff: Duration | None = None

    def faults(self) -> Iterator[Fault]:
        """Known conditions, and no settings where there are no retries."""
        if self.attempts < 0:
            yield Fault(("attempts",), f"found {self.attempts}; needed 0 (no retries) or more")
        if self.attempts == 0 and (self.per_try_timeout or self.retry_on):
            yield Fault(("attempts",), "found 0; needed at least 1, for perTryTimeout or retryOn is written")
        for condition in filter(None, (part.strip() for part in self.retry_on.split(","))):
            if condition not in RETRY_CONDITIONS and not (condition.isdigit() and 100 <= int(condition) <= 599):
                known = ", ".join(sorted(RETRY_CONDITIONS))
                yield Fault(("retryOn",), f'found "{condition}"; needed an HTTP status or one of {known}')


class Delay(Ruled):
    """Hold a share of the requests."""

    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None
    percentage: Percent | None = None
    percent: Int32 | None = None  # older spelling

    def faults(self) -> Iterator[Fault]:
        """One kind of delay."""
        yield from at_most_one(self, "fixedDelay", "exponentialDelay")
        if self.percent is not None and not 0 <= self.percent <= 100:
            yield Fault(("percent",), f"found {self.percent}; needed a percentage from 0 to 100")


class Abort(Ruled):
    """Answer a share of the requests with an error."""

    http_status: Int32 | None = None
    grpc_status: str | None = None
    http2_error: str | None = Field(default=None, alias="http2Error")
    percentage: Percent | None = None

    def faults(self) -> Iterator[Fault]:
        """One kind of error, with a value that exists."""
        yield from at_most_one(self, "httpStatus", "grpcStatus", "http2Error")
        if self.http_status is not None and not 200 <= self.http_status <= 599:
            yield Fault(("httpStatus",), f"found {self.http_status}; needed an HTTP status from 200 to 599")
        if self.grpc_status is not None and self.grpc_status not in GRPC_STATUSES:
            yield Fault(("grpcStatus",), f'found "{self.grpc_status}"; needed one of {", ".join(GRPC_STATUSES)}')


# In the order of their numbers.
GRPC_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


class HTTPFaultInjection(Schema):
    """Faults to try out what happens."""

    delay: Delay | None = None
    abort: Abort | None = None


class HTTPMirrorPolicy(Schema):
    """A destination that gets copies; its answers are dropped."""

    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Ruled):
    """Which other origins' pages may call."""

    allow_origins: Many[StringMatch] = ()
    allow_origin: Many[str] = ()  # older spelling
    allow_methods: Many[str] = ()
    allow_headers: Many[str] = ()
    expose_headers: Many[str] = ()
    max_age: Duration | None = None
    allow_credentials: Nullable[bool] = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"

    def faults(self) -> Iterator[Fault]:
        """Names of methods and headers."""
        for field, names in (("allowHeaders", self.allow_headers), ("exposeHeaders", self.expose_headers)):
            for index, name in enumerate(names):
                yield from header_name_fault(name, field, index)
        for index, method in enumerate(self.allow_methods):
            if method not in METHODS:
                yield Fault(("allowMethods", index), f'found "{method}"; needed one of {", ".join(METHODS)}', "BadEnum")


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*")


class Delegate(Schema):
    """Another VirtualService that has the routes."""

    name: str = ""
    namespace: str = ""
