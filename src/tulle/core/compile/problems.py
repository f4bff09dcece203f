"""What is wrong with an object, given all the others: one row an object, put together from the modules of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tulle.api.gateway import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute, UDPRoute
from tulle.api.istio import VirtualService
from tulle.core.compile import mesh_udp
from tulle.core.compile import virtual_services as rules
from tulle.core.compile.authorization import authorization_policy_problems
from tulle.core.compile.backend_tls import backend_tls_policy_problems
from tulle.core.compile.callers import ANYBODY
from tulle.core.compile.destination_rules import destination_rule_problems
from tulle.core.compile.endpoint_slices import endpoint_slice_problems
from tulle.core.compile.endpoints import workload_entry_problems
from tulle.core.compile.exports import counts_for
from tulle.core.compile.gateway_hosts import served_hosts
from tulle.core.compile.gateway_problems import gateway_problems, istio_gateway_problems, listener_set_problems
from tulle.core.compile.gateway_tcp import unresolved
from tulle.core.compile.gateways import forwards, serves
from tulle.core.compile.hostname import Key, shown
from tulle.core.compile.hosts import attached_routes, chosen_virtual_service
from tulle.core.compile.kinds import RULES
from tulle.core.compile.mesh_tcp import mesh_tcp_problems, parent_problems
from tulle.core.compile.mistakes import error, meant, no_service, sorted_problems, unsaid, warning
from tulle.core.compile.mtls import peer_authentication_problems
from tulle.core.compile.objects import MESH, ROUTES, age, gateway_key, gateways, in_mesh, istio_gateways, virtual_services
from tulle.core.compile.parents import attachments_of
from tulle.core.compile.rate_limit_problems import rate_limit_problems
from tulle.core.compile.service_entries import service_entry_problems
from tulle.core.compile.services import called as meant_by
from tulle.core.compile.services import service, service_problems
from tulle.core.compile.sidecar_problems import mesh_config_problems, sidecar_problems
from tulle.core.compile.tcp_routes import virtual_service_tcp_routes
from tulle.core.compile.telemetry_problems import telemetry_problems
from tulle.core.compile.tokens import request_authentication_problems
from tulle.core.flow import Fetch, Table, table
from tulle.kit.problem import Problem


@table
def object_problems(fetch: Fetch, key: tuple[str, Key]) -> tuple[Problem, ...]:
    """The problems of (resource, object)."""
    resource, name = key
    kind = BY_RESOURCE.get(resource)
    return fetch(kind, name) or () if kind else ()


@table
def virtual_service_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Hosts and gateways that are not there, conflicts, and what is wrong in the rules, whoever calls."""
    row = fetch(virtual_services, key)
    if row is None:
        return ()
    problems = [*mesh_tcp_problems(fetch, key, row)]
    callers: set[tuple[Key | str, int]] = set()
    for collect in (_mesh, _gateways):
        for found in collect(fetch, key, row):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                callers.add(found)
    problems += _forwarded(fetch, key, row)
    for who, port in callers or {(MESH, 0)}:
        made = fetch(rules.virtual_service_routes, (key, who, port, ANYBODY))
        problems += made.problems if made else ()
    return sorted_problems(problems)


