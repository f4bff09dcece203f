"""GRPCRoute, TLSRoute, TCPRoute and UDPRoute of the Gateway API."""

from __future__ import annotations

import ipaddress
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
from tulle.api.list_types import keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.regex import regex_fault
from tulle.api.values import Defaulted, HeaderName, Hostname, Many, SectionName

Weight = Annotated[int, Field(ge=0, le=1_000_000, json_schema_extra={"format": "int32"})]
Scope = Literal["All", "None"]
_SERVICE = re.compile(r"\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*", re.IGNORECASE | re.ASCII)
_METHOD = re.compile("[A-Za-z_][A-Za-z_0-9]*")


class BackendRef(BackendObjectRef):
    """A backend and its share of the connections."""

    weight: Defaulted[Weight] = 1


class GRPCMethodMatch(Ruled):
    """A gRPC service, a method of it, or both."""

    type: Defaulted[Literal["Exact", "RegularExpression"]] = "Exact"
    service: Annotated[str, Field(max_length=1024)] | None = None
    method: Annotated[str, Field(max_length=1024)] | None = None

    def faults(self) -> Iterator[Fault]:
        """Names, or RE2 expressions."""
        if self.service is None and self.method is None:
            yield Fault((), "found neither service nor method; needed at least one of the two", "Required")
        for field, value, pattern in (("service", self.service, _SERVICE), ("method", self.method, _METHOD)):
            if value is None:
                continue
            if self.type == "RegularExpression":
                yield from regex_fault(value, field)
            elif not pattern.fullmatch(value):
                yield Fault((field,), f'found "{value}"; needed the name of a gRPC {field}', "BadName")


class GRPCHeaderMatch(Ruled):
    """A header's value."""

    type: Defaulted[Literal["Exact", "RegularExpression"]] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    def faults(self) -> Iterator[Fault]:
        """An RE2 expression."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")


class GRPCRouteMatch(Schema):
    """All of what is written must hold for a call."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[Many[GRPCHeaderMatch], Field(max_length=16), keyed("name")] = ()


_FILTERS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "ExtensionRef": "extensionRef",
}


