"""GatewayClass, Gateway and ReferenceGrant of the Gateway API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.gateway.shared import (
    ADDRESS_TYPE,
    CONTROLLER,
    GROUP_NAME,
    LocalParametersRef,
    ObjectRef,
    ParametersRef,
    SecretRef,
    ip_fault,
)
from tulle.api.gateway.status import GatewayClassStatus, GatewayStatus, ListenerSetStatus, RouteGroupKind
from tulle.api.labels import LabelSelector
from tulle.api.list_types import keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.values import (
    HOSTNAME,
    Defaulted,
    DnsLabel,
    Group,
    Hostname,
    KindName,
    Many,
    Map,
    ObjectName,
    Port,
    SectionName,
    Words,
)

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
PROTOCOL = rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{_LABEL}(\.{_LABEL})*\/[A-Za-z0-9]+$"
LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_KEY = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]")


class GatewayClassSpec(Schema):
    """Which controller's Gateways these are."""

    controller_name: Annotated[
        str, Field(pattern=CONTROLLER, min_length=1, max_length=253), Words('a controller such as "tulle.dev/gateway"')
    ]
    description: Annotated[str, Field(max_length=64)] | None = None
    parameters_ref: ParametersRef | None = None


class GatewayClass(Object):
    """A class of Gateways."""

    kind: Literal["GatewayClass"] = "GatewayClass"
    spec: GatewayClassSpec
    status: Defaulted[GatewayClassStatus | None] = Field(default_factory=GatewayClassStatus)


class RouteNamespaces(Schema):
    """The namespaces whose routes may attach."""

    from_: Defaulted[Literal["All", "Selector", "Same"]] = Field(default="Same", alias="from")
    selector: LabelSelector | None = None


class AllowedRoutes(Schema):
    """The routes that may attach."""

    namespaces: Defaulted[RouteNamespaces] = Field(default_factory=RouteNamespaces)
    kinds: Annotated[Many[RouteGroupKind], Field(max_length=8)] = ()


class ListenerTLS(Ruled):
    """TLS of a listener: ended here, or passed through."""

    mode: Defaulted[Literal["Terminate", "Passthrough"]] = "Terminate"
    certificate_refs: Annotated[Many[SecretRef], Field(max_length=64)] = ()
    options: Annotated[Map[Annotated[str, Field(min_length=0, max_length=4096)]], Field(max_length=16)] = Field(
        default_factory=dict
    )

    def faults(self) -> Iterator[Fault]:
        """A certificate where TLS ends."""
        if self.mode == "Terminate" and not self.certificate_refs and not self.options:
            yield Fault(
                ("certificateRefs",), "found none; needed a certificate (or options), for the mode is Terminate", "Required"
            )


class Listener(Ruled):
    """A port, its protocol, and for HTTP and TLS the host name for which it is."""

    name: SectionName
    hostname: Hostname | None = None
    port: Port
    protocol: Annotated[str, Field(pattern=PROTOCOL, min_length=1, max_length=255), Words("HTTP, HTTPS, TLS, TCP or UDP")]
    tls: ListenerTLS | None = None
    allowed_routes: Defaulted[AllowedRoutes] = Field(default_factory=AllowedRoutes)

    def faults(self) -> Iterator[Fault]:
        """TLS and host name as the protocol has them."""
        if self.protocol in ("HTTP", "TCP", "UDP") and self.tls is not None:
            yield Fault(("tls",), f"found TLS settings with the protocol {self.protocol}; needed none, or HTTPS or TLS", "OneOf")
        if self.protocol == "HTTPS" and self.tls is not None and self.tls.mode != "Terminate":
            yield Fault(("tls", "mode"), f"found {self.tls.mode} with the protocol HTTPS; needed Terminate")
        if self.protocol == "TLS" and self.tls is None:
            yield Fault(("tls",), "found nothing; needed TLS settings with a mode, for the protocol is TLS", "Required")
        if self.protocol in ("TCP", "UDP") and self.hostname:
            yield Fault(("hostname",), f"found a host name with the protocol {self.protocol}; needed none", "OneOf")


Listeners = Annotated[Many[Listener], Field(min_length=1, max_length=64), keyed("name")]


def listener_faults(listeners: tuple[Listener, ...]) -> Iterator[Fault]:
    """Listeners differ in port, protocol and host name."""
    bound: dict[tuple[int, str, str], int] = {}
    for index, listener in enumerate(listeners):
        key = (listener.port, listener.protocol, listener.hostname or "")
        first = bound.setdefault(key, index)
        if first != index:
            message = f"found the port, protocol and hostname of listeners[{first}]; needed another combination"
            yield Fault(("listeners", index), message, "Duplicate")


