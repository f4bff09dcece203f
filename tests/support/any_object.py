"""A mesh in which one object of any kind stands in many forms, written at random after the kind's own schema."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from tests.support.certificates import Roots
from tests.support.crd_documents import document
from tests.support.crds import Json
from tests.support.silence_exceptions import APART
from tests.support.silence_objects import BACKEND, GATEWAY_API, ISTIO, OBJECTS, SPLIT, VARIANTS, Place, Steps
from tests.unit.core.compile.mesh import bookinfo, changes, obj, service
from tulle.api.decode import decode
from tulle.api.object import Kind, Object
from tulle.api.openapi import openapi_v3
from tulle.api.openapi_schemas import schema_name
from tulle.api.registry import KINDS
from tulle.core import type_urls
from tulle.core.compile.layers import layer_names
from tulle.core.compile.objects import INPUTS
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem


def resolved(schema: Json, components: Json) -> Json:
    """An OpenAPI schema with its references in place."""
    if "allOf" in schema:
        return resolved(schema["allOf"][0], components)
    if "$ref" in schema:
        return resolved(components[schema["$ref"].rpartition("/")[2]], components)
    whole = {key: value for key, value in schema.items() if key not in ("description", "default")}
    if "properties" in whole:
        whole["properties"] = {name: resolved(one, components) for name, one in whole["properties"].items()}
    for below in ("items", "additionalProperties"):
        if isinstance(whole.get(below), dict):
            whole[below] = resolved(whole[below], components)
    return whole


def schema_of(kind: Kind) -> Json:
    components = openapi_v3(kind.group, kind.stored)["components"]["schemas"]
    return resolved(components[schema_name(kind, kind.stored)], components)


def key_of(kind: Kind) -> str:
    return kind.kind if kind.kind in OBJECTS else f"{kind.group} {kind.kind}"


READ = [kind for kind in KINDS if kind.acted_on and kind.resource in INPUTS and "spec" in kind.model.model_fields]
ACTED_ON = [kind for kind in READ if key_of(kind) in OBJECTS]


def body_of(kind: Kind, spec: Any) -> dict[str, Any]:
    known = OBJECTS[key_of(kind)]
    name = "reviews" if kind.kind == "Service" else "one"
    metadata: dict[str, Any] = {"name": name, "namespace": "default"}
    if kind.kind == "Service":
        spec = {"clusterIP": "240.240.0.3", **spec}
    if kind.kind == "WorkloadEntry":
        metadata["annotations"] = {"tulle.dev/node": "host", "tulle.dev/capture": "netns"}
    if "Gateway" in (kind.kind,):
        metadata["namespace"] = "tulle-system"
    if not kind.namespaced:
        metadata = {"name": "mesh"}
    return {"apiVersion": known["apiVersion"], "kind": kind.kind, "metadata": metadata, "spec": spec}


def placed(one: Object) -> Object:
    """Workloads stand in different regions, so that it matters which of them are near."""
    regions = {"reviews-v1": "a", "reviews-v2": "b", "reviews-v3": "web", "productpage-v1": "a", "ratings-v1": "b"}
    if one.kind != "WorkloadEntry" or one.metadata.name not in regions:
        return one
    raw = one.model_dump(by_alias=True, exclude_none=True)
    raw["spec"]["locality"] = regions[one.metadata.name]
    return obj(raw)


def certificates() -> list[Any]:
    """What the objects name: certificates for gateways."""
    roots = Roots()
    chain, key = (one.decode() for one in roots.server("a.b"))
    data = {"tls.crt": chain, "tls.key": key, "ca.crt": roots.pem.decode()}
    kinds = (("Secret", "stringData", ("a", "a-cacert")), ("ConfigMap", "data", ("a",)))
    bodies = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "tulle-system"}, field: data}
        for kind, field, names in kinds
        for name in names
    ]
    return [decode(body)[0] for body in bodies]


_ALL = {"namespaces": {"from": "All"}}
_BYTES: dict[str, Any] = {
    "bytes": {
        "gatewayClassName": "tulle",
        "listeners": [
            {"name": "a", "port": 83, "protocol": "TLS", "tls": {"mode": "Passthrough"}, "allowedRoutes": _ALL},
            {"name": "b", "port": 84, "protocol": "TCP", "allowedRoutes": _ALL},
            {"name": "c", "port": 85, "protocol": "TLS", "tls": {"mode": "Passthrough"}, "allowedRoutes": _ALL},
            {"name": "d", "port": 86, "protocol": "TCP", "allowedRoutes": _ALL},
        ],
    }
}


def beside_a_kind(kind: Kind) -> list[Any]:
    """The Gateways to which a kind of object belongs."""
    specs: dict[str, dict[str, Any]] = {
        "ListenerSet": {
            "sets": {
                "gatewayClassName": "tulle",
                "listeners": [{"name": "own", "port": 82, "protocol": "HTTP"}],
                "allowedListeners": _ALL,
            }
        },
        "TLSRoute": _BYTES,
        "TCPRoute": _BYTES,
        "UDPRoute": {
            "datagrams": {
                "gatewayClassName": "tulle",
                "listeners": [
                    {"name": name, "port": port, "protocol": "UDP", "allowedRoutes": _ALL}
                    for name, port in (("a", 83), ("b", 84))
                ],
            }
        },
    }
    metadata = {"namespace": "tulle-system"}
    parents = [{"kind": "ListenerSet", "name": "one", "sectionName": "http"}, {"kind": "ListenerSet", "name": "one"}]
    bodies: list[dict[str, Any]] = [
        {
            "apiVersion": GATEWAY_API,
            "kind": "HTTPRoute",
            "metadata": {"name": f"to-set-{index}", "namespace": "default"},
            "spec": {
                "parentRefs": [parent],
                "rules": [{"backendRefs": [BACKEND], "matches": [{"path": {"value": f"/{index}"}}]}],
            },
        }
        for index, parent in enumerate(parents)
    ]
    grant = {"from": [{"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "namespace": "default"}]}
    grant["to"] = [{"group": "", "kind": "Secret"}]
    bodies.append(
        {
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {**metadata, "name": "sets"},
            "spec": grant,
        }
    )
    if kind.kind == "MeshConfig":  # providers say something where somebody asks them
        asks = {"action": "CUSTOM", "provider": {"name": "a"}, "rules": [{}]}
        apart = {"name": "asks", "namespace": "tulle-system"}
        bodies.append(
            {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": apart, "spec": asks},
        )
        logs = {"selector": {"matchLabels": {"app": "reviews"}}, "accessLogging": [{"providers": [{"name": "a"}]}]}
        bodies.append(
            {
                "apiVersion": "telemetry.istio.io/v1",
                "kind": "Telemetry",
                "metadata": {"name": "asks", "namespace": "default"},
                "spec": logs,
            },
        )
    bodies += [
        {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": {**metadata, "name": name}, "spec": spec}
        for name, spec in specs.get(kind.kind, {}).items()
    ]
    return [decode(body)[0] for body in bodies]


class Mesh:
    """The mesh with one object in many forms: what proxies are told, and what people are told, of each."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.pipeline = Pipeline()
        beside = [one for one in ACTED_ON if one.kind not in (kind.kind, *APART.get(key_of(kind), ()))]
        others = [self.read(one, OBJECTS[key_of(one)]["spec"])[0] for one in beside]
        attached = {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": {"name": "attached", "namespace": "default"}}
        spec = {"parentRefs": [{"name": "one", "namespace": "tulle-system"}], "rules": [{"backendRefs": [BACKEND]}]}
        others.append(decode({**attached, "spec": spec})[0])
        metadata = {"name": "delegate", "namespace": "default"}
        delegate = {"apiVersion": ISTIO, "kind": "VirtualService", "metadata": metadata, "spec": {"http": [{"route": SPLIT[:1]}]}}
        others.append(decode(delegate)[0])
        others.append(decode({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"a": "b"}}})[0])
        if kind.kind == "DestinationRule":  # what its subsets say of connections counts where connections go there
            to = {"host": "db", "subset": "v1", "port": {"number": 3306}}
            rules = {"hosts": ["db"], "tcp": [{"match": [{"sourceNamespace": "default"}], "route": [{"destination": to}]}]}
            of_bytes = {"apiVersion": ISTIO, "kind": "VirtualService", "metadata": {"name": "db", "namespace": "default"}}
            others.append(decode({**of_bytes, "spec": rules})[0])
        more = {"apiVersion": GATEWAY_API, "kind": "ListenerSet", "metadata": {"name": "more", "namespace": "default"}}
        listeners = [{"name": "more", "port": 81, "protocol": "HTTP", "hostname": "more.b"}]
        parent = {"name": "one", "namespace": "tulle-system"}
        others += beside_a_kind(kind)
        if kind.kind != "ListenerSet":
            others.append(decode({**more, "spec": {"parentRef": parent, "listeners": listeners}})[0])
        pem = Roots().pem.decode()
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "default"}}
        others.append(decode({**config_map, "data": {"ca.crt": pem}})[0])
        database = service("db", ports=({"port": 3306, "name": "mysql"},), address="240.240.3.6")
        datagrams = [
            service(f"dns-{name}", ports=({"port": 53, "name": "dns", "protocol": "UDP"},), selector={"app": name})
            for name in ("reviews", "ratings")
        ]
        gate = service("gate", ports=({"port": 9000, "name": "grpc"},), address="240.240.3.7")
        beside_it = [*datagrams, *map(placed, bookinfo()), *certificates(), database, gate]
        batch = changes([*beside_it, *[one for one in others if one is not None]])
        self.pipeline.commit(batch)
        self.known: dict[str, tuple[Any, list[Problem]] | None] = {}

    @staticmethod
    def read(kind: Kind, spec: Any) -> Any:
        return decode(body_of(kind, spec))

    def told(self, spec: Any) -> tuple[Any, list[Problem]] | None:
        """Of an object: what proxies get, and the problems; None where it is refused."""
        key = repr(spec)
        if key not in self.known:
            self.known[key] = self._told(spec)
        return self.known[key]

    def _told(self, spec: Any) -> tuple[Any, list[Problem]] | None:
        one, problems = self.read(self.kind, spec)
        if one is None:
            return None
        self.pipeline.commit(changes([one]))
        told = {
            (layer, url, name): encoded.version
            for layer in self.pipeline.flow.get(layer_names, None) or ()
            for url in type_urls.ORDER
            for name, encoded in self.pipeline.table(layer, url).items()
        }
        return told, [*problems, *self.pipeline.problems()]


