"""HTTPRoute of the Gateway API, for ingress and (with a Service as parent) for the mesh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.gateway.shared import (
    BackendObjectRef,
    ExtensionRef,
    HeaderModifier,
    ParentRef,
    RequestMirror,
    SessionPersistence,
    filters_once,
    only_its_own,
    parent_faults,
    repeats,
)
from tulle.api.gateway.status import RouteStatus
from tulle.api.list_types import UNIQUE, keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.regex import regex_fault
from tulle.api.values import (
    Defaulted,
    GatewayDuration,
    HeaderName,
    HeaderValue,
    Hostname,
    Many,
    Port,
    PreciseHostname,
    SectionName,
    Words,
    seconds,
)

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
CorsMethod = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]
ORIGIN = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)"
Origin = Annotated[
    str, Field(pattern=ORIGIN, min_length=1, max_length=253), Words('"*" or an origin such as "https://*.example.com"')
]
AUTH_PATH = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+")


class PathMatch(Ruled):
    """A path: all of it, a prefix that ends at a "/", or an expression."""

    type: Defaulted[Literal["Exact", "PathPrefix", "RegularExpression"]] = "PathPrefix"
    value: Defaulted[Annotated[str, Field(max_length=1024)]] = "/"

    def faults(self) -> Iterator[Fault]:
        """A normal, absolute path."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")
            return
        if not self.value.startswith("/"):
            yield Fault(("value",), f'found "{self.value}"; needed a path that starts with "/"', "BadPath")
        for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
            if part in self.value:
                yield Fault(("value",), f'found "{self.value}"; needed a path without "{part}"', "BadPath")
        for end in ("/..", "/."):
            if self.value.endswith(end):
                yield Fault(("value",), f'found "{self.value}"; needed a path that does not end with "{end}"', "BadPath")
        if self.value and not _PATH.fullmatch(self.value):
            yield Fault(("value",), f'found "{self.value}"; needed a path whose other characters are written as %XX', "BadPath")


class HeaderMatch(Ruled):
    """A header's value."""

    type: Defaulted[Literal["Exact", "RegularExpression"]] = "Exact"
    name: HeaderName
    value: HeaderValue

    def faults(self) -> Iterator[Fault]:
        """An RE2 expression."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")


class QueryParamMatch(Ruled):
    """A query parameter's value."""

    type: Defaulted[Literal["Exact", "RegularExpression"]] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=1024)]

    def faults(self) -> Iterator[Fault]:
        """An RE2 expression."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")


class HTTPRouteMatch(Schema):
    """All of what is written must hold for a request."""

    path: Defaulted[PathMatch] = Field(default_factory=PathMatch)
    headers: Annotated[Many[HeaderMatch], Field(max_length=16), keyed("name")] = ()
    query_params: Annotated[Many[QueryParamMatch], Field(max_length=16), keyed("name")] = ()
    method: Method | None = None


class PathModifier(Ruled):
    """Replace the whole path, or the matched prefix."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, Field(max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, Field(max_length=1024)] | None = None

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        for field, value in (("replaceFullPath", self.replace_full_path), ("replacePrefixMatch", self.replace_prefix_match)):
            chosen = self.type.lower() == field.lower()
            if chosen and value is None:
                yield Fault((field,), f"found nothing; needed it, for the type is {self.type}", "Required")
            if not chosen and value is not None:
                yield Fault((field,), f"found it with type {self.type}; needed none", "OneOf")


class RequestRedirect(Schema):
    """Answer with a redirect."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Defaulted[Literal[301, 302, 303, 307, 308]] = 302


class URLRewrite(Schema):
    """Change the host or the path before a request goes on."""

    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class CORS(Ruled):
    """Which other origins' pages may call."""

    allow_origins: Annotated[Many[Origin], Field(max_length=64), UNIQUE] = ()
    allow_credentials: bool | None = None
    allow_methods: Annotated[Many[CorsMethod], Field(max_length=9), UNIQUE] = ()
    allow_headers: Annotated[Many[HeaderName], Field(max_length=64), UNIQUE] = ()
    expose_headers: Annotated[Many[HeaderName], Field(max_length=64), UNIQUE] = ()
    max_age: Defaulted[Annotated[int, Field(ge=1, le=2**31 - 1, json_schema_extra={"format": "int32"})]] = 5

    def faults(self) -> Iterator[Fault]:
        """A wildcard stands alone."""
        for field, values in (
            ("allowOrigins", self.allow_origins),
            ("allowMethods", self.allow_methods),
            ("allowHeaders", self.allow_headers),
        ):
            if "*" in values and len(values) > 1:
                yield Fault((field,), 'found "*" beside others; needed it alone', "OneOf")


class ForwardBody(Schema):
    """How much of the body goes to the authorizer."""

    max_size: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] | None = None


class GRPCAuth(Schema):
    """Envoy's gRPC protocol of authorization."""

    allowed_headers: Annotated[Many[str], Field(max_length=64), UNIQUE] = ()


class HTTPAuth(Schema):
    """Authorization by an HTTP request."""

    path: (
        Annotated[str, Field(pattern=AUTH_PATH, max_length=1024), Words("a path whose other characters are written as %XX")]
        | None
    ) = None
    allowed_headers: Annotated[Many[str], Field(max_length=64), UNIQUE] = ()
    allowed_response_headers: Annotated[Many[str], Field(max_length=64), UNIQUE] = ()


