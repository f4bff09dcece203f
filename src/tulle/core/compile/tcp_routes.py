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
from tulle.core.compile.destinations import told
from tulle.core.compile.hostname import full_name, service_key
from tulle.core.compile.mistakes import sorted_problems, unsaid, warning
from tulle.core.compile.objects import MESH, gateway_key, virtual_services
from tulle.core.compile.services import called
from tulle.core.compile.virtual_services import Caller
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Origin, WeightedDestination
from tulle.core.model.tcp_route import ANY_TLS, TcpMatch, TcpRoute
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
        mesh = any(is_told(fetch, share.destination) for share in shares)
        name = f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}"
        routes += (
            TcpRoute(name=name, match=match, destinations=shares, told=mesh, origin=Origin(row.ref, path)) for match in matches
        )
    return TcpRoutes(tuple(routes), sorted_problems(problems))


def is_told(fetch: Fetch, key: DestinationKey) -> bool:
    """Whether the sidecar of a destination is told that bytes are bytes."""
    named = called(fetch, key.hostname, "")
    return fetch(told, (named, key.port, key.subset)) or False if named else False


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
            shares.append(WeightedDestination(found, weight))
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
        if host.startswith("*") and host != ANY_TLS and not host.startswith("*."):
            message = f'found "{host}", which a proxy cannot tell by; needed a whole name, or a wildcard for whole labels ("*.")'
            problems.append(warning(ref, f"{path}.sniHosts[{index}]", "NotYetSupported", message))
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