def put(spec: Any, schema: Json, path: Steps, random: Random) -> tuple[Any, Place]:
    """The document with something at the path (of the schema), and where in the document that is."""
    whole = copy.deepcopy(spec)
    at, here, place = whole, schema, ()
    found: Place = place
    for index, step in enumerate(path):
        below = here["items"] if step == "[]" else here["additionalProperties"] if step == "{}" else here["properties"][step]
        last = index == len(path) - 1
        key: str | int | None = step
        if step == "[]":
            key = 0 if at else None
        elif step == "{}":
            key = next(iter(at), None)
        if key is None or last or (isinstance(at, dict) and key not in at):
            made = document(below, random, path[index + 1 :], often=0.0)
            if isinstance(at, list):
                at[:] = [made, *at[1:]]
                found = (*found, 0)
            else:
                name = key if key is not None and step != "{}" else (key or "a")
                at[name] = made
                found = (*found, name)
            found = (*found, *first(made, path[index + 1 :]))
            return whole, found
        at, here, found = at[key], below, (*found, key)
    return whole, found


def first(value: Any, path: Steps) -> Place:
    found: Place = ()
    for step in path:
        key: str | int = 0 if step == "[]" else next(iter(value)) if step == "{}" else step
        value, found = value[key], (*found, key)
    return found


def bases(kind: Kind) -> list[Any]:
    return [OBJECTS[key_of(kind)]["spec"], *VARIANTS.get(key_of(kind), ())]
