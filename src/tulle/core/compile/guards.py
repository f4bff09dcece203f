"""Where the policies of a workload stand: one guard for all that it is called at, others for the ports that policies single out.

The guard for everything has no name and is always there. Others are named after the port of a sidecar, or after port and section
of a gateway. A policy that comes, goes or becomes another changes the content of guards, and no listener: except where it is the
first or the last that singles out a port, looks at headers, asks somebody, or only takes notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tulle.core.compile.authorization import authorizers_of, guarding
from tulle.core.compile.endpoints import instance
from tulle.core.compile.gateways import Served, served
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import gateways, istio_gateways, settled, workload_entries
from tulle.core.compile.places import places
from tulle.core.compile.policy_targets import CLASS, SOURCES, Target, in_order, policies_for, policies_of
from tulle.core.compile.revoked import revoked_policies
from tulle.core.compile.service_entries import entries_of
from tulle.core.compile.services import service
from tulle.core.compile.tokens import token_rules
from tulle.core.compile.workload_notes import app_ports
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.authorization import (
    OPEN,
    OPEN_TO_STRANGERS,
    Action,
    Asking,
    Authorization,
    Authorizer,
    Guard,
    Policy,
    TokenRule,
)
from tulle.core.model.gateway import GatewayChain, GatewayListener


@table
def port_policies(fetch: Fetch, key: Key) -> dict[str, dict[str, tuple[Key, ...]]]:
    """The policies by kind that refer to what a workload is called by; by the names of the guards that this makes necessary."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return {}
    found: dict[str, dict[str, tuple[Key, ...]]] = {}
    for name, target in places_called(fetch, key):
        for kind in SOURCES:
            if policies := policies_for(fetch, kind, target):
                before = found.setdefault(name, {})
                before[kind] = tuple(dict.fromkeys((*before.get(kind, ()), *policies)))
    return found


def places_called(fetch: Fetch, key: Key) -> Iterator[tuple[str, Target]]:
    """What a workload is called by, and where: a port, a port and section of a gateway, or (of its only Gateway) "" for all."""
    yield from _services(fetch, key)
    yield from _gateways(fetch, key)


def _services(fetch: Fetch, key: Key) -> Iterator[tuple[str, Target]]:
    """The ports of a workload, and the Services and ServiceEntries that call it there."""
    here = fetch(instance, key)
    for one in fetch(services_of, key) or () if here else ():
        row = fetch(service, one)
        assert here is not None
        targets: list[Target] = [("networking.istio.io", "ServiceEntry", entry) for entry in fetch(entries_of, one) or ()]
        if row and not row.entry:
            targets = [("", "Service", one)]
        for port in row.ports if row else ():
            yield from ((str(here.port(port)), target) for target in targets)


def _gateways(fetch: Fetch, key: Key) -> Iterator[tuple[str, Target]]:
    """What a gateway workload binds, and for which Gateways. What refers to its only one is for everything."""
    found = fetch(served, key) or Served()
    bound = (*found.bound, *(it.bound for it in found.tcp))
    only = len({(one.istio, one.gateway) for one in bound}) == 1
    for one in bound:
        section = one.section if one in found.bound else ""
        name = "" if only else place_name(one.port, section)
        if one.istio:
            yield name, ("networking.istio.io", "Gateway", one.gateway)
            continue
        yield name, ("gateway.networking.k8s.io", "Gateway", one.gateway)
        row = fetch(gateways, one.gateway)
        for space in settled(fetch).root_namespaces if row else ():
            yield name, (*CLASS, (space, row.spec.gateway_class_name if row else ""))


def place_name(port: int, section: str = "") -> str:
    """How a port, or a section of a gateway there, is called among the places of a workload."""
    return f"{port}~{section}" if section else str(port)


def _keys(fetch: Fetch, kind: str, workload: Key, name: str) -> tuple[Key, ...]:
    """The policies of a kind that a guard has."""
    more = (fetch(port_policies, workload) or {}).get(name, {}).get(kind, ())
    everywhere = fetch(policies_of, (kind, workload)) or ()
    return in_order(fetch, kind, dict.fromkeys((*everywhere, *more))) if more else everywhere


@table
def guarding_policies(fetch: Fetch, key: tuple[Key, str]) -> tuple[Policy, ...]:
    """The policies of a workload's guard, by its name."""
    return guarding(fetch, _keys(fetch, "AuthorizationPolicy", *key))


