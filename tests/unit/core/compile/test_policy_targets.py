"""What policies refer to: which guards of a workload have them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.guarded import policy
from tests.unit.core.compile.mesh import changes, entry, obj, service
from tulle.core.compile.guards import guarding_policies, port_policies
from tulle.core.pipeline import Pipeline

API, ISTIO = "gateway.networking.k8s.io", "networking.istio.io"


def gateway(name: str, port: int, class_name: str = "tulle") -> Any:
    spec = {"gatewayClassName": class_name, "listeners": [{"name": "a", "port": port, "protocol": "HTTP"}]}
    return obj(
        {"apiVersion": f"{API}/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": "tulle-system"}, "spec": spec}
    )


def database() -> Any:
    spec = {
        "hosts": ["db.example.com"],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 3306, "name": "mysql", "protocol": "TCP"}],
        "workloadSelector": {"labels": {"app": "web"}},
    }
    return obj({"apiVersion": f"{ISTIO}/v1", "kind": "ServiceEntry", "metadata": {"name": "db"}, "spec": spec})


@pytest.mark.parametrize(
    ("group", "kind", "name", "space", "workload", "guarded", "problems"),
    [
        (API, "Gateway", "one", "tulle-system", "gate", {"81"}, 0),
        (API, "Gateway", "three", "tulle-system", "gate", set(), 0),
        (API, "GatewayClass", "tulle", "tulle-system", "gate", {"81", "82"}, 0),
        (API, "GatewayClass", "other", "tulle-system", "gate", set(), 0),
        (API, "GatewayClass", "tulle", "default", "gate", set(), 1),
        ("", "Service", "web", "default", "web", {"9080"}, 0),
        ("", "Service", "web", "tulle-system", "web", set(), 0),
        (ISTIO, "ServiceEntry", "db", "default", "web", {"3306"}, 0),
        (API, "HTTPRoute", "one", "default", "gate", set(), 1),
    ],
)
def test_what_is_named(group: str, kind: str, name: str, space: str, workload: str, guarded: set[str], problems: int) -> None:
    """Broken: a policy would guard what it does not name, or not what it names, and not say so."""
    pipeline = Pipeline()
    target = {"group": group, "kind": kind, "name": name}
    objects = [
        *(gateway("one", 81), gateway("two", 82)),
        entry("gate", "10.0.0.9", {"istio": "ingressgateway"}, "tulle-system", "gate", capture="none"),
        entry("web", "10.0.0.1", {"app": "web"}),
        service("web"),
        database(),
        policy("refers", {"targetRefs": [target], "rules": [{}]}, space),
    ]
    pipeline.commit(changes(objects))
    key = ("tulle-system" if workload == "gate" else "default", workload)
    found = pipeline.flow.get(port_policies, key) or {}
    assert set(found) == guarded
    for one in guarded:
        assert [it.name for it in pipeline.flow.get(guarding_policies, (key, one)) or ()] == ["refers"]
    assert len([one for one in pipeline.problems() if one.reason == "NotHonoured"]) == problems
