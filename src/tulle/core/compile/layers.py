"""The layers that proxies share (see `core.encoded.Published`), and which rows of the model are in each.

A part names one row of one table of the model; `core.pipeline` turns it into resources. Layers are `unguarded` (guards that ask
nothing, and the roots), `mesh`, `gateways` for what these have in the place of it, `exported/NS` and `gateways/NS` for the same
of services that not everybody sees, `place/...` for standpoints of callers (see `localities`; none where no rule asks),
`scope/NS` or `scope/NS/DIGEST` for what those have in the place of `mesh` who follow a Sidecar that names hosts (see `scopes`),
`rules/NS/DIGEST` for callers that have destinations of their own (see `caller_rules`) and `near/NS/DIGEST/PLACE` where these have
endpoints of their own, `namespace/NS` for every namespace with sidecars (or `callers/NS/DIGEST`, for those of them that rules
tell apart by labels), `ipv6/NS` (or `ipv6/NS/DIGEST`) beside these where workloads have IPv6, `udp/...` and `udp-ipv6/...`
likewise where their datagrams are captured, `told/NS/NAME/DIGEST` (`told6/...`; DIGEST may be "") for those that a Telemetry of
that name is for, and `workload/NS/NAME` for every workload with a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tulle.core.compile.caller_rules import destination_apart, own_source, places_apart, secrets_apart, sources_apart
from tulle.core.compile.callers import GATEWAY, Source, caller_labels, callers_apart
from tulle.core.compile.client_certificates import own_destination, own_endpoints, own_places, own_secrets
from tulle.core.compile.counters import connection_limited, costs, limited, route_costs, route_limited
from tulle.core.compile.destinations import Place, destination, gateway_destination, places
from tulle.core.compile.egress import egress_tables
from tulle.core.compile.endpoints import endpoints, endpoints_of
from tulle.core.compile.gateway_hosts import gateway_hosts, gateway_virtual_host
from tulle.core.compile.gateway_secrets import gateway_secret
from tulle.core.compile.gateway_udp import udp_destination, udp_endpoints
from tulle.core.compile.guards import asks, authorization, unguarded
from tulle.core.compile.hostname import Key
from tulle.core.compile.hosts import virtual_host
from tulle.core.compile.local_rules import endpoints_apart, has_own_endpoints, local_places_of, own_standpoint, own_standpoints
from tulle.core.compile.localities import (
    Standpoint,
    endpoints_from,
    is_local,
    local_places,
    standpoint,
    standpoint_named,
    standpoints,
)
from tulle.core.compile.mesh_udp import (
    mesh_udp_destination,
    mesh_udp_endpoints,
    outbound_udp,
    outbound_udp_six,
    udp_called,
    udp_ports,
)
from tulle.core.compile.names import name
from tulle.core.compile.network_gateways import passed_places, passing_destination, passing_endpoints
from tulle.core.compile.objects import workload_entries
from tulle.core.compile.outbound import (
    by_table_port,
    exported_to,
    hidden_from,
    others,
    outbound,
    outbound_apart,
    outbound_six,
    outbound_six_told,
    outbound_told,
    own_tables,
    sidecar_namespaces,
    tables,
)
from tulle.core.compile.roots import roots
from tulle.core.compile.route_limits import counted_in_mesh, mesh_limited
from tulle.core.compile.scopes import is_narrow, names_seen, places_of_own, places_seen, scope
from tulle.core.compile.services import registry, service
from tulle.core.compile.telemetry import own_telemetry
from tulle.core.compile.workload_notes import DATAGRAMS, IPV6, has_sidecar, is_gateway
from tulle.core.compile.workloads import workload
from tulle.core.flow import Fetch, Table, table
from tulle.core.model.authorization import OPEN, OPEN_TO_STRANGERS
from tulle.core.model.route import RouteTableKey, labels_digest
from tulle.core.model.service import Protocol, Resolution

# A table of the model and a key in it. A `RouteTableKey` alone stands for the table of virtual hosts itself.
Part = tuple[Table[Any, Any], Any]

UNGUARDED = "unguarded"
MESH = "mesh"
GATEWAYS = "gateways"
_EXPORTED = "exported"
_PLACE = "place"
_SIX = "ipv6"
_UDP = "udp"
_UDP_SIX = "udp-ipv6"
_RULES = "rules"
_SCOPE = "scope"
_NEAR = "near"
_TOLD, _TOLD_SIX = "told", "told6"


def exported_layer(namespace: str) -> str:
    """The layer of the services that a namespace sees, and not everybody."""
    return f"{_EXPORTED}/{namespace}"


def gateways_layer(namespace: str) -> str:
    """What a namespace's gateways have in the place of that."""
    return f"{GATEWAYS}/{namespace}"