class GRPCRouteFilter(Ruled):
    """A step on the way of a call or its response."""

    type: Literal["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    extension_ref: ExtensionRef | None = None

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        return only_its_own(self, self.type, _FILTERS)


GRPCFilters = Annotated[Many[GRPCRouteFilter], Field(max_length=16)]


def _filter_faults(filters: tuple[GRPCRouteFilter, ...]) -> Iterator[Fault]:
    yield from filters_once([one.type for one in filters], ("RequestHeaderModifier", "ResponseHeaderModifier"))


class GRPCBackendRef(BackendRef):
    """A backend, its share of the calls, and filters for those that go there."""

    filters: GRPCFilters = ()

    def faults(self) -> Iterator[Fault]:
        """A port, and filters that fit together."""
        yield from super().faults()
        yield from _filter_faults(self.filters)


class GRPCRouteRule(Ruled):
    """Where one of `matches` holds (or there is none), the filters apply and a backend is chosen by weight."""

    name: SectionName | None = None
    matches: Annotated[Many[GRPCRouteMatch], Field(max_length=64)] = ()
    filters: GRPCFilters = ()
    backend_refs: Annotated[Many[GRPCBackendRef], Field(max_length=16)] = ()
    session_persistence: SessionPersistence | None = None

    def faults(self) -> Iterator[Fault]:
        """Filters that fit together."""
        yield from _filter_faults(self.filters)


class GRPCRouteSpec(Ruled):
    """Rules for host names, attached to parents."""

    parent_refs: Annotated[Many[ParentRef], Field(max_length=32)] = ()
    hostnames: Annotated[Many[Hostname], Field(max_length=16)] = ()
    rules: Annotated[Many[GRPCRouteRule], Field(max_length=16)] = ()
    use_default_gateways: Scope | None = None

    def faults(self) -> Iterator[Fault]:
        """Parents told apart, names once, not too many matches."""
        yield from parent_faults(self.parent_refs)
        yield from repeats([rule.name for rule in self.rules], "rules", "name")
        if (total := sum(len(rule.matches) for rule in self.rules)) > 128:
            yield Fault(("rules",), f"found {total} matches in all rules; needed at most 128")


class GRPCRoute(Object):
    """A GRPCRoute of the Gateway API."""

    kind: Literal["GRPCRoute"] = "GRPCRoute"
    spec: GRPCRouteSpec
    status: RouteStatus | None = None


class L4RouteRule(Schema):
    """Where connections go."""

    name: SectionName | None = None
    backend_refs: Annotated[Many[BackendRef], Field(min_length=1, max_length=16)]


OneRule = Annotated[Many[L4RouteRule], Field(min_length=1, max_length=1)]


class TLSRouteSpec(Ruled):
    """Where TLS connections for some server names go."""

    parent_refs: Annotated[Many[ParentRef], Field(max_length=32)] = ()
    hostnames: Annotated[Many[Hostname], Field(max_length=1024)] = ()
    rules: Annotated[Many[L4RouteRule], Field(min_length=1, max_length=16)]
    use_default_gateways: Scope | None = None

    def faults(self) -> Iterator[Fault]:
        """Parents told apart, and rules by their names."""
        yield from parent_faults(self.parent_refs)
        yield from repeats([rule.name for rule in self.rules], "rules", "name")


class TLSRoute(Object):
    """A TLSRoute of the Gateway API, with all that any of its versions takes."""

    kind: Literal["TLSRoute"] = "TLSRoute"
    spec: TLSRouteSpec
    status: RouteStatus | None = None


class TLSRouteV1Spec(TLSRouteSpec):
    """Where TLS connections for some server names go."""

    hostnames: Annotated[Many[Hostname], Field(min_length=1, max_length=1024)]
    rules: OneRule

    def faults(self) -> Iterator[Fault]:
        """Names, not addresses."""
        yield from super().faults()
        for index, host in enumerate(self.hostnames):
            try:
                ipaddress.ip_address(host)
            except ValueError:
                continue
            yield Fault(("hostnames", index), f'found the address "{host}"; needed a host name', "BadHost")


class TLSRouteV1(TLSRoute):
    """A TLSRoute of v1 and v1alpha3: with host names, and one rule."""

    spec: TLSRouteV1Spec


class L4RouteSpec(Ruled):
    """Where the connections (or datagrams) of parents go."""

    parent_refs: Annotated[Many[ParentRef], Field(max_length=32)] = ()
    rules: Annotated[Many[L4RouteRule], Field(min_length=1, max_length=16)]
    use_default_gateways: Scope | None = None

    def faults(self) -> Iterator[Fault]:
        """Parents told apart, and rules by their names."""
        yield from parent_faults(self.parent_refs)
        yield from repeats([rule.name for rule in self.rules], "rules", "name")


class L4RouteV1Spec(L4RouteSpec):
    """Where the connections (or datagrams) of parents go."""

    rules: OneRule


class TCPRoute(Object):
    """A TCPRoute of the Gateway API, with all that any of its versions takes."""

    kind: Literal["TCPRoute"] = "TCPRoute"
    spec: L4RouteSpec
    status: RouteStatus | None = None


class TCPRouteV1(TCPRoute):
    """A TCPRoute of v1: with one rule."""

    spec: L4RouteV1Spec


class UDPRoute(Object):
    """A UDPRoute of the Gateway API, with all that any of its versions takes."""

    kind: Literal["UDPRoute"] = "UDPRoute"
    spec: L4RouteSpec
    status: RouteStatus | None = None


class UDPRouteV1(UDPRoute):
    """A UDPRoute of v1: with one rule."""

    spec: L4RouteV1Spec