def _mesh(fetch: Fetch, key: Key, row: VirtualService) -> Iterator[Problem | tuple[str, int]]:
    """For the sidecars: the ports at which they call its hosts."""
    for index, host in enumerate(row.spec.hosts if in_mesh(row) else ()):
        path = f"spec.hosts[{index}]"
        target = meant_by(fetch, host, key[0])
        called = fetch(service, target) if target else None
        if host.startswith("*") and called is None:
            if older := _same_wildcard(fetch, row, host):
                message = f"the older {older.ref} has this host too and goes first for all who see both; needed one of the two"
                yield warning(row.ref, path, "Conflict", message)
            continue
        if target is None or called is None:
            found = no_service(fetch, target) if target else f"{host} is no Service of the mesh"
            yield warning(row.ref, path, "HostNotFound", f"{found}; nobody calls this host through the mesh until there is one")
            continue
        ports = [port.number for port in called.ports if port.protocol.may_be_http]
        yield from ((MESH, port) for port in ports)
        if row.spec.http and not ports:
            message = f"every port of {shown(target)} is declared as something else; needed appProtocol: http"
            yield warning(row.ref, path, "NoHttpPort", message)
        before = [one for port in ports for one in attached_routes(fetch, target, port, key[0])]
        if row.spec.http and before:
            kind, (space, name) = before[0]
            message = f"{kind} {space}/{name} has this Service as parent and goes first; this one has what that leaves over"
            yield warning(row.ref, path, "Conflict", message)
        winners = {fetch(chosen_virtual_service, (target, viewer)) for viewer in (key[0], called.namespace, "")} - {None}
        if row.spec.http and winners and key not in winners:
            first = min(winner for winner in winners if winner)
            message = f"VirtualService {first[0]}/{first[1]} has this host too and goes first; needed one of the two"
            yield warning(row.ref, path, "Conflict", f"{message}: this one has no effect")


def _same_wildcard(fetch: Fetch, row: VirtualService, host: str) -> VirtualService | None:
    """The oldest of those that go before this one wherever callers of its namespace ask for such a host."""
    others = (one for one in fetch.rows(virtual_services, "host", "*") if one.spec.http and age(one) < age(row))
    seen = (one for one in others if host in one.spec.hosts and in_mesh(one) and counts_for(fetch, one, row.metadata.namespace))
    return min(seen, key=age, default=None) if row.spec.http else None


def _gateways(fetch: Fetch, key: Key, row: VirtualService) -> Iterator[Problem | tuple[Key, int]]:
    """For gateways: the ports of their servers."""
    for index, name in enumerate(row.spec.gateways):
        if name == MESH:
            continue
        path = f"spec.gateways[{index}]"
        target = gateway_key(name, key[0])
        gateway = fetch(istio_gateways, target)
        if gateway is None:
            near = meant(target[1], (other for _space, other in fetch.keys(istio_gateways, "namespace", target[0])))
            if fetch(gateways, target):
                near = "; there is one of gateway.networking.k8s.io, to which HTTPRoutes attach"
            message = f"no Gateway {target[1]} in namespace {target[0]}{near}"
            yield error(row.ref, path, "GatewayNotFound", message)
            continue
        served = [server for server in gateway.spec.servers if serves(server) or forwards(server)]
        yield from ((target, server.port.number) for server in served if serves(server))
        if served and not any(next(served_hosts(server, target[0], key[0], row.spec.hosts), None) for server in served):
            has = ", ".join(sorted({host for server in served for host in server.hosts}))
            message = f"Gateway {target[0]}/{target[1]} serves {has}; needed a host among spec.hosts that it serves"
            yield warning(row.ref, path, "NoMatchingHost", message)


def _forwarded(fetch: Fetch, key: Key, row: VirtualService) -> Iterator[Problem]:
    """What is wrong with the rules for connections, at the gateways that forward some."""
    for name in row.spec.gateways if row.spec.tls or row.spec.tcp else ():
        target = gateway_key(name, key[0])
        gateway = fetch(istio_gateways, target) if name != MESH else None
        for server in gateway.spec.servers if gateway else ():
            if forwards(server):
                made = fetch(virtual_service_tcp_routes, (key, target, server.port.number, ANYBODY))
                yield from made.problems if made else ()


@table
def l4_route_problems(fetch: Fetch, key: tuple[str, Key]) -> tuple[Problem, ...]:
    """Of a (TLSRoute, TCPRoute or UDPRoute): parents that are not there or do not take it, backends, and what has no effect."""
    kind, name = key
    row: TLSRoute | TCPRoute | UDPRoute | None = fetch(ROUTES[kind], name)
    if row is None:
        return ()
    problems = [*unresolved(fetch, row), *unsaid(row.ref, row.spec, "spec", ("parent_refs", "hostnames", "rules"))]
    problems += (one.fault.of(row.ref) for one in fetch(attachments_of, key) or () if one.fault)
    problems += mesh_udp.parent_problems(fetch, row) if isinstance(row, UDPRoute) else parent_problems(fetch, row)
    # Their rules match nothing in particular: all that comes in by a route's parents is the first one's.
    problems += (
        warning(row.ref, f"spec.rules[{index}]", "UnreachableRule", "spec.rules[0] takes everything; needed a route of its own")
        for index in range(1, len(row.spec.rules))
    )
    if not row.spec.parent_refs:
        message = "found none; needed a Gateway, or a Service for the mesh: the route has no effect"
        problems.append(warning(row.ref, "spec.parentRefs", "NoParent", message))
    return sorted_problems(problems)


