"""The order and the batches in which objects come make no difference: the same objects give the same bytes and problems."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.compile.mesh import Key, bookinfo, entry, key_of, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.analyze.analysis import analyze
from tulle.core.analyze.inputs import Scope
from tulle.core.pipeline import Pipeline

ISTIO = "networking.istio.io/v1"
GATEWAY_API = "gateway.networking.k8s.io/v1"


def _made(api: str, kind: str, name: str, spec: dict[str, Any], created: str = "", namespace: str = "default") -> Object:
    metadata = {"name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {})}
    return obj({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})


def _vs(name: str, version: str, created: str, **more: Any) -> Object:
    http = [{"route": [{"destination": {"host": "reviews", "subset": version}}]}]
    return _made(ISTIO, "VirtualService", name, {"hosts": ["reviews"], "http": http, **more}, created)


def _route(name: str, backend: str, path: str, created: str, parent: dict[str, Any]) -> Object:
    rules = [{"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": backend, "port": 9080}]}]
    return _made(GATEWAY_API, "HTTPRoute", name, {"parentRefs": [parent], "rules": rules}, created)


_SERVER = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
_SUBSETS = [{"name": f"v{number}", "labels": {"version": f"v{number}"}} for number in (1, 2)]
_MESH = {"group": "", "kind": "Service", "name": "reviews"}
OLD, NEW = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"

# Objects that meet in one place: for one host, one bound port, one workload; some of them broken; some with two contents.
POOL: list[Object] = [
    *bookinfo(),
    _vs("one", "v1", OLD),
    _vs("one", "v2", OLD),
    _vs("two", "v2", OLD),
    _vs("three", "v9", NEW, exportTo=["."]),
    _vs("ingress", "v1", NEW, gateways=["gw", "mesh"]),
    _made(ISTIO, "DestinationRule", "a", {"host": "reviews", "subsets": _SUBSETS[:1]}, NEW),
    _made(ISTIO, "DestinationRule", "b", {"host": "reviews.default", "subsets": _SUBSETS}, OLD),
    _made(
        ISTIO, "DestinationRule", "all", {"host": "*.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}, "", "tulle-system"
    ),
    _made(
        ISTIO,
        "DestinationRule",
        "near",
        {"host": "ratings", "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"failoverPriority": ["version"]}}}},
    ),
    _made(ISTIO, "DestinationRule", "near", {"host": "ratings", "trafficPolicy": {"outlierDetection": {"interval": "1s"}}}),
    entry("ratings-v1", "10.0.0.16", {"app": "ratings", "version": "v2", "topology.kubernetes.io/zone": "a"}),
    _made(
        GATEWAY_API,
        "BackendTLSPolicy",
        "details",
        {
            "targetRefs": [{"group": "", "kind": "Service", "name": "details"}],
            "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"},
        },
    ),
    _made(ISTIO, "Gateway", "gw", {"selector": {"istio": "ingressgateway"}, "servers": [_SERVER]}),
    _made(
        GATEWAY_API, "Gateway", "gw", {"gatewayClassName": "tulle", "listeners": [{"name": "h", "port": 80, "protocol": "HTTP"}]}
    ),
    _route("r1", "reviews-v1", "/a", OLD, _MESH),
    _route("r1", "gone", "/a", OLD, _MESH),
    _route("r2", "reviews-v2", "/a", OLD, _MESH),
    _route("r3", "reviews-v3", "/", NEW, {"name": "gw"}),
    _made("security.istio.io/v1", "PeerAuthentication", "mesh", {"mtls": {"mode": "STRICT"}}, "", "tulle-system"),
    _made("security.istio.io/v1", "PeerAuthentication", "ns", {"mtls": {"mode": "DISABLE"}}),
    service("reviews", address="240.240.0.1", created=NEW),
    service("db", ports=({"port": 3306, "name": "mysql"},), address="240.240.7.7"),
    entry("reviews-v1", "10.0.0.13", {"app": "reviews", "version": "v2"}, ready="false"),
    entry("stranger", "10.1.0.1", {"app": "curl"}, "shop", capture="proxy"),
]

State = dict[tuple[str, str, str], bytes]


def state(pipeline: Pipeline) -> State:
    """All that proxies are sent, as bytes."""
    layers = {"unguarded", "mesh", *(f"namespace/{name}" for name in ("default", "shop", "tulle-system"))}
    for one in POOL:
        layers.update(pipeline.layers(f"{one.metadata.namespace}/{one.metadata.name}"))
    return {
        (layer, kind, name): encoded.resource
        for layer in layers
        for kind in type_urls.ORDER
        for name, encoded in pipeline.table(layer, kind).items()
    }


# An object by its place in the pool, and whether it is there or deleted.
_CHANGE = st.tuples(st.integers(0, len(POOL) - 1), st.booleans())


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(st.tuples(st.lists(_CHANGE, max_size=8), st.booleans()), max_size=6), base=st.booleans(), data=st.data())
def test_order_and_batches_make_no_difference(
    batches: list[tuple[list[tuple[int, bool]], bool]], base: bool, data: st.DataObject
) -> None:
    """Two control planes, or one before and after a restart, would send different configurations for the same objects."""
    pipeline = Pipeline()
    final: dict[Key, Object] = {}
    if base:
        final = {key_of(one): one for one in bookinfo()}
        pipeline.commit(dict(final))
    mirror = state(pipeline)
    for changes, ask in batches:
        batch: dict[Key, Object | None] = {}
        for index, there in changes:
            one = POOL[index]
            batch[key_of(one)] = one if there else None
        published = pipeline.commit(batch)
        for layer, types in published.changed.items():
            for kind, names in types.items():
                for name, encoded in names.items():
                    mirror.pop((layer, kind, name), None)
                    if encoded is not None:
                        mirror[layer, kind, name] = encoded.resource
        for key, found in batch.items():
            final.pop(key, None)
            if found is not None:
                final[key] = found
        if ask:
            pipeline.problems()
            pipeline.analysis.found()
    assert mirror == state(pipeline)
    scratch = Pipeline()
    for key in data.draw(st.permutations(sorted(final))):
        scratch.commit({key: final[key]})
    at_once = Pipeline()
    at_once.commit(dict(final))
    assert state(pipeline) == state(scratch) == state(at_once)
    assert pipeline.problems() == scratch.problems() == at_once.problems()
    for each in (pipeline, scratch, at_once):
        each.analysis.at(Scope())
        judged = each.analysis.found()
        assert [one for row in sorted(judged) for one in judged[row]] == analyze(one for one in final.values() if one)
    for each in (pipeline, scratch, at_once):
        each.commit({})  # drops what was only looked at
    assert pipeline.flow.size == scratch.flow.size == at_once.flow.size, "rows that nobody uses were kept"
