"""A row of the model → the objects that it was made of: who is to blame where a proxy refuses it."""

from __future__ import annotations

from typing import Any

from tulle.core.compile.caller_rules import destination_apart
from tulle.core.compile.client_certificates import own_destination
from tulle.core.compile.counters import limited
from tulle.core.compile.destination_rules import rules_for, rules_of
from tulle.core.compile.destinations import destination
from tulle.core.compile.endpoints import endpoints, selected
from tulle.core.compile.gateway_hosts import gateway_virtual_host, workload_key
from tulle.core.compile.gateway_secrets import gateway_secret
from tulle.core.compile.gateway_udp import udp_bound
from tulle.core.compile.gateways import ANY_ADDRESS, bound
from tulle.core.compile.hostname import Key, is_address, meanings
from tulle.core.compile.hosts import virtual_host
from tulle.core.compile.layers import route_table
from tulle.core.compile.localities import endpoints_from
from tulle.core.compile.mesh_udp import (
    Called,
    bound_addresses,
    followed,
    mesh_udp_destination,
    mesh_udp_endpoints,
    outbound_udp,
    outbound_udp_six,
    udp_called,
)
from tulle.core.compile.objects import (
    destination_rules,
    gateways,
    istio_gateways,
    rate_limits,
    telemetries,
    udp_routes,
    workload_entries,
)
from tulle.core.compile.outbound import outbound, outbound_apart, outbound_six, outbound_six_told, outbound_told
from tulle.core.compile.services import service
from tulle.core.compile.workloads import workload
from tulle.core.flow import Flow, Table
from tulle.core.model.rate_limit import Limited
from tulle.core.model.route import RouteTableKey, VirtualHost
from tulle.core.model.workload import Outbound
from tulle.kit.problem import Ref


def makers(flow: Flow, rows: Table[Any, Any], key: Any, resource: str) -> set[Ref]:
    """The objects behind a resource, by its name, that (table, key) of the model became."""
    if rows in (virtual_host, gateway_virtual_host):
        row: VirtualHost | None = flow.get(rows, key)
        found = {route.origin.ref for route in row.routes if route.origin} if row else set()
        return found | (_gateways(flow, key[0]) if rows is gateway_virtual_host else set())
    if rows is route_table and key.gateway:
        return _gateways(flow, key)
    if rows is workload:
        at = (one for one in flow.get(bound, key) or () if resource.endswith(f"_{one.port}"))
        udp = (one for one in flow.get(udp_bound, key) or () if resource == f"udp_{ANY_ADDRESS}_{one.port}")
        found = {ref for one in at for ref in _gateway(flow, one.istio, one.gateway)}
        return found | {ref for one in udp for ref in _gateway(flow, False, one.gateway)}
    if rows is limited:
        counted: Limited | None = flow.get(limited, key)
        objects = (flow.get(rate_limits, one.object) for one in (counted.limits if counted else ()))
        return {one.ref for one in objects if one}
    if rows is gateway_secret:
        return {Ref(kind, namespace, name) for kind, namespace, name in key[1].objects}
    if rows is own_destination:
        return _gateway(flow, False, key[1])
    if rows is destination:
        rules = {rule.ref for one in flow.get(rules_for, key[0]) or () if (rule := flow.get(destination_rules, one))}
        return rules | _service(flow, key[0])
    if rows is endpoints:
        return _service(flow, key[0])
    if rows is endpoints_from:
        return _service(flow, key[0][0])
    if rows in (mesh_udp_destination, mesh_udp_endpoints):
        return _datagrams(flow, key)
    if rows in (outbound_udp, outbound_udp_six):
        address, _, port = resource.removeprefix("udp_").rpartition("_")
        here = (one for one in flow.get(udp_called, key) or () if str(one[1]) == port)
        return {
            ref
            for one in here
            if (it := flow.get(service, one[0])) and address in bound_addresses(it)
            for ref in _datagrams(flow, one)
        }
    if rows in (outbound, outbound_apart, outbound_six):
        return _connections(flow, flow.get(rows, key), resource)
    if rows in (outbound_told, outbound_six_told):
        telemetry = flow.get(telemetries, key[1])
        return _connections(flow, flow.get(rows, key), resource) | ({telemetry.ref} if telemetry else set())
    if rows is destination_apart:
        return {rule.ref for one in flow.get(rules_of, (key[0][0], key[1])) or () if (rule := flow.get(destination_rules, one))}
    return set()


def _service(flow: Flow, key: Key) -> set[Ref]:
    """The object that a service is, and those that bring its endpoints."""
    row = flow.get(service, key)
    entries = (flow.get(workload_entries, one) for one in flow.get(selected, key) or ())
    return {row.ref, *(one.ref for one in entries if one)} if row else set()


def _datagrams(flow: Flow, key: Called) -> set[Ref]:
    """A Service with a UDP port, and the route that this follows."""
    route = flow.get(followed, key)
    row = flow.get(udp_routes, route) if route else None
    return _service(flow, key[0]) | ({row.ref} if row else set())


def _connections(flow: Flow, row: Outbound | None, resource: str) -> set[Ref]:
    """Who is told by a listener for an address and a port: services, and rules for connections."""
    address, _, port = resource.rpartition("_")
    everywhere = address in ("0.0.0.0", "[::]")  # noqa: S104 - a name
    here = (
        [
            one
            for one in row.tcp
            if str(one.port) == port and (one.address == address or (everywhere and not is_address(one.address)))
        ]
        if row
        else []
    )
    found = {route.origin.ref for one in here for route in one.routes if route.origin}
    return found.union(*(_service(flow, key) for one in here for key in meanings(one.destination.hostname, "")))


def _gateways(flow: Flow, where: RouteTableKey) -> set[Ref]:
    """The Gateways that are bound to a port of a gateway workload."""
    here = (one for one in flow.get(bound, workload_key(where)) or () if (one.port, one.section) == (where.port, where.section))
    return {ref for one in here for ref in _gateway(flow, one.istio, one.gateway)}


def _gateway(flow: Flow, istio: bool, key: tuple[str, str]) -> set[Ref]:
    row = flow.get(istio_gateways, key) if istio else flow.get(gateways, key)
    return {row.ref} if row else set()
