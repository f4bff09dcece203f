"""A row of the model → the objects that it was made of: who is to blame where a proxy refuses it."""

from __future__ import annotations

from typing import Any

from tulle.core.compile.destination_rules import rules_for
from tulle.core.compile.destinations import destination
from tulle.core.compile.gateway_hosts import gateway_virtual_host, workload_key
from tulle.core.compile.gateway_secrets import gateway_secret
from tulle.core.compile.gateways import bound
from tulle.core.compile.hosts import virtual_host
from tulle.core.compile.layers import route_table
from tulle.core.compile.objects import destination_rules, gateways, istio_gateways
from tulle.core.compile.workloads import workload
from tulle.core.flow import Flow, Table
from tulle.core.model.route import RouteTableKey, VirtualHost
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
        here = (one for one in flow.get(bound, key) or () if resource.endswith(f"_{one.port}"))
        return {ref for one in here for ref in _gateway(flow, one.istio, one.gateway)}
    if rows is gateway_secret:
        return {Ref(kind, namespace, name) for kind, namespace, name in key[1].objects}
    if rows is destination:
        return {rule.ref for one in flow.get(rules_for, key[0]) or () if (rule := flow.get(destination_rules, one))}
    return set()


def _gateways(flow: Flow, where: RouteTableKey) -> set[Ref]:
    """The Gateways that are bound to a port of a gateway workload."""
    here = (one for one in flow.get(bound, workload_key(where)) or () if (one.port, one.section) == (where.port, where.section))
    return {ref for one in here for ref in _gateway(flow, one.istio, one.gateway)}


def _gateway(flow: Flow, istio: bool, key: tuple[str, str]) -> set[Ref]:
    row = flow.get(istio_gateways, key) if istio else flow.get(gateways, key)
    return {row.ref} if row else set()
