"""MeshConfig, RateLimit and Rollout: whole ones are taken, and each mistake is found at its field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mistakes import changed, mistakes


def document(kind: str, spec: dict[str, Any], name: str = "one") -> dict[str, Any]:
    metadata = {"name": name} if kind == "MeshConfig" else {"name": name, "namespace": "a"}
    return {"apiVersion": "tulle.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


MESH = document(
    "MeshConfig",
    {
        "trustDomainAliases": ["old.example.com"],
        "rootNamespace": "tulle-system",
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "defaultConfig": {"concurrency": 2, "drainDuration": "30s"},
        "extensionProviders": [
            {"name": "authz", "envoyExtAuthzHttp": {"service": "ext-authz.foo.svc.cluster.local", "port": 8000}},
            {"name": "otel", "opentelemetry": {"service": "collector.observe.svc.cluster.local", "port": 4317}},
        ],
    },
    "mesh",
)
LIMIT = document(
    "RateLimit",
    {
        "targetRefs": [{"kind": "Service", "name": "reviews", "sectionName": "http"}],
        "rules": [
            {
                "name": "clients",
                "match": [
                    {
                        "methods": ["GET"],
                        "path": {"value": "/reviews"},
                        "headers": [{"name": "X-Plan", "value": "free"}],
                        "sources": [{"namespace": "shop", "service": "web"}],
                        "claims": [{"name": "iss", "values": ["https://example.com"]}],
                    }
                ],
                "key": {"type": "Header", "header": "X-Client"},
                "limit": 100,
                "window": "1m",
                "burst": 20,
                "scope": "global",
                "precision": "exact",
                "onFailure": "deny",
                "overrides": [{"values": ["gold"], "limit": 1000}],
                "refusal": {"statusCode": 429, "headers": True, "body": "slower"},
                "shadow": True,
            },
            {"unit": "Connections", "limit": 10, "window": "1m", "burst": 5, "scope": "global"},
            {"unit": "ConcurrentConnections", "limit": 10},
            {"unit": "Bytes", "limit": 10000},
        ],
    },
)
ROLLOUT = document(
    "Rollout",
    {
        "targetRef": {"name": "reviews"},
        "stable": {"version": "v2"},
        "candidate": {"version": "v3"},
        "routeRef": {"group": "networking.istio.io", "kind": "VirtualService", "name": "reviews"},
        "analysis": {
            "interval": "10s",
            "threshold": 3,
            "stepWeight": 10,
            "maxWeight": 50,
            "mirror": True,
            "metrics": [
                {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                {"name": "request-duration", "compare": {"minRequests": 100, "tolerance": 10}},
                {"name": "errors", "query": "sum(rate(errors[1m]))", "thresholdRange": {"max": 1.5}},
            ],
            "webhooks": [{"name": "load", "type": "load-test", "url": "http://load.example.com/run", "timeout": "5s"}],
        },
        "alerts": [{"name": "team", "urlRef": {"name": "slack", "key": "url"}}],
    },
)
RULE = "spec.rules[0]"
HEADER = f"{RULE}.match[0].headers[0]"
ANALYSIS = "spec.analysis"
PROVIDER = "spec.extensionProviders"
METRIC = f"{ANALYSIS}.metrics[0]"


@pytest.mark.parametrize(
    "body",
    [
        MESH,
        changed(MESH, "spec", ...),
        LIMIT,
        changed(changed(LIMIT, "spec.targetRefs", ...), "spec.selector", {"matchLabels": {"app": "web"}}),
        document("RateLimit", {"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [{"limit": 5}]}),
        ROLLOUT,
        changed(ROLLOUT, ANALYSIS, {"stepWeights": [1, 2, 10, 80]}),
        changed(changed(ROLLOUT, "spec.strategy", "BlueGreen"), ANALYSIS, {"iterations": 10}),
        changed(
            changed(ROLLOUT, "spec.strategy", "ABTest"),
            ANALYSIS,
            {"iterations": 10, "match": [{"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}}]},
        ),
        changed(changed(ROLLOUT, "spec.stable", {"service": "reviews-2"}), "spec.candidate", {"service": "reviews-3"}),
    ],
)
def test_accepted(body: dict[str, Any]) -> None:
    """A whole object would be refused."""
    assert mistakes(body) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (changed(MESH, "metadata.name", "other"), "metadata.name"),
        (changed(MESH, "spec.trustDomainAliases", ["a.b", "a.b"]), "spec.trustDomainAliases[1]"),
        (changed(MESH, "spec.outboundTrafficPolicy.mode", "NONE"), "spec.outboundTrafficPolicy.mode"),
        (changed(MESH, "spec.defaultConfig.drainDuration", "2h"), "spec.defaultConfig.drainDuration"),
        (changed(MESH, "spec.defaultConfig.drainDuration", "-1s"), "spec.defaultConfig.drainDuration"),
        (changed(MESH, "spec.defaultConfig.concurrency", -1), "spec.defaultConfig.concurrency"),
        (changed(MESH, "spec.extensionProviders[1].name", "authz"), "spec.extensionProviders[1].name"),
        (changed(MESH, "spec.extensionProviders[0].prometheus", {}), "spec.extensionProviders[0]"),
        (changed(MESH, f"{PROVIDER}[0].envoyExtAuthzHttp.port", 0), f"{PROVIDER}[0].envoyExtAuthzHttp.port"),
        (changed(MESH, f"{PROVIDER}[1].opentelemetry.service", "*"), f"{PROVIDER}[1].opentelemetry.service"),
        (changed(LIMIT, f"{RULE}.limit", 0), f"{RULE}.limit"),
        (changed(LIMIT, f"{RULE}.limit", -5), f"{RULE}.limit"),
        (changed(LIMIT, f"{RULE}.limit", 2**32), f"{RULE}.limit"),
        (changed(LIMIT, f"{RULE}.burst", 2**32 - 1), f"{RULE}.burst"),
        (changed(LIMIT, f"{RULE}.window", "0s"), f"{RULE}.window"),
        (changed(LIMIT, f"{RULE}.window", "25h"), f"{RULE}.window"),
        (changed(LIMIT, f"{RULE}.key.header", ...), f"{RULE}.key.header"),
        (changed(LIMIT, f"{RULE}.key.type", "Identity"), f"{RULE}.key.header"),
        (changed(LIMIT, f"{RULE}.key", ...), f"{RULE}.overrides"),
        (changed(LIMIT, f"{RULE}.overrides[0].values", ["a", "a"]), f"{RULE}.overrides[0].values[1]"),
        (changed(LIMIT, f"{RULE}.scope", "local"), f"{RULE}.precision"),
        (changed(LIMIT, f"{RULE}.precision", "shares"), f"{RULE}.onFailure"),
        (changed(LIMIT, f"{RULE}.match[0].path.value", "reviews"), f"{RULE}.match[0].path.value"),
        (changed(LIMIT, HEADER, {"type": "RegularExpression", "name": "a", "value": "("}), f"{HEADER}.value"),
        (changed(LIMIT, f"{RULE}.match[0].sources", [{}]), f"{RULE}.match[0].sources[0]"),
        (changed(LIMIT, f"{RULE}.unit", "Bytes"), f"{RULE}.match"),
        (changed(LIMIT, f"{RULE}.unit", "Bytes"), f"{RULE}.key"),
        (changed(LIMIT, f"{RULE}.unit", "Bytes"), f"{RULE}.shadow"),
        (changed(LIMIT, f"{RULE}.unit", "Connections"), f"{RULE}.precision"),
        (changed(LIMIT, "spec.rules[2].window", "1m"), "spec.rules[2].window"),
        (changed(LIMIT, "spec.rules[2].burst", 1), "spec.rules[2].burst"),
        (changed(LIMIT, "spec.rules[3].limit", 1000), "spec.rules[3].limit"),
        (changed(LIMIT, f"{RULE}.unit", "Bytes"), f"{RULE}.refusal"),
        (changed(LIMIT, f"{RULE}.refusal.statusCode", 499), f"{RULE}.refusal.statusCode"),
        (changed(LIMIT, f"{RULE}.refusal.statusCode", 200), f"{RULE}.refusal.statusCode"),
        (changed(LIMIT, f"{RULE}.refusal.body", "slower\n"), f"{RULE}.refusal.body"),
        (changed(LIMIT, f"{RULE}.refusal.contentType", "a\n"), f"{RULE}.refusal.contentType"),
        (changed(LIMIT, "spec.rules[0].name", "1"), "spec.rules[0].name"),
        (changed(LIMIT, "spec.rules", []), "spec.rules"),
        (changed(LIMIT, "spec.rules[1].name", "clients"), "spec.rules[1].name"),
        (changed(LIMIT, "spec.targetRefs", ...), "spec"),
        (changed(LIMIT, "spec.selector", {"matchLabels": {"a": "b"}}), "spec"),
        (changed(LIMIT, "spec.targetRefs[0].kind", "Pod"), "spec.targetRefs[0].kind"),
        (changed(ROLLOUT, "spec.candidate.version", "v2"), "spec.candidate"),
        (changed(ROLLOUT, "spec.candidate", {"service": "reviews-3"}), "spec.candidate"),
        (changed(ROLLOUT, "spec.routeRef.kind", "TCPRoute"), "spec.routeRef.kind"),
        (changed(ROLLOUT, "spec.targetRef.kind", "Deployment"), "spec.targetRef.kind"),
        (changed(ROLLOUT, f"{ANALYSIS}.stepWeight", ...), "spec.analysis"),
        (changed(ROLLOUT, f"{ANALYSIS}.stepWeight", 0), f"{ANALYSIS}.stepWeight"),
        (changed(ROLLOUT, f"{ANALYSIS}.maxWeight", 101), f"{ANALYSIS}.maxWeight"),
        (changed(ROLLOUT, f"{ANALYSIS}.stepWeights", [10, 20]), f"{ANALYSIS}.stepWeight"),
        (changed(ROLLOUT, ANALYSIS, {"stepWeights": [10, 10]}), f"{ANALYSIS}.stepWeights[1]"),
        (changed(ROLLOUT, f"{ANALYSIS}.iterations", 5), f"{ANALYSIS}.iterations"),
        (changed(ROLLOUT, f"{ANALYSIS}.match", [{}]), f"{ANALYSIS}.match"),
        (changed(ROLLOUT, "spec.strategy", "BlueGreen"), f"{ANALYSIS}.iterations"),
        (changed(ROLLOUT, "spec.strategy", "ABTest"), f"{ANALYSIS}.match"),
        (changed(ROLLOUT, f"{METRIC}.name", "something"), f"{METRIC}.query"),
        (changed(ROLLOUT, f"{METRIC}.query", "up"), f"{METRIC}.query"),
        (changed(ROLLOUT, f"{METRIC}.thresholdRange", {}), f"{METRIC}.thresholdRange"),
        (changed(ROLLOUT, f"{METRIC}.thresholdRange", {"min": 2, "max": 1}), f"{METRIC}.thresholdRange.min"),
        (changed(ROLLOUT, f"{METRIC}.thresholdRange", ...), METRIC),
        (changed(ROLLOUT, f"{ANALYSIS}.metrics[1].name", "request-success-rate"), f"{ANALYSIS}.metrics[1].name"),
        (changed(ROLLOUT, f"{ANALYSIS}.webhooks[0].url", "ftp://x"), f"{ANALYSIS}.webhooks[0].url"),
        (changed(ROLLOUT, f"{ANALYSIS}.webhooks[0].timeout", "1h"), f"{ANALYSIS}.webhooks[0].timeout"),
        (changed(ROLLOUT, "spec.alerts[0].url", "https://x"), "spec.alerts[0]"),
    ],
)  # fmt: skip
def test_refused(body: dict[str, Any], where: str) -> None:
    """A limit or a rollout would do something else than its words say, or nothing."""
    assert where in mistakes(body)
