"""No field is ignored in silence: each field of a kind that the mesh acts on changes what proxies are told, or a warning says no.

The fields are those of the schemas; nothing here knows which of them the compiler reads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.conformance.corpora.test_cel import FILTERS as GRPC_FILTERS
from tests.conformance.corpora.test_cel import HTTP_FILTERS
from tests.support.certificates import Roots
from tests.support.crd_documents import document
from tests.support.crds import Json, places
from tests.unit.core.compile.mesh import bookinfo, changes, obj, service
from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.api.object import Kind, Object
from tulle.api.openapi import openapi_v3
from tulle.api.openapi_schemas import schema_name
from tulle.api.registry import KINDS
from tulle.core import type_urls
from tulle.core.compile.layers import layer_names
from tulle.core.compile.objects import INPUTS
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem, Severity

Steps = tuple[str, ...]
Place = tuple[str | int, ...]

ISTIO, GATEWAY_API = "networking.istio.io/v1", "gateway.networking.k8s.io/v1"
HTTP = {"name": "http", "port": 9080}
SPLIT = [
    {"destination": {"host": "reviews", "subset": "v1", "port": {"number": 9080}}, "weight": 80},
    {"destination": {"host": "reviews", "subset": "v2"}, "weight": 20},
]
MIRROR = {"host": "reviews", "subset": "v1", "port": {"number": 9080}}
BACKEND = {"name": "reviews-v1", "port": 9080}
MIRRORS: list[dict[str, Any]] = [
    {"type": "RequestMirror", "requestMirror": {"backendRef": BACKEND, **share}}
    for share in ({}, {"percent": 5}, {"fraction": {"numerator": 1, "denominator": 8}})
]
# A mesh in which the fields of each kind have something to act on; each kind's object is changed in turn.
OBJECTS: dict[str, dict[str, Any]] = {
    "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "reviews"}, "ports": [HTTP]}},
    "WorkloadEntry": {
        "apiVersion": ISTIO,
        "spec": {
            "address": "10.0.0.77",
            "labels": {"app": "reviews", "version": "v1"},
            "serviceAccount": "a",
            "ports": {"tcp": 9081},
        },
    },
    "ServiceEntry": {
        "apiVersion": ISTIO,
        "spec": {
            "hosts": ["api.example.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "endpoints": [{"address": "192.0.2.1", "labels": {"security.istio.io/tlsMode": "istio"}}],
        },
    },
    "Sidecar": {
        "apiVersion": ISTIO,
        "spec": {
            "workloadSelector": {"labels": {"app": "reviews"}},
            "ingress": [{"port": {"number": 9080, "protocol": "HTTP", "name": "http"}, "defaultEndpoint": "127.0.0.1:8080"}],
            "egress": [
                {"port": {"number": 9080, "protocol": "HTTP", "name": "http"}, "hosts": ["*/reviews.default.svc.cluster.local"]},
                {"hosts": ["*/*"]},
            ],
            "outboundTrafficPolicy": {"mode": "ALLOW_ANY"},
        },
    },
    "MeshConfig": {"apiVersion": "tulle.dev/v1alpha1", "spec": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}},
    "VirtualService": {
        "apiVersion": ISTIO,
        "spec": {"hosts": ["reviews"], "http": [{"match": [{"uri": {"prefix": "/a"}}], "route": SPLIT}, {"route": SPLIT[:1]}]},
    },
    "DestinationRule": {
        "apiVersion": ISTIO,
        "spec": {
            "host": "reviews",
            "trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "3s"}}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
        },
    },
    "networking.istio.io Gateway": {
        "apiVersion": ISTIO,
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    },
    "PeerAuthentication": {
        "apiVersion": "security.istio.io/v1",
        "spec": {"selector": {"matchLabels": {"app": "reviews"}}, "mtls": {"mode": "STRICT"}},
    },
    "gateway.networking.k8s.io Gateway": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "gatewayClassName": "tulle",
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "other", "port": 8080, "protocol": "HTTP"},
            ],
        },
    },
    "TLSRoute": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "parentRefs": [{"name": "bytes", "namespace": "tulle-system"}],
            "hostnames": ["a.b"],
            "rules": [{"backendRefs": [{"name": "reviews-v1", "port": 9080}, {"name": "reviews-v2", "port": 9080}]}],
        },
    },
    "TCPRoute": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "parentRefs": [{"name": "bytes", "namespace": "tulle-system"}],
            "rules": [{"backendRefs": [{"name": "reviews-v1", "port": 9080}, {"name": "reviews-v2", "port": 9080}]}],
        },
    },
    "ListenerSet": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "parentRef": {"name": "sets", "namespace": "tulle-system"},
            "listeners": [{"name": "http", "port": 81, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}],
        },
    },
    "BackendTLSPolicy": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "reviews"}],
            "validation": {"hostname": "a.b", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]},
        },
    },
    "HTTPRoute": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "ratings", "port": 9080}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/a"}}],
                    "backendRefs": [{"name": "reviews-v1", "port": 9080}, {"name": "reviews-v2", "port": 9080}],
                }
            ],
        },
    },
}
TCP_PORT = {"number": 80, "name": "tcp", "protocol": "TCP"}
OBJECTS["GRPCRoute"] = {
    "apiVersion": GATEWAY_API,
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "details", "port": 9080}],
        "rules": [
            {"matches": [{"method": {"service": "a.B", "method": "C"}}], "backendRefs": [BACKEND, {**BACKEND, "weight": 2}]}
        ],
    },
}
TCP_ROUTE = [{"destination": {"host": "reviews", "port": {"number": 9080}}, "weight": 1}]
TCP_SPLIT = [
    {"destination": {"host": "reviews", "subset": "v1", "port": {"number": 9080}}, "weight": 80},
    {"destination": {"host": "db"}, "weight": 20},
]
FILES = {"serverCertificate": "/a", "privateKey": "/b", "caCertificates": "/c"}
CERTIFIED = {"certificateRefs": [{"name": "a"}]}
CHECKED = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "a"}]}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "VirtualService": [
        *(
            {"hosts": ["reviews"], "http": [rule]}
            for rule in (
                {"redirect": {"authority": "a.b", "scheme": "https", "redirectCode": 308, "port": 80}},
                {"redirect": {"uri": "/a", "derivePort": "FROM_REQUEST_PORT"}},
                {"redirect": {"prefixRewrite": "/a"}},
                {"directResponse": {"status": 503, "body": {"string": "a"}}},
                {"directResponse": {"status": 503, "body": {"bytes": "YQ=="}}},
                {"route": SPLIT[:1], "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"}},
                {"route": SPLIT[:1], "fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 5.0}}}},
                {"route": SPLIT[:1], "fault": {"delay": {"fixedDelay": "1s", "percent": 5}}},
                {"route": SPLIT[:1], "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 5.0}}}},
                {"match": [{"uri": {"exact": "/a"}}], "route": SPLIT[:1]},
                {"route": SPLIT[:1], "mirror": MIRROR, "mirrorPercentage": {"value": 5.0}},
                {"route": SPLIT[:1], "mirror": MIRROR, "mirrorPercent": 5},
                {"route": SPLIT[:1], "mirror": MIRROR, "mirror_percent": 5},
                {"route": SPLIT[:1], "mirrors": [{"destination": MIRROR, "percentage": {"value": 5.0}}]},
                {"match": [{"uri": {"regex": "/a"}, "statPrefix": "a"}], "route": SPLIT[:1]},
            )
        ),
        {"http": [{"route": SPLIT[:1]}], "hosts": ["reviews"], "gateways": ["mesh", "tulle-system/one"]},
        {"hosts": ["reviews"], "http": [{"delegate": {"name": "delegate", "namespace": "default"}}]},
        {"hosts": ["db"], "tls": [{"match": [{"sniHosts": ["db"], "port": 3306}], "route": TCP_SPLIT}]},
        {"hosts": ["db"], "tcp": [{"match": [{"port": 3306}], "route": TCP_SPLIT}]},
    ],
    "DestinationRule": [
        spec
        for policy in (
            {"loadBalancer": {"simple": "RANDOM"}},
            {"loadBalancer": {"backendUtilization": {"weightExpirationPeriod": "5s"}}},
            {"loadBalancer": {"consistentHash": {"httpHeaderName": "a", "ringHash": {"minimumRingSize": 2}}}},
            {"loadBalancer": {"consistentHash": {"httpHeaderName": "a", "maglev": {"tableSize": 2}}}},
            {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "a", "path": "/", "ttl": "1s"}}}},
            {"tls": {"mode": "SIMPLE"}},
            {"tls": {"mode": "MUTUAL", "clientCertificate": "/a", "privateKey": "/b"}},
            {"tls": {"mode": "ISTIO_MUTUAL", "sni": "a", "subjectAltNames": ["spiffe://a/b"]}},
            {"connectionPool": {"tcp": {"connectTimeout": "3s"}}},
            {"loadBalancer": {"consistentHash": {"useSourceIp": True}}},
            {"loadBalancer": {"warmup": {"duration": "7s"}}},
            {"loadBalancer": {"localityLbSetting": {"distribute": [{"from": "a", "to": {"b": 100}}]}}},
            {"loadBalancer": {"localityLbSetting": {"failoverPriority": ["topology.kubernetes.io/region"]}}},
            {"loadBalancer": {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}},
            {"outlierDetection": {"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 3}},
        )
        for of_port in ({"portLevelSettings": [{"port": {"number": 9080}, **policy}]},)
        for spec in (
            {"host": "reviews", "trafficPolicy": policy},
            {"host": "reviews", "trafficPolicy": of_port},
            {"host": "reviews", "subsets": [{"name": "v1", "labels": {"app": "reviews"}, "trafficPolicy": policy}]},
            {"host": "reviews", "subsets": [{"name": "v1", "labels": {"app": "reviews"}, "trafficPolicy": of_port}]},
        )
    ],
    "GRPCRoute": [
        {
            "parentRefs": [{"group": "", "kind": "Service", "name": "details", "port": 9080}],
            "rules": [{"matches": [{"method": {"service": "a.B", "type": "RegularExpression"}}], **rule}],
        }
        for one in [*GRPC_FILTERS, *MIRRORS]
        for rule in (
            {"backendRefs": [BACKEND], "filters": [one]},
            {"backendRefs": [{**BACKEND, "filters": [one]}]},
        )
    ]
    + [
        {
            "parentRefs": [{"name": "one", "namespace": "tulle-system", "sectionName": "http"}],
            "hostnames": ["a.b"],
            "rules": [{"backendRefs": [BACKEND], "sessionPersistence": sessions}],
        }
        for sessions in (
            {"type": "Header", "header": {"name": "a"}},
            {"type": "Cookie", "cookie": {"name": "a"}, "absoluteTimeout": "1h"},
        )
    ],
    "networking.istio.io Gateway": [
        {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"], "tls": {"httpsRedirect": True}},
            ],
        },
        *(
            {
                "selector": {"istio": "ingressgateway"},
                "servers": [{"port": {"number": 80, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": tls}],
            }
            for tls in (
                {"mode": "SIMPLE", **FILES},
                {"mode": "SIMPLE", "credentialName": "a"},
                {"mode": "SIMPLE", "credentialNames": ["a"]},
                {"mode": "SIMPLE", "tlsCertificates": [FILES]},
                {"mode": "PASSTHROUGH"},
                {"mode": "MUTUAL", **FILES},
                {"mode": "MUTUAL", "credentialName": "a"},
                {"mode": "MUTUAL", "tlsCertificates": [FILES]},
            )
        ),
    ],
    "ServiceEntry": [
        {
            "hosts": ["a.b.c"],
            "resolution": "STATIC",
            "ports": [TCP_PORT],
            "endpoints": [{"address": "192.0.2.1", "ports": {"tcp": 81}}],
        },
        {"hosts": ["a.example.com"], "resolution": "NONE", "addresses": ["192.0.2.0/24"], "ports": [TCP_PORT]},
        {"hosts": ["a.example.com"], "resolution": "DNS", "ports": [TCP_PORT], "endpoints": [{"address": "b.example.com"}]},
        {
            "hosts": ["a.example.com"],
            "resolution": "STATIC",
            "ports": [TCP_PORT],
            "workloadSelector": {"labels": {"app": "reviews"}},
        },
    ],
    "MeshConfig": [
        {"extensionProviders": [{"name": "a", kind: {"service": "a.b", "port": 80}}]}
        for kind in ("envoyExtAuthzGrpc", "envoyExtAuthzHttp", "envoyOtelAls", "opentelemetry")
    ],
    "ListenerSet": [
        {
            "parentRef": {"name": "sets", "namespace": "tulle-system"},
            "listeners": [
                {
                    "name": "https",
                    "port": 81,
                    "hostname": "x.b",
                    "protocol": protocol,
                    "tls": {"mode": mode, "certificateRefs": [{"name": "a", "namespace": "tulle-system"}]},
                    "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}},
                }
            ],
        }
        for protocol, mode, selector in (
            ("TLS", "Passthrough", {"matchLabels": {"a": "b"}}),
            ("HTTPS", "Terminate", {"matchLabels": {"a": "b"}}),
            ("HTTPS", "Terminate", {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}),
        )
    ],
    "WorkloadEntry": [
        {"address": "10.0.0.77", "labels": {"app": "reviews"}, "serviceAccount": "a", "ports": {"http": 9081}},
    ],
    "BackendTLSPolicy": [
        {
            "targetRefs": [{"group": "", "kind": "Service", "name": "reviews", "sectionName": "http"}],
            "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"},
        }
    ],
    "PeerAuthentication": [
        {"selector": {"matchLabels": {"app": "reviews"}}, "portLevelMtls": {"9080": {"mode": "STRICT"}}},
    ],
    "gateway.networking.k8s.io Gateway": [
        {
            "gatewayClassName": "tulle",
            "listeners": [
                {
                    "name": "https",
                    "port": 80,
                    "protocol": "HTTPS",
                    "tls": {"mode": "Terminate", "certificateRefs": [{"name": "a"}]},
                    "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}},
                }
            ],
        }
        for selector in (
            {"matchLabels": {"a": "b"}},
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        )
    ]
    + [
        {
            "gatewayClassName": "tulle",
            "listeners": [{"name": "a", "port": 80, "protocol": protocol, "tls": tls, "hostname": "x.b"}],
            "tls": {"frontend": frontend},
        }
        for protocol, tls, frontend in (
            ("TLS", {"mode": "Passthrough", **CERTIFIED}, {"default": {}}),
            ("HTTPS", CERTIFIED, {"default": {"validation": CHECKED}}),
            ("HTTPS", CERTIFIED, {"default": {}, "perPort": [{"port": 80, "tls": {"validation": CHECKED}}]}),
        )
    ]
    + [
        {
            **OBJECTS["gateway.networking.k8s.io Gateway"]["spec"],
            "allowedListeners": {"namespaces": {"from": "Selector", "selector": selector}},
        }
        for selector in (
            {"matchLabels": {"a": "b"}},
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        )
    ],
    "HTTPRoute": [
        {
            "parentRefs": [{"group": "", "kind": "Service", "name": "ratings", "port": 9080}],
            "rules": [{"matches": [{"path": {"value": "/a"}}], **rule}],
        }
        for one in [*HTTP_FILTERS, *MIRRORS]
        for rule in (
            {"filters": [one], **({} if "Redirect" in str(one["type"]) else {"backendRefs": [BACKEND]})},
            {"backendRefs": [{**BACKEND, "filters": [one]}]},
        )
    ]
    + [
        {
            "parentRefs": [{"name": "one", "namespace": "tulle-system", "sectionName": "http"}],
            "hostnames": ["a.b"],
            "rules": [{"backendRefs": [BACKEND], "sessionPersistence": sessions}],
        }
        for sessions in (
            {"type": "Header", "header": {"name": "a"}},
            {"type": "Cookie", "cookie": {"name": "a"}, "absoluteTimeout": "1h"},
        )
    ],
}
# Warnings about one field that say that all beside it is without effect.
SPEAKS_FOR: list[tuple[str, Place]] = [
    ("networking.istio.io Gateway", ("tls",)),
    ("networking.istio.io Gateway", ("port", "protocol")),
    ("gateway.networking.k8s.io Gateway", ("protocol",)),
    ("gateway.networking.k8s.io Gateway", ("type",)),
]
# What is left out beside a kind, for it would hide what is tried. (Nor is there another kind of the same name: two Gateways take
# one port from each other.)
APART = {"HTTPRoute": ("VirtualService",), "DestinationRule": ("BackendTLSPolicy",)}
# Fields that say nothing to a mesh, each with the reason.
MEANINGLESS: dict[tuple[str, str], str] = {
    ("Sidecar", "port.name"): "a listener's name is for people",
    ("Sidecar", "egress.[].port.protocol"): "services say what is spoken at their ports",
    (
        "Gateway",
        "selector.matchExpressions.[].operator",
    ): "has an effect; the schema does not say its words, so no other is found",
    ("HTTPRoute", "requestRedirect.path.type"): "names the field beside it, which has the effect",
    ("HTTPRoute", "urlRewrite.path.type"): "names the field beside it, which has the effect",
    ("GRPCRoute", "sessionPersistence.type"): "names the field beside it, which has the effect",
    ("HTTPRoute", "sessionPersistence.type"): "names the field beside it, which has the effect",
    ("BackendTLSPolicy", "subjectAltNames.[].type"): "says only which of hostname and uri is written",
    (
        "ListenerSet",
        "selector.matchExpressions.[].operator",
    ): "has an effect; the schema does not say its words, so no other is found",
    ("Gateway", "servers.[].port.protocol"): "has an effect; the schema does not say its words, so no other is found",
    ("Gateway", "servers.[].name"): "a name for people",
    ("Gateway", "tls.httpsRedirect"): "has an effect; beside HTTP no other value is taken",
    ("Gateway", "tls.verifyCertificateHash"): "has an effect; no right hash is found by chance",
    ("Gateway", "tls.verifyCertificateSpki"): "has an effect; no right hash is found by chance",
    ("Service", "externalName"): "belongs to the type ExternalName, of which a warning speaks",
    ("Service", "allocateLoadBalancerNodePorts"): "belongs to the type LoadBalancer, of which a warning speaks",
    ("Service", "sessionAffinityConfig.clientIP.timeoutSeconds"): "belongs to sessionAffinity, of which a warning speaks",
}


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
        beside_it = [*map(placed, bookinfo()), *certificates(), database]
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


def without(spec: Any, place: Place) -> Any:
    whole = copy.deepcopy(spec)
    at = whole
    for step in place[:-1]:
        at = at[step]
    del at[place[-1]]
    return whole


def silent(kind: Kind) -> Iterator[str]:
    """The fields that change nothing and of which nothing is said; and those that no right document was found for."""
    mesh, schema = Mesh(kind), schema_of(kind)["properties"]["spec"]
    for path, place in places(schema):
        if not path or path[-1] in ("[]", "{}") or not is_leaf(place):
            continue
        tried = False
        for number, base in itertools.product(range(60), bases(kind)):
            answer = heard(mesh, base, schema, path, Random(number))
            tried = tried or answer is not None
            if answer or (tried and number > 25):
                break
        if not answer:
            yield ".".join(path) if tried else f"{'.'.join(path)}: no document"


def is_leaf(place: Json) -> bool:
    """Whether a place holds a value, or a list or map of values; what has fields is judged by them."""
    below = place.get("items") or place.get("additionalProperties") or place
    return "properties" not in below


def bases(kind: Kind) -> list[Any]:
    return [OBJECTS[key_of(kind)]["spec"], *VARIANTS.get(key_of(kind), ())]


def heard(mesh: Mesh, base: Any, schema: Json, path: Steps, random: Random) -> bool | None:
    """Whether a field is acted on or warned of; None where the document with it is refused."""
    spec, place = put(base, schema, path, random)
    if is_there(base, place) and random.random() < 0.3:
        spec = base  # what is written there by hand
    told = mesh.told(spec)
    if told is None:
        return None
    if any(problem.severity is Severity.WARNING and speaks_of(mesh.kind, problem, place) for problem in told[1]):
        return True
    others = [without(spec, place), *(put(spec, schema, path, Random(number))[0] for number in range(6))]
    if is_there(base, place):
        others.append(base)
    return any(other is not None and other[0] != told[0] for other in map(mesh.told, others))


def is_there(value: Any, place: Place) -> bool:
    try:
        for step in place:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def speaks_of(kind: Kind, problem: Problem, place: Place) -> bool:
    """Whether a problem is said at a place, around it or in it, or of all that the place belongs to."""
    steps = paths.split(problem.path)[1:]
    whole = next((steps[: -len(end)] for one, end in SPEAKS_FOR if one == key_of(kind) and steps[-len(end) :] == end), None)
    if whole is not None and place[: len(whole)] == whole:
        return True
    return len(steps) > 0 and steps[: len(place)] == place[: len(steps)]


# Kinds that are read and are not here, each with the reason.
ELSEWHERE = {
    "namespaces": "it has no field that is for the mesh",
    "workloadgroups.networking.istio.io": "nodes act on it: tests/unit/node/test_groups.py",
    "gatewayclasses.gateway.networking.k8s.io": "it decides whose Gateways are ours; what it says otherwise is in its conditions",
    "referencegrants.gateway.networking.k8s.io": "all that it says is which references count",
}


def test_every_kind_that_is_acted_on_is_here() -> None:
    """A new kind could ignore its fields."""
    assert {kind.resource for kind in READ} == {kind.resource for kind in ACTED_ON} | set(ELSEWHERE)


@pytest.mark.parametrize("kind", ACTED_ON, ids=lambda kind: kind.resource)
def test_no_field_is_ignored_in_silence(kind: Kind) -> None:
    """A person would believe in a timeout that nobody keeps."""
    found = {path for path in silent(kind) if not any(kind.kind == one and path.endswith(end) for one, end in MEANINGLESS)}
    assert not found, "\n".join(sorted(found))
