"""VirtualService: which requests for some hosts go where, and what happens to them on the way.

Fields and their bounds are those of networking.istio.io; `core/compile` gives them their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from tulle.api.istio.hosts import export_to_faults, gateway_name_fault, host_fault, subnet_fault
from tulle.api.istio.http import (
    CorsPolicy,
    Delegate,
    Destination,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPMirrorPolicy,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRouteDestination,
    RouteDestination,
)
from tulle.api.istio.shared import Percent
from tulle.api.istio.status import IstioStatus
from tulle.api.list_types import UNIQUE
from tulle.api.object import Fault, Object, Ruled
from tulle.api.values import Duration, Many, Map, Nullable, UInt32

__all__ = [
    "Destination",
    "HTTPFaultInjection",
    "HTTPMatchRequest",
    "HTTPRetry",
    "HTTPRoute",
    "HTTPRouteDestination",
    "TCPRoute",
    "TLSRoute",
    "VirtualService",
    "VirtualServiceSpec",
]


class HTTPRoute(Ruled):
    """One rule: where one of `match` holds (or there is none), this happens."""

    name: str = ""
    match: Many[HTTPMatchRequest] = ()
    route: Many[HTTPRouteDestination] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: Duration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: Many[HTTPMirrorPolicy] = ()
    mirror_percent: Nullable[UInt32] = None  # older spelling of mirrorPercentage
    mirror_percent_older: Nullable[UInt32] = Field(default=None, alias="mirror_percent")  # and its own
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None

    def faults(self) -> Iterator[Fault]:
        """One action; weights that say something."""
        yield from self._one_action()
        yield from weight_faults(self.route)
        for name in ("mirrorPercent", "mirror_percent"):
            value = self.mirror_percent if name == "mirrorPercent" else self.mirror_percent_older
            if value is not None and value > 100:
                yield Fault((name,), f"found {value}; needed a percentage from 0 to 100")
        if self.mirror and self.mirrors:
            yield Fault((), "found mirror and mirrors; needed at most one of mirror or mirrors", "OneOf")

    def _one_action(self) -> Iterator[Fault]:
        others = {"redirect": self.redirect, "directResponse": self.direct_response, "delegate": self.delegate}
        found = [*(("route",) if self.route else ()), *(name for name, value in others.items() if value is not None)]
        if not found:
            yield Fault((), "found no action; needed one of route, redirect, directResponse or delegate", "Required")
        if len(found) > 1:
            yield Fault(
                (), f"found {' and '.join(found)}; needed only one of route, redirect, directResponse or delegate", "OneOf"
            )
        if self.delegate is not None and self.fault is not None:
            yield Fault(("fault",), "found a fault beside delegate; needed it in the delegate's routes", "OneOf")
        if self.redirect is not None and (self.fault is not None or self.rewrite is not None):
            other = "fault" if self.fault is not None else "rewrite"
            yield Fault(
                (other,), f"found {other} beside redirect; needed one of the two: a redirect is answered at once", "OneOf"
            )
        if self.direct_response is not None and self.rewrite is not None:
            yield Fault(("rewrite",), "found rewrite beside directResponse; needed one of the two", "OneOf")


def weight_faults(route: Sequence[HTTPRouteDestination | RouteDestination]) -> Iterator[Fault]:
    """Weights are not negative, and where there are several destinations, not all zero."""
    for index, one in enumerate(route):
        if one.weight < 0:
            yield Fault(("route", index, "weight"), f"found {one.weight}; needed 0 or more", "BadWeight")
    if len(route) > 1 and sum(one.weight for one in route) == 0:
        yield Fault(
            ("route",), "found weights whose sum is 0; needed a weight above 0 for at least one destination", "WeightSumZero"
        )


class TLSMatchAttributes(Ruled):
    """All of what is written must hold for a TLS connection."""

    sni_hosts: Many[str]
    destination_subnets: Many[str] = ()
    port: UInt32 | None = None
    source_labels: Map[str] = Field(default_factory=dict)
    source_namespace: str = ""
    gateways: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Server names, networks, gateways."""
        if not self.sni_hosts:
            yield Fault(("sniHosts",), "found none; needed at least one server name", "Required")
        for index, host in enumerate(self.sni_hosts):
            yield from host_fault(host, "sniHosts", index)
        yield from _connection_faults(self)


class L4MatchAttributes(Ruled):
    """All of what is written must hold for a TCP connection."""

    destination_subnets: Many[str] = ()
    port: UInt32 | None = None
    source_subnet: str = ""
    source_labels: Map[str] = Field(default_factory=dict)
    source_namespace: str = ""
    gateways: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Networks, gateways."""
        yield from _connection_faults(self)
        if self.source_subnet:
            yield from subnet_fault(self.source_subnet, "sourceSubnet")


def _connection_faults(match: TLSMatchAttributes | L4MatchAttributes) -> Iterator[Fault]:
    for index, subnet in enumerate(match.destination_subnets):
        yield from subnet_fault(subnet, "destinationSubnets", index)
    for index, gateway in enumerate(match.gateways):
        yield from gateway_name_fault(gateway, "gateways", index)


class TLSRoute(Ruled):
    """A rule for TLS connections that are passed through."""

    match: Many[TLSMatchAttributes]
    route: Many[RouteDestination] = ()

    def faults(self) -> Iterator[Fault]:
        """A match and a destination."""
        if not self.match:
            yield Fault(("match",), "found none; needed at least one match with sniHosts", "Required")
        if not self.route:
            yield Fault(("route",), "found none; needed at least one destination", "Required")
        yield from weight_faults(self.route)


class TCPRoute(Ruled):
    """A rule for TCP connections."""

    match: Many[L4MatchAttributes] = ()
    route: Many[RouteDestination] = ()

    def faults(self) -> Iterator[Fault]:
        """A destination."""
        if not self.route:
            yield Fault(("route",), "found none; needed at least one destination", "Required")
        yield from weight_faults(self.route)


class VirtualServiceSpec(Ruled):
    """Routes for `hosts`, in the sidecars (`mesh`, the default) or in named gateways."""

    hosts: Many[str] = ()
    gateways: Many[str] = ()
    http: Many[HTTPRoute] = ()
    tls: Many[TLSRoute] = ()
    tcp: Many[TCPRoute] = ()
    export_to: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Hosts, gateways and something to do. Without hosts it is a delegate: HTTP routes for others to include."""
        if not self.hosts and self.gateways:
            yield Fault(("gateways",), "found gateways without hosts; needed hosts (a delegate has neither)", "Required")
        if not self.hosts and not self.http:
            yield Fault(("hosts",), "found none; needed at least one host", "Required")
        for index, host in enumerate(self.hosts):
            yield from host_fault(host, "hosts", index)
            in_mesh = not self.gateways or "mesh" in self.gateways
            if host == "*" and in_mesh:
                yield Fault(
                    ("hosts", index), 'found "*" for the sidecars; needed a host name, or gateways without "mesh"', "BadHost"
                )
        yield from UNIQUE.below(self.hosts, "hosts")
        for index, gateway in enumerate(self.gateways):
            yield from gateway_name_fault(gateway, "gateways", index)
        if not (self.http or self.tls or self.tcp):
            yield Fault((), "found no routes; needed at least one of http, tls or tcp", "Required")
        yield from export_to_faults(self.export_to)


class VirtualService(Object):
    """Istio's VirtualService."""

    kind: Literal["VirtualService"] = "VirtualService"
    spec: VirtualServiceSpec
    status: IstioStatus | None = None