def _policies(fetch: Fetch, workload: Key, name: str) -> tuple[Policy, ...]:
    found: tuple[Policy, ...] | None = fetch(guarding_policies, (workload, name))
    return found or ()


def _tokens(fetch: Fetch, workload: Key, name: str) -> tuple[TokenRule, ...]:
    keys = _keys(fetch, "RequestAuthentication", workload, name)
    return tuple(rule for key in keys for rule in fetch(token_rules, key) or ())


@table
def authorization(fetch: Fetch, key: tuple[Key, Guard]) -> Authorization:
    """The policies of a workload's guard."""
    workload, guard = key
    policies, tokens = _policies(fetch, workload, guard.name), _tokens(fetch, workload, guard.name)
    ports = (fetch(other_ports, workload) or ()) if policies else ()
    lost = fetch(revoked_policies, None) or ()
    return Authorization(guard, (*lost, *policies), tokens, ports, authorizers_of(fetch, policies))


@table
def unguarded(fetch: Fetch, guard: Guard) -> Authorization:
    """What a guard without a name has where a workload has nothing for it: nothing is asked. All workloads share it."""
    return Authorization(guard, fetch(revoked_policies, None) or ())


def asks(fetch: Fetch, workload: Key, guard: Guard) -> bool:
    """Whether a guard is one of the workload's own; the mesh has those that ask nothing."""
    return bool(guard.name or _policies(fetch, workload, "") or _tokens(fetch, workload, ""))


@table
def other_ports(fetch: Fetch, key: Key) -> tuple[tuple[int, int], ...]:
    """Ports that have another number for those who write policies, and what the proxy has them at."""
    entry = fetch(workload_entries, key)
    found = {(app, port) for port, app in (app_ports(entry) if entry else {}).items() if app != port}
    for one in (fetch(served, key) or Served()).bound:
        if one.istio:
            row = fetch(istio_gateways, one.gateway)
            said = row.spec.servers[one.index].port.number if row else one.port
        else:
            said = (fetch(places, one.gateway) or ())[one.index].listener.port
        if said != one.port:
            found.add((said, one.port))
    return tuple(sorted(found))


@table
def guard(fetch: Fetch, key: tuple[Key, str]) -> Guard:
    """What stands before a (workload, port or section)."""
    workload, name = key
    name = name if name in (fetch(port_policies, workload) or {}) else ""
    policies = _policies(fetch, workload, name)
    return _guard(name, policies, _tokens(fetch, workload, name), authorizers_of(fetch, policies))


def is_guarded(fetch: Fetch, workload: Key, port: int) -> bool:
    """Whether a policy decides who gets in at a port."""
    found = _policies(fetch, workload, str(port) if str(port) in (fetch(port_policies, workload) or {}) else "")
    return any(one.action is not Action.AUDIT and not one.dry_run for one in found)


def _guard(name: str, policies: Sequence[Policy], tokens: Sequence[TokenRule], authorizers: Sequence[Authorizer]) -> Guard:
    late = {policy.provider for policy in policies if policy.tokens}
    made = Guard(
        name,
        headers=any(policy.headers for policy in policies) or any(rule.payload_header or rule.claim_headers for rule in tokens),
        audit=any(policy.action is Action.AUDIT for policy in policies),
        asking=tuple(Asking(one.name, one.asks.grpc, one.name in late) for one in authorizers),
    )
    return OPEN if made == OPEN else made


def guarded_listeners(fetch: Fetch, key: Key, listeners: Iterable[GatewayListener]) -> Iterator[GatewayListener]:
    """The listeners of a gateway workload with what stands before each chain."""
    for listener in listeners:
        chains = tuple(_chain(fetch, key, listener.port, chain) for chain in listener.chains)
        routes = (fetch(guard, (key, str(listener.port))) or OPEN).outside if listener.routes else OPEN_TO_STRANGERS
        yield msgspec.structs.replace(listener, chains=chains, guard=routes)


def _chain(fetch: Fetch, key: Key, port: int, chain: GatewayChain) -> GatewayChain:
    found = fetch(guard, (key, place_name(port, chain.table.section if chain.table else ""))) or OPEN
    return msgspec.structs.replace(chain, guard=found if chain.tls is not None and chain.tls.mesh else found.outside)
