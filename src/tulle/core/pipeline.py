"""Objects in, resources as bytes out: `compile`, `envoy` and `status` on one `flow`, and the tables that an xDS server reads.

    pipeline = Pipeline()
    published = pipeline.commit({("services", "default", "reviews"): service})  # None: deleted
    server.publish(published)

The pipeline is the xDS server's `Source`. It does no I/O and has no clock; one thread uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.analyze.analysis import Analysis
from tulle.core.analyze.inputs import feed
from tulle.core.compile import Settings
from tulle.core.compile.caller_rules import destination_apart
from tulle.core.compile.client_certificates import own_destination, own_endpoints
from tulle.core.compile.counters import (
    connection_limited,
    costs,
    exact_limits,
    limited,
    route_costs,
    route_limited,
    shared_limits,
    shares,
)
from tulle.core.compile.destinations import destination, gateway_destination
from tulle.core.compile.endpoints import endpoints, endpoints_of
from tulle.core.compile.federation import Federated, federated, trust_domains
from tulle.core.compile.gateway_hosts import gateway_virtual_host
from tulle.core.compile.gateway_secrets import gateway_secret, materials
from tulle.core.compile.gateway_udp import udp_destination, udp_endpoints
from tulle.core.compile.guards import authorization, unguarded
from tulle.core.compile.hosts import ALLOW_ANY, virtual_host
from tulle.core.compile.layers import Part, layer_names, layer_parts, proxy_layers, route_table, workload_layer
from tulle.core.compile.local_rules import endpoints_apart
from tulle.core.compile.localities import endpoints_from
from tulle.core.compile.mesh_udp import mesh_udp_destination, mesh_udp_endpoints, outbound_udp, outbound_udp_six
from tulle.core.compile.names import name
from tulle.core.compile.network_gateways import passing_destination, passing_endpoints
from tulle.core.compile.objects import INPUTS, row_of, settings, workload_entries
from tulle.core.compile.outbound import others, outbound, outbound_apart, outbound_six, outbound_six_told, outbound_told
from tulle.core.compile.problems import BY_RESOURCE, object_problems
from tulle.core.compile.revoked import Revoked
from tulle.core.compile.revoked import given as given_revoked
from tulle.core.compile.roots import Given, given, roots
from tulle.core.compile.route_limits import mesh_limited
from tulle.core.compile.tokens import KeySet, Wanted, key_sets, wanted_keys
from tulle.core.compile.workloads import workload
from tulle.core.encoded import Encoded, Published, encode_json
from tulle.core.envoy.authorization import encode_authorization
from tulle.core.envoy.clusters import encode_cluster, encode_workload_clusters
from tulle.core.envoy.connection_limits import encode_connection_limited
from tulle.core.envoy.datagrams import encode_outbound_udp
from tulle.core.envoy.endpoints import encode_endpoints
from tulle.core.envoy.listeners import encode_outbound, encode_outbound_six, encode_workload
from tulle.core.envoy.rate_limits import encode_costs, encode_limited, encode_mesh_limited, encode_route_limited
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.envoy.secrets import encode_bundle, encode_certificate, encode_roots
from tulle.core.flow import Fetch, Flow, Table
from tulle.core.flow.tables import Batch
from tulle.core.model.rate_limit import Limit, SharedLimit
from tulle.core.model.workload import Workload
from tulle.core.status.makers import makers
from tulle.core.status.statuses import Statuses
from tulle.kit.problem import Problem, Ref


class ObjectKey(Protocol):
    """What names an object: `ports.Key` does. A plain (resource, namespace, name) does too."""

    @property
    def resource(self) -> str:
        """`plural.group`."""
        ...

    @property
    def namespace(self) -> str:
        """Empty for cluster-scoped kinds."""
        ...

    @property
    def name(self) -> str:
        """The object's name."""
        ...


Resources = tuple[Encoded, ...]