class GatewayAddress(Ruled):
    """An address that is asked for."""

    type: Defaulted[
        Annotated[str, Field(pattern=ADDRESS_TYPE, min_length=1, max_length=253), Words("IPAddress, Hostname or NamedAddress")]
    ] = "IPAddress"
    value: Annotated[str, Field(max_length=253)] | None = None

    def faults(self) -> Iterator[Fault]:
        """A value of the type."""
        if self.type == "IPAddress" and self.value is not None:
            yield from ip_fault(self.value, "value")
        if self.type == "Hostname" and self.value is not None and not re.match(HOSTNAME, self.value):
            yield Fault(("value",), f'found "{self.value}"; needed a host name in lower case')


class ListenerNamespaces(Schema):
    """The namespaces whose ListenerSets may attach."""

    from_: Defaulted[Literal["All", "Selector", "Same", "None"]] = Field(default="None", alias="from")
    selector: LabelSelector | None = None


class AllowedListeners(Schema):
    """The ListenerSets that may attach."""

    namespaces: Defaulted[ListenerNamespaces] = Field(default_factory=ListenerNamespaces)


class Infrastructure(Ruled):
    """Labels and annotations of what is made for a Gateway."""

    labels: Annotated[Map[Annotated[str, Field(pattern=LABEL_VALUE, min_length=0, max_length=63)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    annotations: Annotated[Map[Annotated[str, Field(min_length=0, max_length=4096)]], Field(max_length=16)] = Field(
        default_factory=dict
    )
    parameters_ref: LocalParametersRef | None = None

    def faults(self) -> Iterator[Fault]:
        """Keys as Kubernetes has them."""
        for field, keys in (("labels", self.labels), ("annotations", self.annotations)):
            for key in keys:
                if not _KEY.fullmatch(key) or len(key.split("/")[0]) >= 253:
                    yield Fault(
                        (field, key),
                        f'found "{key}"; needed a name of up to 63 characters, perhaps after a DNS name and "/"',
                        "BadName",
                    )


class FrontendValidation(Schema):
    """How certificates of clients are checked."""

    ca_certificate_refs: Annotated[Many[ObjectRef], Field(min_length=1, max_length=16)]
    mode: Defaulted[Literal["AllowValidOnly", "AllowInsecureFallback"]] = "AllowValidOnly"


class FrontendTLSConfig(Schema):
    """TLS towards clients."""

    validation: FrontendValidation | None = None


class PortTLS(Schema):
    """TLS towards the clients of one port."""

    port: Port
    tls: FrontendTLSConfig


class FrontendTLS(Schema):
    """TLS towards clients, of all ports or of each."""

    default: FrontendTLSConfig
    per_port: Annotated[Many[PortTLS], Field(max_length=64), keyed("port")] = ()


class BackendTLS(Schema):
    """The certificate that is shown to backends."""

    client_certificate_ref: SecretRef | None = None


class GatewayTLS(Schema):
    """TLS of the whole Gateway."""

    backend: BackendTLS | None = None
    frontend: FrontendTLS | None = None


class GatewaySpec(Ruled):
    """Listeners of a class of gateways."""

    gateway_class_name: ObjectName
    listeners: Listeners
    addresses: Annotated[Many[GatewayAddress], Field(max_length=16)] = ()
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLS | None = None
    default_scope: Literal["All", "None"] | None = None

    def faults(self) -> Iterator[Fault]:
        """Listeners and addresses that differ."""
        yield from listener_faults(self.listeners)
        addresses = [
            (one.type, one.value) if one.type in ("IPAddress", "Hostname") and one.value else None for one in self.addresses
        ]
        for index, address in enumerate(addresses):
            if address and address in addresses[:index]:
                yield Fault(("addresses", index, "value"), f'found "{address[1]}" twice; needed each only once', "Duplicate")


class Gateway(Object):
    """A Gateway of the Gateway API."""

    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
    status: Defaulted[GatewayStatus | None] = Field(default_factory=GatewayStatus)


class GatewayParentRef(Schema):
    """The Gateway to which listeners are added."""

    group: Defaulted[Group] = GROUP_NAME
    kind: Defaulted[KindName] = "Gateway"
    namespace: DnsLabel | None = None
    name: ObjectName


class ListenerSetSpec(Ruled):
    """More listeners for a Gateway."""

    parent_ref: GatewayParentRef
    listeners: Listeners

    def faults(self) -> Iterator[Fault]:
        """Listeners that differ."""
        yield from listener_faults(self.listeners)


class ListenerSet(Object):
    """A ListenerSet of the Gateway API."""

    kind: Literal["ListenerSet"] = "ListenerSet"
    spec: ListenerSetSpec
    status: Defaulted[ListenerSetStatus | None] = Field(default_factory=ListenerSetStatus)


class GrantFrom(Schema):
    """Who may refer: a kind in a namespace."""

    group: Group
    kind: KindName
    namespace: DnsLabel


class GrantTo(Schema):
    """To what: a kind here, or one object of it."""

    group: Group
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrantSpec(Schema):
    """References across namespaces that this namespace allows."""

    from_: Annotated[Many[GrantFrom], Field(min_length=1, max_length=16)] = Field(alias="from")
    to: Annotated[Many[GrantTo], Field(min_length=1, max_length=16)]


class ReferenceGrant(Object):
    """A permission to refer into this namespace."""

    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec
