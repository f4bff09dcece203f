"""Conditions end to end: a real control plane, a real gateway Envoy, the real kubectl that waits for what they say."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.mesh import Mesh, fetch, free_port

pytestmark = pytest.mark.e2e

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {selector: {app: details}, ports: [{name: http, port: 9080}]}
"""


def gateway(name: str, *listeners: str) -> str:
    """A Gateway with such listeners: `name port protocol`."""
    lines = []
    for one in listeners:
        listener, port, protocol = one.split()
        tls = ", tls: {mode: Terminate, certificateRefs: [{name: gone}]}" if protocol == "HTTPS" else ""
        lines.append(f"  - {{name: {listener}, port: {port}, protocol: {protocol}{tls}}}")
    head = f"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\n"
    return head + "spec:\n  gatewayClassName: tulle\n  listeners:\n" + "\n".join(lines) + "\n"


def route(name: str, parent: str, backend: str, namespace: str = "default") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{name: {parent}, namespace: default}}]
  hostnames: [{name}.example.com]
  rules:
  - backendRefs: [{{name: {backend}, port: 9080}}]
"""


@pytest.fixture
def gone(mesh: Mesh) -> Iterator[list[str]]:
    """What a test made and is to be deleted after it."""
    made: list[str] = []
    yield made
    for one in made:
        mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=one)


def apply(mesh: Mesh, gone: list[str], *documents: str) -> None:
    for one in documents:
        mesh.kubectl("apply", "-f", "-", stdin=one)
        gone.append(one)


def wait(mesh: Mesh, what: str, *, condition: str = "", path: str = "", namespace: str = "default") -> None:
    """`kubectl wait` until it is so."""
    what_for = f"condition={condition}" if condition else f"jsonpath={path}"
    mesh.kubectl("wait", f"--for={what_for}", what, "-n", namespace, "--timeout=60s")


def parent(kind: str) -> str:
    """A jsonpath to a condition of a route's parent."""
    return f'{{.status.parents[0].conditions[?(@.type=="{kind}")].'


def status(mesh: Mesh, what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.kubectl("get", what, "-o", "json").out).get("status", {})
    return found


def test_programmed_means_that_the_port_is_open(mesh: Mesh, gone: list[str]) -> None:
    """A script would send its first request after `kubectl wait`, and fail."""
    port = free_port()
    apply(mesh, gone, gateway("edge", f"http {port} HTTP"), route("edge", "edge", "details"))
    wait(mesh, "gateway.gateway.networking.k8s.io/edge", condition="Programmed")
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    wait(mesh, "httproute/edge", path=parent("Accepted") + "status}=True")
    wait(mesh, "gateway.gateway.networking.k8s.io/edge", path="{.status.listeners[0].attachedRoutes}=1")
    mesh.synced()
    reply = fetch(f"http://127.0.0.1:{port}/details/0", headers={"host": "edge.example.com"})[0]
    assert reply.status == 200
    found = status(mesh, "gateway.gateway.networking.k8s.io/edge")
    assert found["addresses"][0]["type"] == "IPAddress"
    columns = mesh.kubectl("get", "gtw", "edge").out.splitlines()
    assert columns[0].split()[3:5] == ["ACCEPTED", "PROGRAMMED"]
    assert columns[1].split()[3:5] == ["True", "True"]
    assert "True" in mesh.kubectl("get", "httproute", "edge").out.splitlines()[1].split()


def test_a_missing_backend_is_named_and_then_found(mesh: Mesh, gone: list[str]) -> None:
    """Whoever waits for a route to be whole would wait for ever, or not at all."""
    apply(mesh, gone, route("late", "demo", "late"))
    wait(mesh, "httproute/late", path=parent("ResolvedRefs") + "reason}=BackendNotFound")
    message = json.dumps(status(mesh, "httproute/late"))
    assert "no Service late in namespace default" in message
    before = json.loads(mesh.kubectl("get", "httproute/late", "-o", "json").out)["metadata"]["generation"]
    apply(mesh, gone, SERVICE)
    wait(mesh, "httproute/late", path=parent("ResolvedRefs") + "status}=True")
    after = json.loads(mesh.kubectl("get", "httproute/late", "-o", "json").out)
    assert after["metadata"]["generation"] == before == after["status"]["parents"][0]["conditions"][0]["observedGeneration"]


def test_listeners_in_conflict_open_no_port(mesh: Mesh, gone: list[str]) -> None:
    """One of two protocols would be served on a port, and which one nobody could tell."""
    port = free_port()
    apply(mesh, gone, gateway("clash", f"web {port} HTTP", f"tls {port} HTTPS"))
    what = "gateway.gateway.networking.k8s.io/clash"
    wait(mesh, what, path='{.status.listeners[0].conditions[?(@.type=="Conflicted")].reason}=ProtocolConflict')
    wait(mesh, what, path='{.status.conditions[?(@.type=="Accepted")].reason}=ListenersNotValid')
    mesh.synced()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    apply(mesh, gone, gateway("clash", f"web {port} HTTP"))
    wait(mesh, what, condition="Programmed")
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_a_route_of_a_namespace_that_is_not_let_in(mesh: Mesh, gone: list[str]) -> None:
    """A team would read that its route works while the gateway does not know it."""
    apply(mesh, gone, "apiVersion: v1\nkind: Namespace\nmetadata: {name: elsewhere}\n")
    apply(mesh, gone, route("stranger", "demo", "details", "elsewhere"))
    wait(mesh, "httproute/stranger", path=parent("Accepted") + "reason}=NotAllowedByListeners", namespace="elsewhere")


def test_a_port_that_envoy_cannot_open(mesh: Mesh, gone: list[str]) -> None:
    """What Envoy says against a configuration would be read in its log only."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        apply(mesh, gone, gateway("taken", f"http {port} HTTP"))
        what = "gateway.gateway.networking.k8s.io/taken"
        wait(mesh, what, path='{.status.conditions[?(@.type=="Programmed")].reason}=Invalid')
        (programmed,) = (one for one in status(mesh, what)["conditions"] if one["type"] == "Programmed")
        assert programmed["status"] == "False"
        assert "ddress already in use" in programmed["message"]
        wait(mesh, "gateway.gateway.networking.k8s.io/demo", condition="Programmed")
    refused = mesh.refused()
    assert refused
    assert all("ddress already in use" in line for line in refused), "nothing else was"
    free = free_port()
    apply(mesh, gone, gateway("taken", f"http {free} HTTP"))
    wait(mesh, what, condition="Programmed")


def test_istio_objects_are_reconciled(mesh: Mesh, gone: list[str]) -> None:
    """`kubectl wait` on a VirtualService would know nothing of the sidecars."""
    host = "hosts: [details], http: [{route: [{destination: {host: details}}]}]"
    apply(
        mesh,
        gone,
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: waited}}\nspec: {{{host}}}\n",
    )
    wait(mesh, "virtualservice/waited", condition="Reconciled")
    (reconciled,) = (one for one in status(mesh, "virtualservice/waited")["conditions"] if one["type"] == "Reconciled")
    done, all_ = reconciled["message"].split()[0].split("/")
    assert done == all_
    assert int(done) >= 7
    wait(mesh, "virtualservice/waited", condition="PassedAnalysis")