class ExternalAuth(Ruled):
    """Ask another service whether a request may pass."""

    protocol: Literal["HTTP", "GRPC"]
    backend_ref: BackendObjectRef
    grpc: GRPCAuth | None = None
    http: HTTPAuth | None = None
    forward_body: ForwardBody | None = None

    def faults(self) -> Iterator[Fault]:
        """What the protocol needs, and only that."""
        for field, value in (("grpc", self.grpc), ("http", self.http)):
            chosen = self.protocol.lower() == field
            if chosen and value is None:
                yield Fault((field,), f"found nothing; needed it, for the protocol is {self.protocol}", "Required")
            if not chosen and value is not None:
                yield Fault((field,), f"found it with the protocol {self.protocol}; needed none", "OneOf")


# Which field each type of filter has.
FILTERS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "ExtensionRef": "extensionRef",
    "CORS": "cors",
    "ExternalAuth": "externalAuth",
}


class HTTPRouteFilter(Ruled):
    """A step on the way of a request or its response."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None
    extension_ref: ExtensionRef | None = None
    cors: CORS | None = None
    external_auth: ExternalAuth | None = None

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        return only_its_own(self, self.type, FILTERS)


Filters = Annotated[Many[HTTPRouteFilter], Field(max_length=16)]
_ONCE = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS")


def filter_faults(filters: tuple[HTTPRouteFilter, ...]) -> Iterator[Fault]:
    """Filters that exclude each other, or come only once."""
    kinds: list[str] = [one.type for one in filters]
    yield from filters_once(kinds, _ONCE)
    if "RequestRedirect" in kinds and "URLRewrite" in kinds:
        yield Fault(("filters",), "found RequestRedirect and URLRewrite; needed at most one of the two", "OneOf")


class HTTPBackendRef(BackendObjectRef):
    """A backend, its share of the requests, and filters for those that go there."""

    weight: Defaulted[Annotated[int, Field(ge=0, le=1_000_000, json_schema_extra={"format": "int32"})]] = 1
    filters: Filters = ()

    def faults(self) -> Iterator[Fault]:
        """A port, and filters that fit together."""
        yield from super().faults()
        yield from filter_faults(self.filters)


class Retry(Schema):
    """When and how often a request is tried again."""

    codes: Annotated[Many[Annotated[int, Field(ge=400, le=599)]], UNIQUE] = ()
    attempts: Annotated[int, Field(ge=1)] | None = None
    backoff: GatewayDuration | None = None


class Timeouts(Ruled):
    """How long a request, and one try of it, may take."""

    request: GatewayDuration | None = None
    backend_request: GatewayDuration | None = None

    def faults(self) -> Iterator[Fault]:
        """A try is no longer than the whole."""
        if self.request and self.backend_request and 0 < seconds(self.request) < seconds(self.backend_request):
            yield Fault(("backendRequest",), f"found {self.backend_request}; needed at most timeouts.request, {self.request}")


class HTTPRouteRule(Ruled):
    """Where one of `matches` holds, the filters apply and a backend is chosen by weight."""

    name: SectionName | None = None
    matches: Defaulted[Annotated[Many[HTTPRouteMatch], Field(max_length=64)]] = Field(default_factory=lambda: (HTTPRouteMatch(),))
    filters: Filters = ()
    backend_refs: Annotated[Many[HTTPBackendRef], Field(max_length=16)] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None

    def faults(self) -> Iterator[Fault]:
        """Filters that fit together and to the matches."""
        yield from filter_faults(self.filters)
        if self.backend_refs:
            for index, one in enumerate(self.filters):
                if one.request_redirect is not None:
                    yield Fault(("filters", index), "found RequestRedirect beside backendRefs; needed one of the two", "OneOf")
        yield from self._prefix_faults(self.filters, ("filters",))
        for number, backend in enumerate(self.backend_refs):
            yield from self._prefix_faults(backend.filters, ("backendRefs", number, "filters"))

    def _prefix_faults(self, filters: tuple[HTTPRouteFilter, ...], at: tuple[str | int, ...]) -> Iterator[Fault]:
        one_prefix = len(self.matches) == 1 and self.matches[0].path.type == "PathPrefix"
        for index, one in enumerate(filters):
            for field, change in (("requestRedirect", one.request_redirect), ("urlRewrite", one.url_rewrite)):
                if change and change.path and change.path.replace_prefix_match is not None and not one_prefix:
                    message = "found ReplacePrefixMatch; needed exactly one match, with a path of type PathPrefix"
                    yield Fault((*at, index, field, "path"), message, "BadPath")


class HTTPRouteSpec(Ruled):
    """Rules for host names, attached to parents."""

    parent_refs: Annotated[Many[ParentRef], Field(max_length=32)] = ()
    hostnames: Annotated[Many[Hostname], Field(max_length=16)] = ()
    rules: Defaulted[Annotated[Many[HTTPRouteRule], Field(min_length=1, max_length=16)]] = Field(
        default_factory=lambda: (HTTPRouteRule(),)
    )
    use_default_gateways: Literal["All", "None"] | None = None

    def faults(self) -> Iterator[Fault]:
        """Parents told apart, names once, not too many matches."""
        yield from parent_faults(self.parent_refs)
        yield from repeats([rule.name for rule in self.rules], "rules", "name")
        if (total := sum(len(rule.matches) for rule in self.rules)) > 128:
            yield Fault(("rules",), f"found {total} matches in all rules; needed at most 128")


class HTTPRoute(Object):
    """An HTTPRoute of the Gateway API."""

    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HTTPRouteSpec
    status: RouteStatus | None = None
