"""What the mesh does with the requests for one host, for people: who speaks of it, in which order, and what comes of it.

Read off the rows that proxies are sent, not computed again: what is said here is what holds. `core.evaluate` goes on from here
for one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.core.compile.destination_rules import rules_for, rules_of_some
from tulle.core.compile.hostname import Key, covers, full_name, meanings
from tulle.core.compile.objects import destination_rules
from tulle.core.compile.services import service
from tulle.core.compile.speakers import speakers
from tulle.core.evaluate import choose_host
from tulle.core.evaluate.hosts import without_port
from tulle.core.evaluate.texts import in_words
from tulle.core.model.destination import Destination, DestinationKey, EndpointSet, Transport
from tulle.core.model.route import Redirect, Route, RouteMatch, RouteTableKey, VirtualHost, WeightedDestination
from tulle.core.model.service import Resolution
from tulle.core.model.tcp_route import TcpMatch, TcpRoute
from tulle.core.model.workload import Capture, Outbound, OutboundTcp
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem, Ref

_PSEUDO = {":method": "method", ":authority": "authority", ":scheme": "scheme"}


class Speaker(msgspec.Struct, frozen=True):
    """An object that speaks of the host. `place`: in which order they take effect; 0: what it says has none there."""

    object: str
    place: int
    effect: str


class Rule(msgspec.Struct, frozen=True):
    """A route in words; `object` and `path` are where it was written."""

    name: str
    match: str
    action: str
    object: str = ""
    path: str = ""


class Rules(msgspec.Struct, frozen=True):
    """The routes at one port, and the callers for whom they hold."""

    port: int
    callers: tuple[str, ...]
    rules: tuple[Rule, ...]


class Place(msgspec.Struct, frozen=True):
    """An endpoint of a destination."""

    address: str
    workload: str
    healthy: bool
    mtls: bool


class Goal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A destination of a route and its endpoints, as far as the mesh knows them (`found` says how proxies find others).

    `tls`: it is spoken to in TLS of its own, not in the mesh's.
    """

    name: str
    endpoints: tuple[Place, ...]
    found: Resolution = Resolution.KNOWN
    tls: bool = False


