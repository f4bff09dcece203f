"""The layers that proxies share (see `core.encoded.Published`), and which rows of the model are in each.

A part names one row of one table of the model; `core.pipeline` turns it into resources. Layers are `mesh`, `place/...` for every
standpoint of callers (see `localities`; none where no rule asks), `namespace/NS` for every namespace with sidecars (or
`callers/NS/DIGEST`, for those of them that rules tell apart by labels), `ipv6/NS` (or `ipv6/NS/DIGEST`) beside these where
workloads have IPv6, and `workload/NS/NAME` for every workload with a proxy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tulle.core.compile.callers import Source, caller_labels, callers_apart
from tulle.core.compile.destinations import destination, places
from tulle.core.compile.endpoints import endpoints
from tulle.core.compile.gateway_hosts import gateway_hosts, gateway_virtual_host
from tulle.core.compile.gateway_secrets import gateway_secret
from tulle.core.compile.hostname import Key
from tulle.core.compile.hosts import virtual_host
from tulle.core.compile.localities import (
    endpoints_from,
    local_places,
    localities,
    standpoint,
    standpoint_named,
    standpoints,
)
from tulle.core.compile.names import name
from tulle.core.compile.objects import IPV6, has_sidecar, is_gateway, workload_entries
from tulle.core.compile.outbound import (
    by_table_port,
    others,
    outbound,
    outbound_apart,
    outbound_six,
    own_tables,
    sidecar_namespaces,
    tables,
)
from tulle.core.compile.services import registry, service
from tulle.core.compile.workloads import workload
from tulle.core.flow import Fetch, Table, table
from tulle.core.model.route import RouteTableKey, labels_digest
from tulle.core.model.service import Resolution

# A table of the model and a key in it. A `RouteTableKey` alone stands for the table of virtual hosts itself.
Part = tuple[Table[Any, Any], Any]

MESH = "mesh"
_PLACE = "place"
_SIX = "ipv6"


def namespace_layer(namespace: str) -> str:
    """The layer of a namespace's sidecars."""
    return f"namespace/{namespace}"


def callers_layer(namespace: str, digest: str) -> str:
    """The layer of those of a namespace's sidecars that have some labels, by the digest of these."""
    return f"callers/{namespace}/{digest}"


def six_layer(namespace: str, digest: str = "") -> str:
    """The layer of what those of a namespace's sidecars (or of those with some labels) have for calls by IPv6 that have IPv6."""
    return f"{_SIX}/{namespace}/{digest}" if digest else f"{_SIX}/{namespace}"


def place_layer(standpoint_name: str) -> str:
    """The layer of the callers at a standpoint."""
    return f"{_PLACE}/{standpoint_name}"


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
    return (
        MESH,
        *(namespace_layer(namespace) for namespace in spaces),
        *(callers_layer(namespace, digest) for namespace in spaces for digest in fetch(callers_apart, namespace) or ()),
        *(six_layer(namespace, digest) for namespace in six for digest in ("", *(fetch(callers_apart, namespace) or ()))),
        *(place_layer(one.name) for one in fetch(standpoints, None) or ()),
        *(workload_layer(f"{namespace}/{name}") for namespace, name in sorted(proxies)),
    )


@table
def layer_parts(fetch: Fetch, layer: str) -> tuple[Part, ...]:
    """What is in a layer."""
    kind, _slash, rest = layer.partition("/")
    if kind == MESH:
        return _mesh(fetch)
    if kind == _PLACE:
        here = standpoint_named(rest)
        return tuple((endpoints_from, (place, here)) for place in fetch(local_places, None) or ())
    if kind == "namespace":
        return _namespace(fetch, rest)
    namespace, _slash, name = rest.partition("/")
    if kind == _SIX and not name:
        return ((outbound_six, Source(namespace)),)
    if kind in ("callers", _SIX):
        labels = (fetch(callers_apart, namespace) or {}).get(name)
        if kind == _SIX:
            return ((outbound_six, Source(namespace, labels)),) if labels else ()
        return _callers(fetch, Source(namespace, labels)) if labels else ()
    return _workload(fetch, (namespace, name))


def _mesh(fetch: Fetch) -> tuple[Part, ...]:
    parts: list[Part] = []
    for key in fetch(registry, None) or ():
        row = fetch(service, key)
        if row is None:
            continue
        if row.address or not row.entry:
            parts.append((name, key))
        for place in fetch(places, key) or ():
            parts.append((destination, place))
            if row.resolution is Resolution.KNOWN and fetch(localities, place) is None:
                parts.append((endpoints, place))
    return tuple(parts)


def _namespace(fetch: Fetch, namespace: str) -> tuple[Part, ...]:
    return ((outbound, namespace), *_hosts(fetch, Source(namespace)))


def _callers(fetch: Fetch, source: Source) -> tuple[Part, ...]:
    return ((outbound_apart, source), *_hosts(fetch, source))


def _hosts(fetch: Fetch, source: Source) -> Iterator[Part]:
    """Route tables, with what is in each."""
    hosts = fetch(by_table_port, source) or {}
    for key in fetch(tables, source) or ():
        yield from ((route_table, key), (others, key))
        yield from ((virtual_host, (key, host, port)) for host, port in hosts.get(key.port, ()))
    for key, (host, port) in fetch(own_tables, source) or ():
        yield from ((route_table, key), (virtual_host, (key, host, port)))


def _workload(fetch: Fetch, key: Key) -> tuple[Part, ...]:
    parts: list[Part] = [(workload, key)]
    row = fetch(workload, key)
    listeners = row.listeners if row else ()
    for where in dict.fromkeys(one for listener in listeners for one in listener.tables):
        parts.append((route_table, where))
        parts += ((gateway_virtual_host, (where, host)) for host in fetch(gateway_hosts, where) or ())
    # A gateway's secrets are in its own layer and in no other: no other proxy can ask for them.
    parts += ((gateway_secret, (key, ref)) for ref in dict.fromkeys(one for listener in listeners for one in listener.secrets))
    return tuple(parts)


@table
def proxy_layers(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The layers that a proxy sees; none for a workload without one. A gateway has its own routes instead of a namespace's."""
    entry = fetch(workload_entries, key)
    own = workload_layer(f"{key[0]}/{key[1]}")
    here = fetch(standpoint, key)
    near = (place_layer(here.name),) if here else ()
    if entry is not None and is_gateway(entry):
        return (MESH, *near, own)
    if entry is not None and has_sidecar(entry):
        labels = fetch(caller_labels, key)
        digest = labels_digest(labels) if labels else ""
        shared = callers_layer(key[0], digest) if digest else namespace_layer(key[0])
        six = (six_layer(key[0], digest),) if entry.metadata.annotations.get(IPV6) == "true" else ()
        return (MESH, *near, shared, *six, own)
    return ()