def _encoded(rows: Table[Any, Any], encode: Callable[[Any, Any], Resources]) -> Table[Any, Resources]:
    """The table of resources that each row of a model table becomes; `encode` gets the key and the row."""

    def make(fetch: Fetch, key: Any) -> Resources:
        row = fetch(rows, key)
        return () if row is None else encode(key, row)

    return Table(make, f"encoded_{rows.name}")


def _secret(fetch: Fetch, key: Any) -> Resources:
    """A gateway's secret. The one place where a key of a Secret becomes bytes for a proxy; the model has a fingerprint only."""
    found = materials(fetch, key[1]) if fetch(gateway_secret, key) is not None else ()
    if not found:
        return ()
    if key[1].authorities:
        bundle = b"\n".join(one.authorities for one in found)
        return (encode_bundle(key[1].resource, bundle, b"\n".join(one.revoked for one in found if one.revoked)),)
    return (encode_certificate(key[1].resource, found[0].chain, found[0].key),)


_ENCODED: Mapping[Table[Any, Any], Table[Any, Resources]] = {
    gateway_secret: Table(_secret, "encoded_gateway_secret"),
} | {
    rows: _encoded(rows, encode)
    for rows, encode in (
        (destination, lambda _key, row: (encode_cluster(row),)),
        (gateway_destination, lambda _key, row: (encode_cluster(row),)),
        (destination_apart, lambda _key, row: (encode_cluster(row),)),
        (endpoints, lambda _key, row: (encode_endpoints(row),)),
        (endpoints_of, lambda _key, row: (encode_endpoints(row),)),
        (own_destination, lambda _key, row: (encode_cluster(row),)),
        (passing_destination, lambda _key, row: (encode_cluster(row),)),
        (passing_endpoints, lambda _key, row: (encode_endpoints(row),)),
        (own_endpoints, lambda _key, row: (encode_endpoints(row),)),
        (udp_destination, lambda _key, row: (encode_cluster(row),)),
        (udp_endpoints, lambda _key, row: (encode_endpoints(row),)),
        (endpoints_from, lambda _key, row: (encode_endpoints(row),)),
        (endpoints_apart, lambda _key, row: (encode_endpoints(row),)),
        (name, lambda _key, row: (encode_json(type_urls.NAME, row.hostname, row),)),
        (outbound, lambda _key, row: encode_outbound(row)),
        (outbound_apart, lambda _key, row: encode_outbound(row)),
        (outbound_six, lambda _key, row: encode_outbound_six(row)),
        (outbound_told, lambda _key, row: encode_outbound(row)),
        (outbound_six_told, lambda _key, row: encode_outbound_six(row)),
        (outbound_udp, lambda _key, row: encode_outbound_udp(row)),
        (outbound_udp_six, lambda _key, row: encode_outbound_udp(row)),
        (mesh_udp_destination, lambda _key, row: (encode_cluster(row),)),
        (mesh_udp_endpoints, lambda _key, row: (encode_endpoints(row),)),
        (route_table, lambda _key, row: (encode_table(row),)),
        (others, lambda key, row: (encode_host(key, row),)),
        (virtual_host, lambda key, row: (encode_host(key[0], row),)),
        (gateway_virtual_host, lambda key, row: (encode_host(key[0], row),)),
        (roots, lambda _key, row: (encode_roots(row),)),
        (authorization, lambda _key, row: encode_authorization(row)),
        (unguarded, lambda _key, row: encode_authorization(row)),
        (limited, lambda _key, row: encode_limited(row)),
        (connection_limited, lambda _key, row: encode_connection_limited(row)),
        (costs, lambda _key, row: encode_costs(row)),
        (route_costs, lambda _key, row: encode_costs(row)),
        (route_limited, lambda _key, row: encode_route_limited(row)),
        (mesh_limited, lambda _key, row: encode_mesh_limited(row)),
        (workload, lambda _key, row: (*encode_workload_clusters(row), *encode_workload(row))),
    )
}