def namespace_layer(namespace: str) -> str:
    """The layer of a namespace's sidecars."""
    return f"namespace/{namespace}"


def callers_layer(namespace: str, digest: str) -> str:
    """The layer of those of a namespace's sidecars that have some labels, by the digest of these."""
    return f"callers/{namespace}/{digest}"


def six_layer(namespace: str, digest: str = "") -> str:
    """The layer of what those of a namespace's sidecars (or of those with some labels) have for calls by IPv6 that have IPv6."""
    return f"{_SIX}/{namespace}/{digest}" if digest else f"{_SIX}/{namespace}"


def scope_layer(source: Source) -> str:
    """The layer of what callers are sent of the mesh who are not sent all of it."""
    return "/".join((_SCOPE, source.namespace, *((labels_digest(source.labels),) if source.labels else ())))


def udp_layers(namespace: str, digest: str = "", *, six: bool = True) -> tuple[str, ...]:
    """The layers of what those have whose datagrams are captured, the second by IPv6."""
    who = f"{namespace}/{digest}" if digest else namespace
    return (f"{_UDP}/{who}", f"{_UDP_SIX}/{who}") if six else (f"{_UDP}/{who}",)


def rules_layer(source: Source) -> str:
    """The layer of callers that have destinations of their own."""
    return f"{_RULES}/{source.namespace}/{labels_digest(source.labels)}"


def near_layer(source: Source, here: Standpoint) -> str:
    """The layer of callers at a standpoint that see endpoints of their own."""
    return f"{_NEAR}/{source.namespace}/{labels_digest(source.labels)}/{here.name}"


def place_layer(standpoint_name: str) -> str:
    """The layer of the callers at a standpoint."""
    return f"{_PLACE}/{standpoint_name}"


def told_layer(source: Source, telemetry: Key, *, six: bool = False) -> str:
    """The layer of callers whose calls a Telemetry of their own is for: listeners in the place of the others'."""
    digest = labels_digest(source.labels) if source.labels else ""
    return f"{_TOLD_SIX if six else _TOLD}/{source.namespace}/{telemetry[1]}/{digest}"


def workload_layer(workload_id: str) -> str:
    """The layer that one proxy has for itself."""
    return f"workload/{workload_id}"


@table
def route_table(_fetch: Fetch, key: RouteTableKey) -> RouteTableKey:
    """A table of virtual hosts: nothing but its key, for the hosts are resources of their own."""
    return key