class Description(msgspec.Struct, frozen=True):
    """Everything about one host."""

    host: str
    objects: tuple[Speaker, ...]
    routes: tuple[Rules, ...]
    destinations: tuple[Goal, ...]
    problems: tuple[str, ...]


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a proxy looks for the routes of a request: its table, and the virtual host in it (None: it has none for the name).

    `ports` are those at which the proxy has routes at all, where there is no table for the one that was asked about; `carried`
    where its bytes go all the same.
    """

    table: RouteTableKey | None = None
    host: VirtualHost | None = None
    domain: str = ""
    ports: tuple[int, ...] = ()
    carried: str = ""
    destinations: tuple[Goal, ...] = ()


def describe(pipeline: Pipeline, host: str, namespace: str) -> Description:
    """What is said of a host (as an object of `namespace` would name it) and what comes of it."""
    key = _service(pipeline, host, namespace)
    name = full_name(key) if key else host.lower()
    tables = _tables(pipeline.rows())
    groups: dict[tuple[int, tuple[Route, ...]], list[str]] = {}
    for table, hosts in tables.items():
        if rules := _routes_for(table, hosts, name, known=key is not None):
            groups.setdefault((table.port, rules), []).append(_callers(table))
    routes = [route for _port, found in groups for route in found]
    connections = _connections(pipeline, name)
    origins = [route.origin for route in routes]
    origins += [route.origin for _port, found in connections for route in found]
    objects = _objects(pipeline, key, [origin.ref for origin in origins if origin])
    refs = {str(ref) for ref, _speaker in objects} | ({f"Service {key[0]}/{key[1]}"} if key else set())
    goals = {share.destination for route in routes for share in route.destinations}
    goals |= {share.destination for _port, found in connections for route in found for share in route.destinations}
    words = [(port, callers, tuple(map(_rule, found))) for (port, found), callers in groups.items()]
    words += [(port, callers, tuple(map(_rule_for_bytes, found))) for (port, found), callers in connections.items()]
    return Description(
        host=name,
        objects=tuple(speaker for _ref, speaker in objects),
        routes=tuple(
            Rules(port, tuple(sorted(set(callers))), rules)
            for port, callers, rules in sorted(words, key=lambda one: (one[0], one[1]))
        ),
        destinations=_goals(pipeline, goals),
        problems=tuple(str(problem) for problem in _problems(pipeline, refs)),
    )


def heard(pipeline: Pipeline, proxy: str, authority: str, port: int) -> Heard | None:
    """Where the proxy of a workload looks for a request to `authority` at `port`; None where there is no such proxy."""
    workload = pipeline.workload(proxy)
    layers = pipeline.layers(proxy)
    if workload is None or not layers:
        return None
    tables = _tables(pipeline.rows(layers))
    at = 0 if workload.capture is Capture.PROXY and not workload.is_gateway else port
    named = {full_name(key) for key in meanings(without_port(authority.lower()), workload.namespace)}
    # A table of one service has what is called at its address: nobody else's requests come there.
    fitting = [table for table in tables if table.port == at and (not table.service or table.service in named)]
    fitting.sort(key=lambda table: not table.service)
    if not fitting:
        ports = tuple(sorted({table.port for table in tables if table.port and not table.service}))
        return Heard(ports=ports, carried=_carried(pipeline, layers, without_port(authority.lower()), named, port))
    chosen = [(table, found) for table in fitting if (found := choose_host(table, tables[table], authority))]
    if not chosen:
        return Heard(fitting[0])
    table, (host, domain) = min(chosen, key=lambda one: one[1][1] == "*" and not one[0].service)
    goals = {share.destination for route in host.routes for share in route.destinations}
    return Heard(table, host, domain, destinations=_goals(pipeline, goals))


def _service(pipeline: Pipeline, host: str, namespace: str) -> Key | None:
    return next((key for key in meanings(host, namespace) if pipeline.flow.get(service, key) is not None), None)


def _tables(rows: Iterable[tuple[object, object]]) -> dict[RouteTableKey, list[VirtualHost]]:
    """The virtual hosts by table: their keys are the table's, or begin with it."""
    tables: dict[RouteTableKey, list[VirtualHost]] = {}
    for key, row in rows:
        table = key[0] if isinstance(key, tuple) else key
        if isinstance(table, RouteTableKey):
            tables.setdefault(table, []).extend([row] if isinstance(row, VirtualHost) else [])
    return dict(sorted(tables.items()))


def _routes_for(table: RouteTableKey, hosts: list[VirtualHost], name: str, known: bool) -> tuple[Route, ...]:
    """The routes of a table for a name: of a Service's those under the name, and at a gateway those that lead to it."""
    if table.port == 0:
        return ()
    if table.gateway and known:
        found = (route for host in hosts for route in host.routes)
        return tuple(route for route in found if any(share.destination.hostname == name for share in route.destinations))
    chosen = choose_host(table, hosts, name) if table.service in ("", name) else None
    return chosen[0].routes if chosen and (chosen[1] != "*" or table.service) else ()


def _connections(pipeline: Pipeline, name: str) -> dict[tuple[int, tuple[TcpRoute, ...]], list[str]]:
    """How sidecars carry connections to a service that are no HTTP, by (port, routes), with the callers of each."""
    found: dict[tuple[int, tuple[TcpRoute, ...]], list[str]] = {}
    for _key, row in pipeline.rows():
        for one in row.tcp if isinstance(row, Outbound) else ():
            if one.destination.hostname == name:
                found.setdefault((one.port, _routes_of(one)), []).append(_namespace(row.namespace, row.labels))
    return found


