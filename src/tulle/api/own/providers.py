"""MeshConfig's `extensionProviders`: services outside of a proxy that policies name. Fields are named as in Istio's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tulle.api.istio.hosts import destination_fault, header_name_fault
from tulle.api.list_types import UNIQUE
from tulle.api.log_format import why_not_format
from tulle.api.object import Fault, Ruled, Schema
from tulle.api.rules import exactly_one
from tulle.api.values import Defaulted, Duration, Many, Map, Port

# The errors of HTTP that Envoy knows.
_STATUSES = {str(one) for one in (*range(400, 418), 421, 422, 423, 424, 426, 428, 429, 431, *range(500, 509), 510, 511)}

# The files of logs that a workload may have; what else lies beside them is not theirs.
_LOG_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.log")
_NOT_THEIRS = ("envoy.log",)

Headers = Annotated[Many[str], Field(max_length=64)]


class Nothing(Schema):
    """Needs no settings."""


class ServiceProvider(Ruled):
    """A service that proxies ask or tell, as `HOST` or `NAMESPACE/HOST`, and its port."""

    service: Annotated[str, Field(min_length=1, max_length=317)]
    port: Port
    timeout: Duration | None = None

    def faults(self) -> Iterator[Fault]:
        """The host name of a service."""
        namespace, slash, host = self.service.rpartition("/")
        for fault in destination_fault(host) if not slash or namespace else ():
            yield fault._replace(at=("service",))
        if slash and (not namespace or "/" in namespace):
            yield Fault(("service",), f'found "{self.service}"; needed a host, or NAMESPACE/HOST', "BadHost")


class CheckedBody(Schema):
    """How much of a body is told: `maxRequestBytes` at the most. Of a longer one that much, or it does not pass (413)."""

    max_request_bytes: Annotated[int, Field(ge=1, le=2**32 - 1)]
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class Authorizer(ServiceProvider):
    """A service that answers whether a request may pass.

    Where it does not answer within `timeout` (10s) the request is answered `statusOnError` (403), or passes with `failOpen`.
    `clearRouteCache`: headers that it adds may choose another route.
    """

    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str | None = None
    include_request_body_in_check: CheckedBody | None = None

    def faults(self) -> Iterator[Fault]:
        """A status that proxies answer."""
        yield from super().faults()
        if self.status_on_error is not None and self.status_on_error not in _STATUSES:
            message = f'found "{self.status_on_error}"; needed a status of HTTP that is an error, such as "503"'
            yield Fault(("statusOnError",), message, "OutOfRange")


class HTTPAuthorizer(Authorizer):
    """An authorizer over HTTP: it is sent the request's method, its path behind `pathPrefix`, and those headers that are named.

    It says yes by the status 200. Names of headers may end or begin with `*`.
    """

    path_prefix: Annotated[str, Field(max_length=1024)] = ""
    include_headers_in_check: Headers = ()
    include_request_headers_in_check: Headers = ()
    include_additional_headers_in_check: Annotated[Map[str], Field(max_length=64)] = Field(default_factory=dict)
    headers_to_upstream_on_allow: Headers = ()
    headers_to_downstream_on_allow: Headers = ()
    headers_to_downstream_on_deny: Headers = ()

    def faults(self) -> Iterator[Fault]:
        """A path, and names of headers."""
        yield from super().faults()
        if self.path_prefix and not self.path_prefix.startswith("/"):
            yield Fault(("pathPrefix",), f'found "{self.path_prefix}"; needed a path that starts with "/"', "BadPath")
        for name in self.include_additional_headers_in_check:
            yield from header_name_fault(name, "includeAdditionalHeadersInCheck", name)


class GRPCAuthorizer(Authorizer):
    """An authorizer over Envoy's gRPC protocol; connections whose bytes are not looked into can be asked for too."""


class LogFormat(Ruled):
    """How a call is logged, in Envoy's format of access logs: `text`, or `labels` of a JSON object (or of an OTLP record).

    `labels: {}` are those that Istio has.
    """

    text: Annotated[str, Field(max_length=16384)] = ""
    labels: Annotated[Map[str], Field(max_length=256)] | None = None

    def faults(self) -> Iterator[Fault]:
        """One of both, and commands that proxies know."""
        if self.text and self.labels is not None:
            yield Fault((), "found text and labels; needed one of them", "OneOf")
        if why := why_not_format(self.text):
            yield Fault(("text",), why, "BadFormat")
        for name, value in (self.labels or {}).items():
            if why := why_not_format(value):
                yield Fault(("labels", name), why, "BadFormat")


class FileLog(Ruled):
    """Access logs in a file of each workload, beside its other files: `/dev/stdout` is the one that `tulle logs` shows.

    Without a format the lines are Istio's.
    """

    path: Defaulted[Annotated[str, Field(min_length=1, max_length=4096)]] = "/dev/stdout"
    log_format: LogFormat | None = None

    def faults(self) -> Iterator[Fault]:
        """No path to elsewhere on every host of the mesh."""
        if self.path != "/dev/stdout" and (not _LOG_FILE.fullmatch(self.path) or self.path in _NOT_THEIRS):
            yield Fault(("path",), f'found "{self.path}"; needed /dev/stdout, or the name of a file such as shop.log', "BadPath")


class OTelLog(ServiceProvider):
    """Access logs to a collector, as OTLP over gRPC: the log `logName`, its body `logFormat.text`, its attributes the labels."""

    log_name: Annotated[str, Field(max_length=253)] = ""
    log_format: LogFormat | None = None


class OTelHTTP(Schema):
    """Traces by HTTP instead of gRPC."""

    path: Annotated[str, Field(min_length=1, max_length=1024, pattern="^/")]
    timeout: Duration | None = None


class OTelTraces(ServiceProvider):
    """Traces to a collector, as OTLP. Values of tags longer than `maxTagLength` are cut."""

    max_tag_length: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    http: OTelHTTP | None = None


class ExtensionProvider(Ruled):
    """Something outside that policies name: AuthorizationPolicy's `provider`, Telemetry's `providers`."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    envoy_ext_authz_http: HTTPAuthorizer | None = None
    envoy_ext_authz_grpc: GRPCAuthorizer | None = None
    envoy_file_access_log: FileLog | None = None
    envoy_otel_als: OTelLog | None = None
    opentelemetry: OTelTraces | None = None
    prometheus: Nothing | None = None

    def faults(self) -> Iterator[Fault]:
        """One kind of provider."""
        names = (
            "envoyExtAuthzHttp",
            "envoyExtAuthzGrpc",
            "envoyFileAccessLog",
            "envoyOtelAls",
            "opentelemetry",
            "prometheus",
        )
        yield from exactly_one(self, *names)


class DefaultProviders(Schema):
    """The providers that count where no Telemetry names others: `prometheus` for metrics, none for logs and traces."""

    metrics: Annotated[Many[str], Field(max_length=16), UNIQUE] = ()
    access_logging: Annotated[Many[str], Field(max_length=16), UNIQUE] = ()
    tracing: Annotated[Many[str], Field(max_length=16), UNIQUE] = ()
