"""What the mesh says of the Gateway API's kinds: conditions of each object, for each parent and each listener."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Annotated

from pydantic import Field

from tulle.api.conditions import Condition, waiting
from tulle.api.fault import Fault
from tulle.api.gateway.shared import ADDRESS_TYPE, CONTROLLER, GROUP_NAME, ParentRef, ip_fault
from tulle.api.list_types import keyed
from tulle.api.object import Ruled, Schema
from tulle.api.values import HOSTNAME, Defaulted, Group, Int32, KindName, Many, SectionName, Words

Conditions = Annotated[Many[Condition], Field(max_length=8), keyed("type")]
SomeConditions = Annotated[Many[Condition], Field(min_length=1, max_length=8), keyed("type")]
Controller = Annotated[
    str, Field(pattern=CONTROLLER, min_length=1, max_length=253), Words('a controller such as "tulle.dev/gateway"')
]


class RouteGroupKind(Schema):
    """A kind of routes."""

    group: Defaulted[Group] = GROUP_NAME
    kind: KindName


class RouteParentStatus(Schema):
    """What a controller says of a route and one of its parents."""

    parent_ref: ParentRef
    controller_name: Controller
    conditions: SomeConditions


class RouteStatus(Schema):
    """What is true of a route, for each parent."""

    parents: Annotated[Many[RouteParentStatus], Field(max_length=32)]


class PolicyAncestorStatus(Schema):
    """What a controller says of a policy and something that it concerns."""

    ancestor_ref: ParentRef
    controller_name: Controller
    conditions: SomeConditions


class PolicyStatus(Schema):
    """What is true of a policy, for each thing that it concerns."""

    ancestors: Annotated[Many[PolicyAncestorStatus], Field(max_length=16)]


class SupportedFeature(Schema):
    """A feature that the controller of a class has."""

    name: str


class GatewayClassStatus(Schema):
    """What is true of a class."""

    conditions: Defaulted[Conditions] = Field(default_factory=partial(waiting, "Accepted"))
    supported_features: Annotated[Many[SupportedFeature], Field(max_length=64), keyed("name")] = ()


class ListenerStatus(Schema):
    """What is true of a listener, and how many routes are attached to it."""

    name: SectionName
    supported_kinds: Annotated[Many[RouteGroupKind], Field(max_length=8)] = ()
    attached_routes: Int32
    conditions: Conditions


Listeners = Annotated[Many[ListenerStatus], Field(max_length=64), keyed("name")]


class GatewayStatusAddress(Ruled):
    """An address at which a Gateway is reached."""

    type: Defaulted[
        Annotated[str, Field(pattern=ADDRESS_TYPE, min_length=1, max_length=253), Words("IPAddress, Hostname or NamedAddress")]
    ] = "IPAddress"
    value: Annotated[str, Field(min_length=1, max_length=253)]

    def faults(self) -> Iterator[Fault]:
        """A value of the type."""
        if self.type == "IPAddress":
            yield from ip_fault(self.value, "value")
        if self.type == "Hostname" and not re.match(HOSTNAME, self.value):
            yield Fault(("value",), f'found "{self.value}"; needed a host name in lower case')


class GatewayStatus(Schema):
    """What is true of a Gateway and of each of its listeners."""

    addresses: Annotated[Many[GatewayStatusAddress], Field(max_length=16)] = ()
    conditions: Defaulted[Conditions] = Field(default_factory=partial(waiting, "Accepted", "Programmed"))
    listeners: Listeners = ()
    attached_listener_sets: Int32 | None = None


class ListenerSetStatus(Schema):
    """What is true of a ListenerSet and of each of its listeners."""

    conditions: Defaulted[Conditions] = Field(default_factory=partial(waiting, "Accepted", "Programmed"))
    listeners: Listeners = ()
