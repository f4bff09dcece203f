"""What tests/property/test_silence.py looks at: right objects of each kind in many forms, and what their problems speak of."""

from __future__ import annotations

from typing import Any

from tests.conformance.corpora.test_cel import FILTERS as GRPC_FILTERS
from tests.conformance.corpora.test_cel import HTTP_FILTERS

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
# Those that are there to be asked, once over each protocol.
AUTHORIZERS: list[dict[str, Any]] = [
    {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": BACKEND, "http": {"path": "/a"}}},
    {"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": {"name": "gate", "port": 9000}, "grpc": {}}},
]
# A mesh in which the fields of each kind have something to act on; each kind's object is changed in turn.
KEYS = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
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
    "Telemetry": {
        "apiVersion": "telemetry.istio.io/v1",
        "spec": {
            "selector": {"matchLabels": {"app": "reviews"}},
            "metrics": [{"overrides": [{"tagOverrides": {"host": {"operation": "UPSERT", "value": "request.host"}}}]}],
            "accessLogging": [{"providers": [{"name": "envoy"}]}],
            "tracing": [{"randomSamplingPercentage": 1}],
        },
    },
    "RateLimit": {
        "apiVersion": "tulle.dev/v1alpha1",
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "reviews"}],
            "rules": [{"limit": 10, "key": {"type": "Header", "header": "x-a"}, "overrides": [{"values": ["a"], "limit": 20}]}],
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
    "AuthorizationPolicy": {
        "apiVersion": "security.istio.io/v1",
        "spec": {
            "selector": {"matchLabels": {"app": "reviews"}},
            "rules": [
                {
                    "from": [{"source": {"principals": ["cluster.local/ns/default/sa/a"]}}],
                    "to": [{"operation": {"methods": ["GET"]}}],
                    "when": [{"key": "request.headers[a]", "values": ["b"]}],
                }
            ],
        },
    },
    "RequestAuthentication": {
        "apiVersion": "security.istio.io/v1",
        "spec": {
            "selector": {"matchLabels": {"app": "reviews"}},
            "jwtRules": [{"issuer": "a", "jwks": KEYS}],
        },
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
    "UDPRoute": {
        "apiVersion": GATEWAY_API,
        "spec": {
            "parentRefs": [{"name": "datagrams", "namespace": "tulle-system"}],
            "rules": [{"backendRefs": [{"name": "dns-reviews", "port": 53}, {"name": "dns-ratings", "port": 53}]}],
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
ASKED: dict[str, Any] = {"statusOnError": "503", "includeRequestBodyInCheck": {"maxRequestBytes": 9}}
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
    "Sidecar": [
        {"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "ratings", "port": {"number": 9080}}}},
        {"ingress": [{"port": {"number": 9080, "protocol": "HTTP2", "name": "http2"}}]},
        {"inboundConnectionPool": {"tcp": {"connectTimeout": "3s"}}},
        {"ingress": [{"port": {"number": 9080}, "connectionPool": {"tcp": {"connectTimeout": "3s"}}}]},
        *(
            {"ingress": [{"port": {"number": 9443, "protocol": "HTTPS"}, "tls": tls}]}
            for tls in (
                {"mode": "SIMPLE", "credentialName": "a"},
                {"mode": "SIMPLE", "credentialNames": ["a"]},
                {"mode": "MUTUAL", "credentialName": "a"},
                {"mode": "MUTUAL", **FILES},
                {"mode": "SIMPLE", "tlsCertificates": [{"serverCertificate": "/a", "privateKey": "/b"}]},
                {"mode": "MUTUAL", "tlsCertificates": [FILES]},
            )
        ),
        {"egress": [{"port": {"number": 9080, "protocol": "HTTP"}, "captureMode": "NONE", "hosts": ["*/*"]}]},
        {"egress": [{"bind": "127.0.0.3", "captureMode": "NONE", "hosts": ["*/*"]}]},
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
            {"loadBalancer": {"zoneAwareLbSetting": {"failover": [{"from": "a", "to": "b"}]}}},
            {"outlierDetection": {"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 3}},
            {"tls": {"mode": "MUTUAL", "credentialName": "a"}},
            {"tunnel": {"targetHost": "a.example", "targetPort": 443}},
        )
        for of_port in ({"portLevelSettings": [{"port": {"number": 9080}, **policy}]},)
        for spec in (
            {"host": "reviews", "trafficPolicy": policy},
            {"host": "db", "trafficPolicy": policy},
            {"host": "db", "subsets": [{"name": "v1", "labels": {"app": "db"}, "trafficPolicy": policy}]},
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
    "RateLimit": [
        {"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [{"limit": 10, **rule}]}
        for rule in (
            {"match": [{"methods": ["GET"], "path": {"value": "/a"}}], "scope": "global"},
            {"match": [{"headers": [{"name": "x-a", "value": "a"}], "sources": [{"service": "reviews"}]}]},
            {"match": [{"claims": [{"name": "iss", "values": ["a"]}]}], "key": {"type": "Claim", "claim": "sub"}},
            {"scope": "global", "precision": "exact", "onFailure": "deny", "key": {"type": "Identity"}},
        )
    ]
    + [{"selector": {"matchLabels": {"app": "reviews"}}, "rules": [{"limit": 10}]}]
    + [
        {"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [rule]}
        for rule in (
            {"unit": "Connections", "limit": 9, "window": "1m", "burst": 3},
            {"unit": "ConcurrentConnections", "limit": 9, "scope": "global"},
            {"unit": "Bytes", "limit": 90_000},
        )
    ],
    "MeshConfig": [
        {"extensionProviders": [{"name": "a", kind: {"service": "gate.default", "port": 9000, **more}}]}
        for kind, more in (
            ("envoyExtAuthzGrpc", ASKED),
            ("envoyExtAuthzHttp", {**ASKED, "pathPrefix": "/a"}),
            ("envoyOtelAls", {"logFormat": {"text": "%PROTOCOL%"}}),
            ("envoyOtelAls", {"logFormat": {"labels": {"a": "%PROTOCOL%"}}}),
            ("opentelemetry", {}),
        )
    ]
    + [
        {"extensionProviders": [{"name": "a", "envoyFileAccessLog": {"path": "a.log", "logFormat": said}}]}
        for said in ({"text": "%PROTOCOL%"}, {"labels": {"a": "%PROTOCOL%"}})
    ]
    + [{"defaultProviders": {"accessLogging": ["envoy"]}}]
    + [
        {
            "extensionProviders": [{"name": "a", "opentelemetry": {"service": "gate.default", "port": 9000}}],
            "defaultProviders": {"tracing": ["a"]},
        }
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
    "AuthorizationPolicy": [
        {"action": "CUSTOM", "provider": {"name": "a"}, "rules": [{}]},
        {"targetRef": {"group": "", "kind": "Service", "name": "reviews"}, "rules": [{}]},
        {"targetRefs": [{"group": "", "kind": "Service", "name": "reviews"}], "rules": [{}]},
        {"rules": [{"from": [{"source": {"serviceAccounts": ["a"]}}]}]},
        {"rules": [{"to": [{"operation": {"ports": ["9080"], "methods": ["GET"]}}]}]},
        {"rules": [{"to": [{"operation": {"notPorts": ["9080"], "methods": ["GET"]}}]}]},
    ],
    "RequestAuthentication": [
        {"jwtRules": [{"issuer": "a", "jwks": KEYS, "presence": "REQUIRED"}]},
        {"targetRef": {"group": "", "kind": "Service", "name": "reviews"}, "jwtRules": [{"issuer": "a"}]},
        {"targetRefs": [{"group": "", "kind": "Service", "name": "reviews"}], "jwtRules": [{"issuer": "a"}]},
        {"jwtRules": [{"issuer": "a", "jwksUri": "https://a.b/c"}]},
    ],
    "Telemetry": [
        {target: one, "metrics": [{"overrides": [{"disabled": True}]}]}
        for target, one in (
            ("targetRef", {"group": "", "kind": "Service", "name": "reviews"}),
            ("targetRefs", [{"group": "", "kind": "Service", "name": "reviews"}]),
        )
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
        for one in [*(one for one in HTTP_FILTERS if one["type"] != "ExternalAuth"), *AUTHORIZERS, *MIRRORS]
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