def _routes_of(one: OutboundTcp) -> tuple[TcpRoute, ...]:
    """The routes of a service's port, and what has the rest; each with the addresses by which connections are told."""
    here = (one.address,) if one.address else ()
    routes = (
        msgspec.structs.replace(route, match=msgspec.structs.replace(route.match, networks=route.match.networks or here))
        for route in one.routes
    )
    return (*routes, TcpRoute(match=TcpMatch(one.names, here), destinations=(WeightedDestination(one.destination),)))


def _rule_for_bytes(route: TcpRoute) -> Rule:
    origin = route.origin
    where = (str(origin.ref), origin.path) if origin else ("", "")
    return Rule(route.name, _connection_in_words(route.match), _shared_in_words(route.destinations), *where)


def _connection_in_words(match: TcpMatch) -> str:
    """`TLS for *.example.com`, `connections to 198.51.100.7 from 10.0.0.0/8`."""
    words = f"TLS for {', '.join(match.names)}" if match.names else "connections"
    words += f" to {', '.join(match.networks)}" if match.networks else ""
    return words + (f" from {', '.join(match.sources)}" if match.sources else "")


def _carried(pipeline: Pipeline, layers: tuple[str, ...], host: str, named: set[str], port: int) -> str:
    """Where a sidecar carries the bytes of a call to a host whose port has no HTTP routes; "" where the mesh does not know it."""
    for _key, row in pipeline.rows(layers):
        for one in row.tcp if isinstance(row, Outbound) else ():
            told = one.destination.hostname in named or host == one.address or any(covers(name, host) for name in one.names)
            if one.port == port and told:
                return "; ".join(f"{rule.match}: {rule.action}" for rule in map(_rule_for_bytes, _routes_of(one)))
    return ""


def _callers(table: RouteTableKey) -> str:
    if table.gateway:
        return f"gateway {table.gateway}"
    return _namespace(table.namespace, table.labels)


def _namespace(namespace: str, labels: tuple[tuple[str, str], ...]) -> str:
    words = ",".join(f"{name}={value}" for name, value in labels)
    return f"namespace {namespace}" + (f" with {words}" if words else "")


def _objects(pipeline: Pipeline, key: Key | None, origins: list[Ref]) -> list[tuple[Ref, Speaker]]:
    """Those that the routes were made of in their order, then the rules of the destination, then those without effect."""
    found: list[tuple[Ref, Speaker]] = []
    row = pipeline.flow.get(service, key) if key else None
    for ref in (one for one in dict.fromkeys(origins) if one.kind != "Service"):
        found.append((ref, Speaker(str(ref), len(found) + 1, "routes")))
    if key is None:
        return found
    rules = (pipeline.flow.get(destination_rules, one) for one in pipeline.flow.get(rules_for, key) or ())
    for rule in rules:
        if rule is not None:
            found.append((rule.ref, Speaker(str(rule.ref), len(found) + 1, "how its destinations are reached")))
    some = (pipeline.flow.get(destination_rules, one) for one in pipeline.flow.get(rules_of_some, key) or ())
    effect = "how callers of its namespace (those that it selects) reach its destinations"
    found += ((rule.ref, Speaker(str(rule.ref), 0, effect)) for rule in some if rule is not None)
    spoken = {ref for ref, _speaker in found}
    if row is not None and row.ref not in spoken and (row.entry or not origins):
        found.insert(0, (row.ref, Speaker(str(row.ref), 0, "the service itself")))
        spoken.add(row.ref)
    others = (ref for ref in pipeline.flow.get(speakers, key) or () if ref not in spoken)
    return [*found, *((ref, Speaker(str(ref), 0, "none: others come before it")) for ref in others)]


def _problems(pipeline: Pipeline, refs: set[str]) -> Iterator[Problem]:
    return (problem for problem in pipeline.problems() if str(problem.ref) in refs)