@table
def services_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a Service."""
    return *(fetch(service_problems, key) or ()), *(fetch(mesh_udp.service_udp_problems, key) or ())


@table
def tls_route_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a TLSRoute."""
    return fetch(l4_route_problems, ("TLSRoute", key)) or ()


@table
def tcp_route_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a TCPRoute."""
    return fetch(l4_route_problems, ("TCPRoute", key)) or ()


@table
def udp_route_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a UDPRoute."""
    return fetch(l4_route_problems, ("UDPRoute", key)) or ()


@table
def http_route_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Parents that are not there or do not take the route, and what is wrong in the rules."""
    return _route(fetch, "HTTPRoute", key)


@table
def grpc_route_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """The same of a GRPCRoute."""
    return _route(fetch, "GRPCRoute", key)


def _route(fetch: Fetch, kind: str, key: Key) -> tuple[Problem, ...]:
    row: HTTPRoute | GRPCRoute | None = fetch(ROUTES[kind], key)
    if row is None:
        return ()
    made = fetch(RULES[kind], key)
    problems = [*(made.problems if made else ()), *unsaid(row.ref, row.spec, "spec", ("parent_refs", "hostnames", "rules"))]
    problems += (one.fault.of(row.ref) for one in fetch(attachments_of, (kind, key)) or () if one.fault)
    if not row.spec.parent_refs:
        message = "found none; needed a Gateway, or a Service for the mesh: the route has no effect"
        problems.append(warning(row.ref, "spec.parentRefs", "NoParent", message))
    elif row.spec.hostnames and all(parent.kind == "Service" for parent in row.spec.parent_refs):
        # So the Gateway API has it: in the mesh a route is for its Service, by all of its names.
        message = "found host names for a Service; needed none: only those of a Gateway have an effect"
        problems.append(warning(row.ref, "spec.hostnames", "NotYetSupported", message))
    return sorted_problems(problems)


BY_RESOURCE: Mapping[str, Table[Key, tuple[Problem, ...]]] = {
    "services": services_problems,
    "endpointslices.discovery.k8s.io": endpoint_slice_problems,
    "serviceentries.networking.istio.io": service_entry_problems,
    "sidecars.networking.istio.io": sidecar_problems,
    "meshconfigs.tulle.dev": mesh_config_problems,
    "ratelimits.tulle.dev": rate_limit_problems,
    "workloadentries.networking.istio.io": workload_entry_problems,
    "virtualservices.networking.istio.io": virtual_service_problems,
    "backendtlspolicies.gateway.networking.k8s.io": backend_tls_policy_problems,
    "destinationrules.networking.istio.io": destination_rule_problems,
    "gateways.networking.istio.io": istio_gateway_problems,
    "peerauthentications.security.istio.io": peer_authentication_problems,
    "authorizationpolicies.security.istio.io": authorization_policy_problems,
    "requestauthentications.security.istio.io": request_authentication_problems,
    "telemetries.telemetry.istio.io": telemetry_problems,
    "gateways.gateway.networking.k8s.io": gateway_problems,
    "listenersets.gateway.networking.k8s.io": listener_set_problems,
    "httproutes.gateway.networking.k8s.io": http_route_problems,
    "grpcroutes.gateway.networking.k8s.io": grpc_route_problems,
    "tlsroutes.gateway.networking.k8s.io": tls_route_problems,
    "tcproutes.gateway.networking.k8s.io": tcp_route_problems,
    "udproutes.gateway.networking.k8s.io": udp_route_problems,
}
