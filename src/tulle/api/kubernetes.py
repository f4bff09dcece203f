"""The kinds of Kubernetes itself that the mesh reads (Namespace, Service, ServiceAccount) or keeps so that kubectl is at home."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from tulle.api.conditions import Condition
from tulle.api.list_types import keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.times import Time
from tulle.api.values import DNS_LABEL, Defaulted, Int32, IntOrString, Many, Map, Port

_PORT_NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")


class NamespaceSpec(Schema):
    """What a Namespace says beyond its name: nothing that the mesh reads."""

    finalizers: Many[str] = ()


class NamespaceCondition(Schema):
    """One thing that is or is not so."""

    type: str
    status: str
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class NamespaceStatus(Schema):
    """Whether a namespace takes objects."""

    phase: Defaulted[Literal["Active", "Terminating"]] = "Active"
    conditions: Annotated[Many[NamespaceCondition], keyed("type")] = ()


class Namespace(Object):
    """A namespace. Its labels may concern the mesh (`istio-injection`)."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Namespace"] = "Namespace"
    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)
    status: Defaulted[NamespaceStatus | None] = Field(default_factory=NamespaceStatus)


class ServicePort(Schema):
    """A port that callers use. `target_port` (a number or a port's name) is `port` where it is not written."""

    name: Annotated[str, Field(pattern=DNS_LABEL, max_length=63)] | None = None
    protocol: Defaulted[Literal["TCP", "UDP", "SCTP"]] = "TCP"
    app_protocol: str | None = None
    port: Port
    target_port: IntOrString = None
    node_port: Annotated[int, Field(ge=0, le=65535)] = 0


class ClientIP(Schema):
    """How long a client stays with an endpoint."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None


class SessionAffinityConfig(Schema):
    """Settings of session affinity."""

    client_ip: ClientIP | None = Field(default=None, alias="clientIP")


class ServiceSpec(Ruled):
    """A Service: `selector` picks the workloads behind it by their labels; `ports` are what callers use."""

    selector: Map[str] = Field(default_factory=dict)
    ports: Annotated[Many[ServicePort], keyed("port", "protocol")] = ()
    type: Defaulted[Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]] = "ClusterIP"
    cluster_ip: str = Field(default="", alias="clusterIP")
    cluster_ips: Many[str] = Field(default=(), alias="clusterIPs")
    external_ips: Many[str] = Field(default=(), alias="externalIPs")
    external_name: str = ""
    load_balancer_ip: str = Field(default="", alias="loadBalancerIP")
    load_balancer_source_ranges: Many[str] = ()
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    traffic_distribution: str | None = None
    health_check_node_port: Int32 = 0
    ip_families: Many[Literal["IPv4", "IPv6"]] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    publish_not_ready_addresses: bool = False
    session_affinity: Defaulted[Literal["None", "ClientIP"]] = "None"
    session_affinity_config: SessionAffinityConfig | None = None

    def faults(self) -> Iterator[Fault]:
        """Ports are told apart by name; a Service needs one unless it is headless or an alias."""
        if not self.ports and self.type != "ExternalName" and self.cluster_ip != "None":
            yield Fault(("ports",), "found none; needed at least one port", "Required")
        if self.type == "ExternalName" and not self.external_name:
            yield Fault(("externalName",), "found nothing; needed a DNS name, for the type is ExternalName", "Required")
        names: set[str] = set()
        for index, port in enumerate(self.ports):
            if not port.name and len(self.ports) > 1:
                yield Fault(
                    ("ports", index, "name"), "found nothing; needed a name, for the Service has several ports", "Required"
                )
            if port.name and port.name in names:
                yield Fault(("ports", index, "name"), f'found "{port.name}" twice; needed a name of its own', "Duplicate")
            if isinstance(port.target_port, int) and not 1 <= port.target_port <= 65535:
                yield Fault(("ports", index, "targetPort"), f"found {port.target_port}; needed a port from 1 to 65535")
            if isinstance(port.target_port, str) and port.target_port and not _is_port_name(port.target_port):
                message = 'needed the name of a port: at most 15 lower-case letters, digits and "-", a letter among them'
                yield Fault(("ports", index, "targetPort"), f'found "{port.target_port}"; {message}', "BadName")
            names.add(port.name or "")


class IngressPort(Schema):
    """A port of a load balancer."""

    port: Int32
    protocol: str
    error: str | None = None


class LoadBalancerIngress(Schema):
    """An address at which a load balancer is reached."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None
    ports: Many[IngressPort] = ()


class LoadBalancerStatus(Schema):
    """How a Service is reached from outside."""

    ingress: Many[LoadBalancerIngress] = ()


class ServiceStatus(Schema):
    """What is true of a Service."""

    load_balancer: LoadBalancerStatus | None = None
    conditions: Annotated[Many[Condition], keyed("type")] = ()


def _is_port_name(text: str) -> bool:
    return bool(len(text) <= 15 and _PORT_NAME.fullmatch(text)) and any(letter.isalpha() for letter in text)


class Service(Object):
    """A service that callers name."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
    status: ServiceStatus | None = None


class ObjectReference(Schema):
    """Names an object of any kind."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(Schema):
    """Names an object in the same namespace."""

    name: str = ""


class ServiceAccount(Object):
    """An identity: workloads that name it get `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/NAME`."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ServiceAccount"] = "ServiceAccount"
    secrets: Annotated[Many[ObjectReference], keyed("name")] = ()
    image_pull_secrets: Many[LocalObjectReference] = ()
    automount_service_account_token: bool | None = None


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("needed-secretly", "text in base64") from None
    return value


Bytes = Annotated[str, AfterValidator(_base64), Field(json_schema_extra={"format": "byte"})]


class Secret(Object):
    """Data that is not shown. `data` is in base64, `string_data` as it is."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    type: Defaulted[str] = "Opaque"
    data: Map[Bytes] = Field(default_factory=dict)
    string_data: Map[str] = Field(default_factory=dict)
    immutable: bool = False


class ConfigMap(Object):
    """Data for applications; the mesh reads some (a CA bundle)."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    data: Map[str] = Field(default_factory=dict)
    binary_data: Map[Bytes] = Field(default_factory=dict)
    immutable: bool = False


class EventSource(Schema):
    """Who reported an Event."""

    component: str = ""
    host: str = ""


class Event(Object):
    """Something that happened to an object."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Event"] = "Event"
    involved_object: ObjectReference
    reason: str = ""
    message: str = ""
    type: str = "Normal"
    count: Int32 = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    source: EventSource = Field(default_factory=EventSource)
    series: dict[str, Any] | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""