@table
def layer_names(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """All layers that there are."""
    proxies = (*fetch.keys(workload_entries, "role", "sidecar"), *fetch.keys(workload_entries, "role", "gateway"))
    spaces = fetch(sidecar_namespaces, None) or ()
    six = sorted({key[0] for key in fetch.keys(workload_entries, "role", "IPv6")})
    udp = sorted({key[0] for key in fetch.keys(workload_entries, "role", "datagrams")}) if fetch(udp_ports, None) else ()
    sources = (Source(space, labels) for space in spaces for labels in ((), *(fetch(callers_apart, space) or {}).values()))
    return (
        UNGUARDED,
        MESH,
        *(scope_layer(source) for source in sources if is_narrow(fetch, source)),
        *((GATEWAYS,) if fetch.keys(workload_entries, "role", "gateway") else ()),
        *(layer for key in sorted({key[0] for key in proxies}) for layer in _exported(fetch, key)),
        *(namespace_layer(namespace) for namespace in spaces),
        *(callers_layer(namespace, digest) for namespace in spaces for digest in fetch(callers_apart, namespace) or ()),
        *(six_layer(namespace, digest) for namespace in six for digest in ("", *(fetch(callers_apart, namespace) or ()))),
        *dict.fromkeys(layer for key in proxies for layer in _told(fetch, key)),
        *(
            layer
            for namespace in udp
            for digest in ("", *(fetch(callers_apart, namespace) or ()))
            for layer in udp_layers(namespace, digest, six=namespace in six)
        ),
        *(rules_layer(source) for source in sorted({*filter(None, (fetch(own_source, key) for key in proxies))})),
        *(place_layer(one.name) for one in fetch(standpoints, None) or ()),
        *(near_layer(*one) for one in fetch(own_standpoints, None) or ()),
        *(workload_layer(f"{namespace}/{name}") for namespace, name in sorted(proxies)),
    )


def _exported(fetch: Fetch, namespace: str) -> tuple[str, ...]:
    return (exported_layer(namespace), gateways_layer(namespace)) if fetch(exported_to, namespace) else ()


@table
def layer_parts(fetch: Fetch, layer: str) -> tuple[Part, ...]:
    """What is in a layer."""
    kind, _slash, rest = layer.partition("/")
    if kind == UNGUARDED:
        trusted: tuple[Part, ...] = ((roots, None),) if fetch(roots, None) else ()
        return ((unguarded, OPEN), (unguarded, OPEN_TO_STRANGERS), *trusted)
    if kind == MESH:
        return tuple(_services(fetch, _for_all(fetch)))
    if kind == _EXPORTED:
        return tuple(_services(fetch, _for(fetch, rest)))
    if kind == GATEWAYS:
        called = _for(fetch, rest) if rest else _for_all(fetch)
        return tuple((gateway_destination, place) for place in _undeclared(fetch, called) if fetch(gateway_destination, place))
    if kind == _PLACE:
        here = standpoint_named(rest)
        return tuple((endpoints_from, (place, here)) for place in fetch(local_places, None) or ())
    if kind == "namespace":
        return _namespace(fetch, rest)
    namespace, _slash, name = rest.partition("/")
    if kind in (_TOLD, _TOLD_SIX):
        telemetry, _slash, digest = name.partition("/")
        source = Source(namespace, (fetch(callers_apart, namespace) or {}).get(digest, ()))
        return ((outbound_told if kind == _TOLD else outbound_six_told, (source, (namespace, telemetry))),)
    if kind == _RULES:
        apart = (fetch(sources_apart, namespace) or {}).get(name)
        return _rules(fetch, apart) if apart else ()
    if kind == _NEAR:
        digest, _slash, where = name.partition("/")
        return _near(fetch, (fetch(sources_apart, namespace) or {}).get(digest), standpoint_named(where))
    if kind in (_UDP, _UDP_SIX):
        labels = (fetch(callers_apart, namespace) or {}).get(name) if name else ()
        return () if labels is None else tuple(_datagrams(fetch, Source(namespace, labels), kind == _UDP_SIX))
    if kind == _SIX and not name:
        return ((outbound_six, Source(namespace)),)
    if kind == _SCOPE and not name:
        return _scope(fetch, Source(namespace))
    if kind in ("callers", _SIX, _SCOPE):
        labels = (fetch(callers_apart, namespace) or {}).get(name)
        if kind == _SIX:
            return ((outbound_six, Source(namespace, labels)),) if labels else ()
        if kind == _SCOPE:
            return _scope(fetch, Source(namespace, labels)) if labels else ()
        return _callers(fetch, Source(namespace, labels)) if labels else ()
    return _workload(fetch, (namespace, name))


def _told(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The layers in which the listeners for a workload's calls are, where a Telemetry of its own is for them."""
    # Nobody's entry is looked at for nothing: all layers would be named anew for each endpoint that changes.
    if (found := own_telemetry(fetch, key)) is None:
        return ()
    entry = fetch(workload_entries, key)
    if entry is None or is_gateway(entry):
        return ()
    source = Source(key[0], fetch(caller_labels, key) or ())
    six = entry.metadata.annotations.get(IPV6) == "true"
    return (told_layer(source, found), *((told_layer(source, found, six=True),) if six else ()))


def _for_all(fetch: Fetch) -> Iterator[Key]:
    """The services that everybody sees."""
    return (key for key in fetch(registry, None) or () if (row := fetch(service, key)) and row.seen_from("*"))


def _for(fetch: Fetch, namespace: str) -> Iterator[Key]:
    """Those that a namespace sees, and not everybody."""
    yield from fetch(exported_to, namespace) or ()


def _services(fetch: Fetch, keys: Iterable[Key]) -> Iterator[Part]:
    """Names and destinations."""
    for key in keys:
        row = fetch(service, key)
        if row is None:
            continue
        if row.address or not row.entry:
            yield name, key
        for place in fetch(places, key) or ():
            yield from _destination(fetch, place)


def _destination(fetch: Fetch, place: Place) -> Iterator[Part]:
    """A destination, and its endpoints where all callers have the same."""
    yield destination, place
    row = fetch(service, place[0])
    if row and row.resolution is Resolution.KNOWN and not is_local(fetch, place):
        yield endpoints, place


def _scope(fetch: Fetch, source: Source) -> tuple[Part, ...]:
    """Of `mesh` what callers are sent: the same parts, so that they are made once."""
    rows = ((key, fetch(service, key)) for key in fetch(names_seen, source) or ())
    parts: list[Part] = [(name, key) for key, row in rows if row and (row.address or not row.entry)]
    for place in _seen(fetch, source):
        parts += _destination(fetch, place)
    return tuple(parts)


def _seen(fetch: Fetch, source: Source) -> tuple[Place, ...]:
    found: tuple[Place, ...] | None = fetch(places_seen, source)
    return found or ()


def _undeclared(fetch: Fetch, keys: Iterable[Key]) -> Iterator[Place]:
    """The destinations of services with a port that nobody declared."""
    for key in keys:
        row = fetch(service, key)
        if row and any(port.protocol is Protocol.AUTO for port in row.ports):
            yield from fetch(places, key) or ()


def _rules(fetch: Fetch, source: Source) -> tuple[Part, ...]:
    who = (source.namespace, labels_digest(source.labels))
    apart: tuple[Place, ...] = _seen_of(fetch, source.namespace, fetch(places_apart, source) or ())
    if GATEWAY not in source.labels and is_narrow(fetch, source):
        seen = {place[:2] for place in _seen(fetch, source)}
        apart = tuple(place for place in apart if place[:2] in seen)
    near = fetch(local_places_of, source) or ()
    return (
        *((destination_apart, (place, source)) for place in apart),
        *((endpoints_of, (place, source)) for place in apart if has_own_endpoints(fetch, place, source) and place not in near),
        # Secrets are in this layer and in no other: no other proxy can ask for them.
        *((gateway_secret, (who, ref)) for ref in fetch(secrets_apart, source) or ()),
    )


def _seen_of(fetch: Fetch, namespace: str, all_: tuple[Place, ...]) -> tuple[Place, ...]:
    """Of destinations those whose service is exported to a namespace."""
    hidden = fetch(hidden_from, namespace)
    return tuple(place for place in all_ if place[0] not in hidden) if hidden else all_


def _near(fetch: Fetch, source: Source | None, here: Standpoint) -> tuple[Part, ...]:
    there = _seen_of(fetch, source.namespace, fetch(local_places_of, source) or ()) if source else ()
    return tuple((endpoints_apart, (place, source, here)) for place in there)


def _namespace(fetch: Fetch, namespace: str) -> tuple[Part, ...]:
    return ((outbound, namespace), *_mesh_limits(fetch), *_hosts(fetch, Source(namespace)))


def _callers(fetch: Fetch, source: Source) -> tuple[Part, ...]:
    return ((outbound_apart, source), *_mesh_limits(fetch), *_hosts(fetch, source))


def _mesh_limits(fetch: Fetch) -> tuple[Part, ...]:
    return ((mesh_limited, None),) if fetch(counted_in_mesh, None) else ()


def _datagrams(fetch: Fetch, source: Source, six: bool) -> Iterator[Part]:
    """Listeners for datagrams, and (with those of IPv4, which all have) where these go."""
    yield (outbound_udp_six if six else outbound_udp), source
    for one in (fetch(udp_called, source) or ()) if not six else ():
        yield from ((mesh_udp_destination, one), (mesh_udp_endpoints, one))


def _hosts(fetch: Fetch, source: Source) -> Iterator[Part]:
    """Route tables, with what is in each."""
    hosts = fetch(by_table_port, source) or {}
    for key in fetch(tables, source) or ():
        yield from ((route_table, key), (others, key))
        yield from ((virtual_host, (key, host, port)) for host, port in hosts.get(key.port, ()))
    for key, (host, port) in fetch(own_tables, source) or ():
        yield from ((route_table, key), (virtual_host, (key, host, port)))
    for key, pairs in fetch(egress_tables, source) or ():
        yield from ((route_table, key), (others, key))
        yield from ((virtual_host, (key, host, port)) for host, port in pairs)


def _workload(fetch: Fetch, key: Key) -> tuple[Part, ...]:
    parts: list[Part] = [(workload, key)]
    row = fetch(workload, key)
    listeners = row.listeners if row else ()
    for where in dict.fromkeys(one for listener in listeners for one in listener.tables):
        parts.append((route_table, where))
        parts += ((gateway_virtual_host, (where, host)) for host in fetch(gateway_hosts, where) or ())
    parts += ((authorization, (key, guard)) for guard in (row.guards if row else ()) if asks(fetch, key, guard))
    for one in row.counters if row else ():
        parts += ((limited, (key, one.name)), *(((costs, (key, one.name)),) if one.shared else ()))
    parts += ((connection_limited, key),) if fetch(connection_limited, key) else ()
    if row and row.is_gateway and row.limits.counted:
        parts += ((route_limited, key), (route_costs, key))
    narrow, hidden = fetch(scope, key), fetch(hidden_from, key[0]) or frozenset()
    for place in (fetch(places_of_own, key) or ()) if narrow or hidden else ():
        if narrow or place[0] in hidden:
            parts += _destination(fetch, place)
    if row and row.is_gateway:
        parts += ((made, (key, one.port)) for one in row.udp for made in (udp_destination, udp_endpoints))
        parts += ((made, one) for one in fetch(passed_places, key) or () for made in (passing_destination, passing_endpoints))
        for own in fetch(own_places, key) or ():
            if own[2][0] in hidden:
                continue
            parts.append((own_destination, own))
            if fetch(own_endpoints, own) is not None:
                parts.append((own_endpoints, own))
    # Secrets are in a proxy's own layer and in no other: no other proxy can ask for them.
    secrets = dict.fromkeys((*(row.secrets if row else ()), *(fetch(own_secrets, key) or () if row and row.is_gateway else ())))
    parts += ((gateway_secret, (key, ref)) for ref in secrets)
    return tuple(parts)


@table
def proxy_layers(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The layers that a proxy sees; none for a workload without one. A gateway has its own routes instead of a namespace's."""
    entry = fetch(workload_entries, key)
    own = workload_layer(f"{key[0]}/{key[1]}")
    here = fetch(standpoint, key)
    near = (place_layer(here.name),) if here else ()
    apart = fetch(own_source, key)
    rules = (rules_layer(apart),) if apart else ()
    if from_there := fetch(own_standpoint, key):
        rules = (*rules, near_layer(*from_there))
    if entry is not None and is_gateway(entry):
        return (UNGUARDED, MESH, GATEWAYS, *_exported(fetch, key[0]), *near, *rules, own)
    if entry is not None and has_sidecar(entry):
        labels = fetch(caller_labels, key)
        digest = labels_digest(labels) if labels else ""
        shared = callers_layer(key[0], digest) if digest else namespace_layer(key[0])
        notes = entry.metadata.annotations
        six = (six_layer(key[0], digest),) if notes.get(IPV6) == "true" else ()
        taken = fetch(udp_ports, None) if notes.get(DATAGRAMS) == "true" else ()
        udp = udp_layers(key[0], digest, six=bool(six)) if taken else ()
        narrow = fetch(scope, key)
        everything = (scope_layer(narrow),) if narrow else (MESH, *_exported(fetch, key[0])[:1])
        return (UNGUARDED, *everything, *near, *rules, shared, *six, *udp, *_told(fetch, key), own)
    return ()
