"""Parts that several of the Gateway API's kinds have: references, selectors, header filters."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tulle.api.list_types import UNIQUE, keyed
from tulle.api.object import Fault, Ruled, Schema
from tulle.api.values import (
    Defaulted,
    DnsLabel,
    GatewayDuration,
    Group,
    HeaderName,
    HeaderValue,
    KindName,
    Many,
    ObjectName,
    Port,
    SectionName,
)

GROUP_NAME = "gateway.networking.k8s.io"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PATH = r"[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+"
CONTROLLER = rf"^{_LABEL}(\.{_LABEL})*\/{_PATH}$"
ADDRESS_TYPE = rf"^Hostname|IPAddress|NamedAddress|{_LABEL}(\.{_LABEL})*\/{_PATH}$"


def ip_fault(text: str, *at: str | int) -> Iterator[Fault]:
    """An address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        yield Fault(at, f'found "{text}"; needed an IP address')


class ParametersRef(Schema):
    """Settings of the implementation, in an object of its own."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: DnsLabel | None = None


class LocalParametersRef(Schema):
    """Settings in an object of the same namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class ParentRef(Schema):
    """What a route attaches to: a Gateway (or one of its listeners), or a Service for the mesh."""

    group: Defaulted[Group] = GROUP_NAME
    kind: Defaulted[KindName] = "Gateway"
    namespace: DnsLabel | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: Port | None = None


def parent_faults(parents: Sequence[ParentRef]) -> Iterator[Fault]:
    """Several references to one parent are told apart by sectionName or port."""
    for index, this in enumerate(parents):
        for earlier in parents[:index]:
            if _parent(this) != _parent(earlier):
                continue
            if (not this.section_name) != (not earlier.section_name) or (not this.port) != (not earlier.port):
                message = f"found {this.kind} {this.name} twice, once whole; needed sectionName or port in both"
                yield Fault(("parentRefs", index), message, "Duplicate")
                break
            if (this.section_name, this.port) == (earlier.section_name, earlier.port):
                yield Fault(
                    ("parentRefs", index), f"found {this.kind} {this.name} twice; needed another sectionName or port", "Duplicate"
                )
                break


def _parent(ref: ParentRef) -> tuple[str, str, str, str]:
    return (ref.group, ref.kind, ref.namespace or "", ref.name)


class SecretRef(Schema):
    """A Secret (or what the implementation has instead)."""

    group: Defaulted[Group] = ""
    kind: Defaulted[KindName] = "Secret"
    namespace: DnsLabel | None = None
    name: ObjectName


class ObjectRef(Schema):
    """An object of any kind."""

    group: Group
    kind: KindName
    namespace: DnsLabel | None = None
    name: ObjectName


class ExtensionRef(Schema):
    """An object of the implementation in the same namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class BackendObjectRef(Ruled):
    """Where requests go: a Service and its port."""

    group: Defaulted[Group] = ""
    kind: Defaulted[KindName] = "Service"
    namespace: DnsLabel | None = None
    name: ObjectName
    port: Port | None = None

    def faults(self) -> Iterator[Fault]:
        """A Service has a port."""
        if self.group == "" and self.kind == "Service" and self.port is None:
            yield Fault(("port",), "found nothing; needed a port, for the backend is a Service", "Required")


class Header(Schema):
    """A header and its value."""

    name: HeaderName
    value: HeaderValue


class HeaderModifier(Schema):
    """Headers to overwrite, append and remove."""

    set: Annotated[Many[Header], Field(max_length=16), keyed("name")] = ()
    add: Annotated[Many[Header], Field(max_length=16), keyed("name")] = ()
    remove: Annotated[Many[str], Field(max_length=16), UNIQUE] = ()


def repeats(names: Sequence[Any], *at: str) -> Iterator[Fault]:
    """The names in a list that stand there before; `at` is the list's field and, for objects, the field in an item."""
    field, *inside = at
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            shown = f'"{name}"' if isinstance(name, str) else name
            yield Fault((field, index, *inside), f"found {shown} twice; needed each only once", "Duplicate")


class Fraction(Ruled):
    """A share of requests."""

    numerator: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
    denominator: Defaulted[Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})]] = 100

    def faults(self) -> Iterator[Fault]:
        """At most the whole."""
        if self.numerator > self.denominator:
            yield Fault(("numerator",), f"found {self.numerator}; needed at most the denominator {self.denominator}")


class RequestMirror(Ruled):
    """A backend that gets copies; its answers are dropped."""

    backend_ref: BackendObjectRef
    percent: Annotated[int, Field(ge=0, le=100, json_schema_extra={"format": "int32"})] | None = None
    fraction: Fraction | None = None

    def faults(self) -> Iterator[Fault]:
        """One way to say the share."""
        if self.percent is not None and self.fraction is not None:
            yield Fault((), "found percent and fraction; needed at most one of the two", "OneOf")


class Cookie(Schema):
    """The cookie of a session."""

    lifetime_type: Defaulted[Literal["Permanent", "Session"]] = "Session"
    name: HeaderName | None = None
    path: Defaulted[Annotated[str, Field(max_length=1024)]] = "/"


class SessionHeader(Schema):
    """The header of a session."""

    name: HeaderName


class SessionPersistence(Ruled):
    """Requests of a session go to one endpoint."""

    absolute_timeout: GatewayDuration | None = None
    type: Defaulted[Literal["Cookie", "Header"]] = "Cookie"
    cookie: Cookie | None = None
    header: SessionHeader | None = None

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        for field, value in (("cookie", self.cookie), ("header", self.header)):
            if value is not None and self.type.lower() != field:
                yield Fault((field,), f"found it with type {self.type}; needed none, or type {field.capitalize()}", "OneOf")
            if value is None and self.type.lower() == field:
                yield Fault((field,), f"found nothing; needed it, for the type is {self.type}", "Required")
        if self.cookie is not None and self.cookie.lifetime_type == "Permanent" and self.absolute_timeout is None:
            yield Fault(("absoluteTimeout",), "found nothing; needed it, for the cookie is Permanent", "Required")


def only_its_own(part: Schema, kind: str, fields: Mapping[str, str]) -> Iterator[Fault]:
    """A union as the Gateway API writes one: of `fields` (type → field), a part of type `kind` has its own and no other."""
    given = {field.alias: getattr(part, name) for name, field in type(part).model_fields.items()}
    for one, field in fields.items():
        if one == kind and given[field] is None:
            yield Fault((field,), f"found nothing; needed it, for the type is {kind}", "Required")
        if one != kind and given[field] is not None:
            yield Fault((field,), f"found it with type {kind}; needed none, or type {one}", "OneOf")


def filters_once(kinds: Sequence[str], once: Sequence[str]) -> Iterator[Fault]:
    """Of the filters of a rule, those of the types `once` stand there once at most."""
    for kind in once:
        if kinds.count(kind) > 1:
            index = kinds.index(kind, kinds.index(kind) + 1)
            yield Fault(("filters", index), f"found {kind} twice; needed it only once", "Duplicate")
