"""VirtualService `tls` and `tcp` → TCP routes, in the order in which they are written, `tls` first.

As with HTTP routes, a row is for one caller: the sidecars of a namespace, or a Gateway, at the port of the call. What a match
says of the caller is decided here; what it says of the connection goes into the route. Destinations that are not there stay in
it: the connections that they get are closed, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tulle.api.istio import VirtualService
from tulle.api.istio.http import RouteDestination
from tulle.api.istio.virtual_service import L4MatchAttributes, TCPRoute, TLSMatchAttributes, TLSRoute
from tulle.core.compile import backends
from tulle.core.compile.callers import Source
from tulle.core.compile.destinations import carriage_of
from tulle.core.compile.hostname import full_name, service_key, tells_tls
from tulle.core.compile.mistakes import no_server_name, not_yet, sorted_problems, unsaid
from tulle.core.compile.objects import MESH, gateway_key, virtual_services
from tulle.core.compile.services import called, named_at
from tulle.core.compile.virtual_services import Caller
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Origin, WeightedDestination
from tulle.core.model.tcp_route import PLAIN, Carriage, TcpMatch, TcpRoute
from tulle.kit.problem import Problem, Ref


class TcpRoutes(msgspec.Struct, frozen=True):
    """The TCP routes of an object for one caller, and what is wrong with it."""

    routes: tuple[TcpRoute, ...] = ()
    problems: tuple[Problem, ...] = ()


@table
def virtual_service_tcp_routes(fetch: Fetch, key: Caller) -> TcpRoutes | None:
    """The TCP routes of (VirtualService, caller, port, source)."""
    row = fetch(virtual_services, key[0])
    if row is None:
        return None
    routes: list[TcpRoute] = []
    problems: list[Problem] = []
    for path, rule in _rules(row):
        matches, found = _matches(row, rule.match, path, key)
        problems += found
        if not matches:
            continue
        shares, found = _shares(fetch, row.ref, rule.route, path, key[2])
        problems += found
        problems += _tunnels(fetch, row.ref, shares, path, key[3])
        how = carried(fetch, shares, key[3])
        name = f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}"
        routes += (
            TcpRoute(name=name, match=match, destinations=shares, carriage=how, origin=Origin(row.ref, path)) for match in matches
        )
    return TcpRoutes(tuple(routes), sorted_problems(problems))


def carried(fetch: Fetch, shares: Sequence[WeightedDestination], source: Source) -> Carriage:
    """How connections of some callers to destinations are carried: within the bounds of all, by the first one's tunnel."""
    found = [how for share in shares if (how := _carried(fetch, share.destination, source))]
    durations = [one.max_duration for one in found if one.max_duration]
    # 0 is for ever.
    idle = [one.idle_timeout for one in found if one.idle_timeout is not None]
    how = Carriage(
        told=any(one.told for one in found),
        idle_timeout=min(filter(None, idle), default=0.0) if idle else None,
        max_duration=min(durations, default=0.0),
        tunnel=next((one.tunnel for one in found if one.tunnel), None),
    )
    return PLAIN if how == PLAIN else how


def _tunnels(fetch: Fetch, ref: Ref, shares: Sequence[WeightedDestination], path: str, source: Source) -> Iterator[Problem]:
    """Destinations of one rule that have different tunnels: Envoy opens one and the same for all connections of a chain."""
    found = {how.tunnel if (how := _carried(fetch, share.destination, source)) else None for share in shares}
    if len(found) > 1:
        yield not_yet(
            ref, f"{path}.route", "a tunnel (DestinationRule) that only some destinations of a rule have, or each another,"
        )


def _carried(fetch: Fetch, key: DestinationKey, source: Source) -> Carriage | None:
    named = called(fetch, key.hostname, "")
    return carriage_of(fetch, (named, key.port, key.subset), source) if named else None


def _rules(row: VirtualService) -> Iterator[tuple[str, TLSRoute | TCPRoute]]:
    yield from ((f"spec.tls[{index}]", rule) for index, rule in enumerate(row.spec.tls))
    yield from ((f"spec.tcp[{index}]", rule) for index, rule in enumerate(row.spec.tcp))


def _shares(
    fetch: Fetch, ref: Ref, route: Sequence[RouteDestination], path: str, called: int
) -> tuple[tuple[WeightedDestination, ...], list[Problem]]:
    problems: list[Problem] = []
    shares: list[WeightedDestination] = []
    for index, one in enumerate(route):
        at = f"{path}.route[{index}].destination"
        said = one.destination
        found = backends.find(fetch, ref, at, said.host, said.port.number if said.port else None, said.subset, called)
        if isinstance(found, Problem):
            problems.append(found)
            key = service_key(said.host, ref.namespace)
            found = DestinationKey(full_name(key) if key else said.host, said.port.number if said.port else called, said.subset)
        weight = one.weight if len(route) > 1 else 1
        if weight > 0:
            shares.append(WeightedDestination(found, weight, named_at=named_at(fetch, found)))
    return tuple(shares), problems


def _matches(
    row: VirtualService, said: Sequence[TLSMatchAttributes | L4MatchAttributes], path: str, caller: Caller
) -> tuple[list[TcpMatch], list[Problem]]:
    """The matches that concern the caller."""
    if not said:
        return [TcpMatch()], []
    problems: list[Problem] = []
    matches: list[TcpMatch] = []
    for index, one in enumerate(said):
        at = f"{path}.match[{index}]"
        problems += unsaid(row.ref, one, at, _SAID)
        names, found = _names(row.ref, one, at)
        problems += found
        if names is not None and _concerns(row, one, caller):
            source = getattr(one, "source_subnet", "")
            matches.append(TcpMatch(names=names, networks=one.destination_subnets, sources=(source,) if source else ()))
    return matches, problems


_SAID = (
    "sni_hosts",
    "destination_subnets",
    "source_subnet",
    "port",
    "gateways",
    "source_namespace",
    "source_labels",
)


def _names(ref: Ref, one: TLSMatchAttributes | L4MatchAttributes, path: str) -> tuple[tuple[str, ...] | None, list[Problem]]:
    """The server names of a match; None where it has some and none can be told."""
    if isinstance(one, L4MatchAttributes):
        return (), []
    problems: list[Problem] = []
    names: list[str] = []
    for index, host in enumerate(one.sni_hosts):
        if not tells_tls(host):
            problems.append(no_server_name(ref, f"{path}.sniHosts[{index}]", host))
        else:
            names.append(host.lower().rstrip("."))
    return tuple(names) or None, problems


def _concerns(row: VirtualService, one: TLSMatchAttributes | L4MatchAttributes, caller: Caller) -> bool:
    _key, who, port, source = caller
    if one.port not in (None, port) or one.source_namespace not in ("", source.namespace):
        return False
    if not set(one.source_labels.items()) <= set(source.labels):
        return False
    names = (name if name == MESH else gateway_key(name, row.metadata.namespace) for name in one.gateways)
    return not one.gateways or who in tuple(names)