def _goals(pipeline: Pipeline, goals: set[DestinationKey]) -> tuple[Goal, ...]:
    found: dict[DestinationKey, dict[Place, None]] = {goal: {} for goal in sorted(goals)}
    how: dict[DestinationKey, Destination] = {}
    for _key, row in pipeline.rows():
        if isinstance(row, EndpointSet | Destination) and row.key in found:
            for one in row.endpoints:
                found[row.key][Place(f"{one.address}:{one.port}", one.workload, one.healthy, one.mtls)] = None
            if isinstance(row, Destination):
                how[row.key] = row
    return tuple(
        Goal(destination_in_words(goal), tuple(places), row.resolution, row.transport is Transport.TLS)
        if (row := how.get(goal))
        else Goal(destination_in_words(goal), tuple(places))
        for goal, places in found.items()
    )


def destination_in_words(goal: DestinationKey) -> str:
    """`reviews.default.svc.cluster.local:9080 v1`."""
    return f"{goal.hostname}:{goal.port}" + (f" {goal.subset}" if goal.subset else "")


def _rule(route: Route) -> Rule:
    origin = route.origin
    where = (str(origin.ref), origin.path) if origin else ("", "")
    return Rule(route.name, match_in_words(route.match), action_in_words(route), *where)


def match_in_words(match: RouteMatch) -> str:
    """`path prefix /a, header end-user exact jason`; `every request`."""
    words = [f"path {in_words(match.path)}"] if match.path else []
    for named in match.headers:
        subject = _PSEUDO.get(named.name, f"header {named.name}")
        words.append(f"{subject} {'not ' if named.invert else ''}{in_words(named.match)}")
    words += (f"query {named.name} {in_words(named.match)}" for named in match.query)
    told = ", ".join(words) or "every request"
    return told if match.percent >= 100 else f"{match.percent:g}% of: {told}"


def action_in_words(route: Route) -> str:
    """Where it goes, and what else happens to it."""
    words = []
    if any(share.weight > 0 for share in route.destinations):
        words.append(_shared_in_words(route.destinations))
    elif route.redirect:
        words.append(_redirect_in_words(route.redirect))
    else:
        words.append(f"answered {route.status or 500}")
    if route.rewrite and route.rewrite.authority:
        words.append(f"authority becomes {route.rewrite.authority}")
    if route.rewrite and route.rewrite.path:
        words.append(f"path: {route.rewrite.path.kind.value} becomes {route.rewrite.path.value}")
    if route.auth:
        words.append(f"if {destination_in_words(route.auth.destination)} says that it may pass")
    if route.timeout:
        words.append(f"timeout {route.timeout:g} s")
    if route.delay:
        words.append(f"{route.delay.percent:g}% held {route.delay.duration:g} s")
    if route.abort:
        status = route.abort.status if route.abort.grpc is None else f"gRPC status {route.abort.grpc}"
        words.append(f"{route.abort.percent:g}% answered {status}")
    words += (f"{mirror.percent:g}% copied to {destination_in_words(mirror.destination)}" for mirror in route.mirrors)
    return "; ".join(words)


def _shared_in_words(destinations: Iterable[WeightedDestination]) -> str:
    """`75% a:80, 25% b:80`; `closed`, for bytes that go nowhere."""
    shares = [share for share in destinations if share.weight > 0]
    total = sum(share.weight for share in shares)
    parts = [f"{100 * one.weight / total:.4g}% " if len(shares) > 1 else "" for one in shares]
    return ", ".join(part + destination_in_words(one.destination) for part, one in zip(parts, shares, strict=True)) or "closed"


def _redirect_in_words(redirect: Redirect) -> str:
    port = f":{redirect.port}" if redirect.port else ""
    path = redirect.path.value if redirect.path else ""
    return f"redirected ({redirect.status}) to {redirect.scheme or '*'}://{redirect.host or '*'}{port}{path}"