Key = tuple[str, str, str]
Names = dict[str, dict[str, Encoded]]
# What the parts that a commit touches had been, by the layer that they are or were in.
Before = dict[tuple[str, Part], Resources]


class Pipeline:
    """The mesh's configuration, kept up to date.

    `root_namespaces` are names of the namespace for mesh-wide objects; `trace_sampling` is the percentage of traces where no
    Telemetry says one.
    """

    def __init__(
        self,
        trust_domain: str = "cluster.local",
        root_namespaces: tuple[str, ...] = ("tulle-system", "istio-system"),
        trace_sampling: float = 0.0,
    ) -> None:
        self.flow = Flow()
        self._revision = 0
        self._watch = self.flow.watch()
        self._asked = self.flow.watch()  # only keeps what is asked for about every second
        self._problems = self.flow.watch()
        self.statuses = Statuses(self.flow)
        self.analysis = Analysis(self.flow)
        self._listened: dict[str, int] = {}
        self._found: dict[tuple[str, tuple[str, str]], tuple[Problem, ...]] = {}
        self._parts: dict[str, tuple[Part, ...]] = {}
        self._layers_of: dict[Part, tuple[str, ...]] = {}
        self._resources: dict[Part, Resources] = {}
        self._tables: dict[str, Names] = {}
        self.flow.commit({settings: {"": Settings(trust_domain, root_namespaces, trace_sampling)}})
        self._watch.add(layer_names, None)
        self._asked.add(shared_limits, None)
        self._asked.add(exact_limits, None)
        self._publish()

    @property
    def revision(self) -> int:
        """The revision that the tables show now."""
        return self._revision

    def commit(
        self, changes: Mapping[Key, Object | None] | Mapping[Any, Object | None], revision: int | None = None
    ) -> Published:
        """Take in objects (None: deleted) by (resource, namespace, name), all at one revision.

        Keys are triples or `ports.Key`s. `revision` is the store's, where there is one; it may not go back. Kinds that do not
        concern the model are passed over. Only resources whose bytes became others are in the result.
        """
        if revision is not None and revision < self._revision:
            raise ValueError(f"revision {revision} is behind {self._revision}")
        self._revision = self._revision + 1 if revision is None else revision
        batch: Batch = {}
        proxies: set[str] = set()
        for key, one in changes.items():
            resource, namespace, object_name = key if isinstance(key, tuple) else (key.resource, key.namespace, key.name)
            self.statuses.saw(resource, (namespace, object_name), one, self._revision)
            feed(batch, resource, (namespace, object_name), one)
            self.analysis.follow(resource, (namespace, object_name), one is not None)
            source = INPUTS.get(resource)
            if source is None:
                continue
            if source is workload_entries:
                proxies.add(f"{namespace}/{object_name}")
            batch.setdefault(source, {})[namespace, object_name] = None if one is None else row_of(one)
            if resource in BY_RESOURCE:
                self._ask(resource, (namespace, object_name), one is not None)
        self.flow.commit(batch)
        return Published(revision=self._revision, changed=self._publish(), proxies=frozenset(proxies))

    @property
    def wanted_keys(self) -> tuple[Wanted, ...]:
        """Where the keys are that tokens are checked with, as far as they are not in the objects."""
        return self.flow.get(wanted_keys, None) or ()

    @property
    def federated(self) -> tuple[Federated, ...]:
        """The trust domains that the mesh is federated with, as it is configured."""
        return self.flow.get(federated, None) or ()

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """The names of the mesh's own trust domain, its own first."""
        return self.flow.get(trust_domains, None) or ()

    def take_keys(self, found: Mapping[str, KeySet | None]) -> Published:
        """Take in what came from these URLs (None: they are wanted no longer). The revision stays: it is the store's."""
        self.flow.commit({key_sets: dict(found)})
        return Published(revision=self._revision, changed=self._publish())

    def take_roots(self, bundle: bytes, others: Mapping[str, str] | None = None) -> Published:
        """Take in what the mesh trusts (PEM), and by name what its proxies trust of `others`. The revision stays."""
        self.flow.commit({given: {"": Given(bundle.decode(), tuple(sorted((others or {}).items())))}})
        return Published(revision=self._revision, changed=self._publish())

    def take_revoked(self, found: Revoked) -> Published:
        """Take in who has lost an identity. The revision stays."""
        self.flow.commit({given_revoked: {"": found}})
        return Published(revision=self._revision, changed=self._publish())

    @property
    def shared_limits(self) -> tuple[SharedLimit, ...]:
        """The limits of which proxies have shares."""
        return self.flow.get(shared_limits, None) or ()

    @property
    def exact_limits(self) -> tuple[Limit, ...]:
        """The limits that a service counts."""
        return self.flow.get(exact_limits, None) or ()

    def take_shares(self, given: Mapping[tuple[str, str], float | None]) -> Published:
        """Take in shares by (limit's id, proxy's id), above 0 and at most 1 (None: an even one again). The revision stays."""
        self.flow.commit({shares: dict(given)})
        return Published(revision=self._revision, changed=self._publish())

    def layers(self, proxy: str) -> tuple[str, ...]:
        """The layers that a proxy (`namespace/name` of its WorkloadEntry) sees; empty where it is not known."""
        namespace, _slash, entry = proxy.partition("/")
        return self.flow.get(proxy_layers, (namespace, entry)) or ()

    def table(self, layer: str, type_url: str) -> Mapping[str, Encoded]:
        """The resources of a layer and type by name. A later commit makes another mapping and leaves this one as it is."""
        return self._tables.get(layer, {}).get(type_url, {})

    def workload(self, proxy: str) -> Workload | None:
        """A workload with a proxy, by its id."""
        namespace, _slash, entry = proxy.partition("/")
        return self.flow.get(workload, (namespace, entry))

    def listened(self, proxy: str) -> int:
        """The revision at which the listeners that a proxy has for itself last changed; 0 where it has none."""
        return self._listened.get(workload_layer(proxy), 0)

    @property
    def wished(self) -> int:
        """The newest revision at which an object with a status, or the listeners of a proxy, became others."""
        return max(self.statuses.newest, *self._listened.values(), 0)

    @property
    def run_by_nodes(self) -> Mapping[str, str]:
        """The proxies that a node runs, and which node."""
        ids = [layer.removeprefix("workload/") for layer in self._parts if layer.startswith("workload/")]
        return {one: row.node for one in ids if (row := self.workload(one)) is not None and row.node}

    def is_gateway(self, proxy: str) -> bool:
        """Whether a proxy is an ingress or egress gateway."""
        found = self.workload(proxy)
        return found is not None and found.is_gateway

    def made_by(self, proxy: str, type_url: str, resource: str) -> set[Ref]:
        """The objects that a resource which a proxy sees was made of, as far as they could be to blame for its content."""
        parts = (part for layer in reversed(self.layers(proxy)) for part in self._parts.get(layer, ()))
        for rows, key in parts:
            if any((one.type_url, one.name) == (type_url, resource) for one in self._resources.get((rows, key), ())):
                return makers(self.flow, rows, key, resource)
        return set()

    def problems(self) -> list[Problem]:
        """What is wrong with the objects now, by resource and name. Computed when asked for, and only what changed since."""
        for _table, key, found in self._problems.take():
            if found:
                self._found[key] = found
            else:
                self._found.pop(key, None)
        return [problem for key in sorted(self._found) for problem in self._found[key]]

    def rows(self, layers: Iterable[str] | None = None) -> Iterator[tuple[Any, Any]]:
        """The rows of the model in these layers, or in all, with their keys; a table of virtual hosts is its own row."""
        for layer in self._parts if layers is None else layers:
            for rows, key in self._parts.get(layer, ()):
                if (row := self.flow.get(rows, key)) is not None:
                    yield key, row

    def model(self, layer: str) -> dict[str, Any]:
        """The rows of the model behind a layer, by table and key: for people, goldens and tests."""
        rows = {f"{rows.name} {key}": self.flow.get(rows, key) for rows, key in self._parts.get(layer, ())}
        return {name: row for name, row in rows.items() if row != ALLOW_ANY}  # which every table has

    def _ask(self, resource: str, key: tuple[str, str], there: bool) -> None:
        if there:
            self._problems.add(object_problems, (resource, key))
        else:
            self._problems.remove(object_problems, (resource, key))
            self._found.pop((resource, key), None)

    def _publish(self) -> dict[str, dict[str, dict[str, Encoded | None]]]:
        """Settle all rows that somebody sees, and put what came out into the tables."""
        before: Before = {}
        while changed := self._watch.take():
            for rows, key, row in changed:
                if rows is layer_names:
                    self._set_layers(row, before)
                elif rows is layer_parts:
                    if key in self._parts:  # else the layer went in this very commit
                        self._set_parts(key, row or (), before)
                else:
                    part = (_ROWS[rows], key)
                    layers = self._layers_of.get(part, ())
                    for layer in layers:
                        before.setdefault((layer, part), self._resources.get(part, ()))
                    if layers:  # else the part went
                        self._resources[part] = row or ()
        return self._write(before)

    def _set_layers(self, layers: tuple[str, ...], before: Before) -> None:
        there = set(layers)
        for layer in [layer for layer in self._parts if layer not in there]:
            self._watch.remove(layer_parts, layer)
            self._set_parts(layer, (), before)
            del self._parts[layer]
        for layer in layers:
            if layer not in self._parts:
                self._parts[layer] = ()
                self._watch.add(layer_parts, layer)

    def _set_parts(self, layer: str, parts: tuple[Part, ...], before: Before) -> None:
        there, had = dict.fromkeys(parts), dict.fromkeys(self._parts.get(layer, ()))
        for part in had:
            if part in there:
                continue
            before.setdefault((layer, part), self._resources.get(part, ()))
            left = tuple(one for one in self._layers_of[part] if one != layer)
            if left:
                self._layers_of[part] = left
            else:
                self._watch.remove(_ENCODED[part[0]], part[1])
                self._resources.pop(part, None)
                del self._layers_of[part]
        for part in there:
            if part in had:
                continue
            others = self._layers_of.get(part, ())
            self._layers_of[part] = (*others, layer)
            if others:
                before.setdefault((layer, part), ())  # it is made already
            else:
                self._watch.add(_ENCODED[part[0]], part[1])
        self._parts[layer] = parts

    def _write(self, before: Before) -> dict[str, dict[str, dict[str, Encoded | None]]]:
        """New tables for what changed; parts that went first, for another part may have taken over a name."""
        now: dict[str, dict[str, dict[str, Encoded | None]]] = {}
        for (layer, _part), old in before.items():
            for one in old:
                now.setdefault(layer, {}).setdefault(one.type_url, {})[one.name] = None
        for layer, part in before:
            for one in self._resources.get(part, ()) if layer in self._layers_of.get(part, ()) else ():
                now.setdefault(layer, {}).setdefault(one.type_url, {})[one.name] = one
        changed: dict[str, dict[str, dict[str, Encoded | None]]] = {}
        for layer, types in now.items():
            tables = self._tables.setdefault(layer, {})
            for type_url, names in types.items():
                have = tables.get(type_url, {})
                new = {name: one for name, one in names.items() if have.get(name) != one}
                if new:
                    changed.setdefault(layer, {})[type_url] = new
                    if type_url == type_urls.LISTENER:
                        self._listened[layer] = self._revision
                    tables[type_url] = {name: one for name, one in {**have, **new}.items() if one is not None}
            if not any(tables.values()) and layer not in self._parts:
                del self._tables[layer]
                self._listened.pop(layer, None)
        return changed


_ROWS = {encoded: rows for rows, encoded in _ENCODED.items()}
