"""Services outside the mesh, and workloads that are written down: real servers, seen through entries of each resolution."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mesh import free_port
from tests.support.world import ORIGINATION, World, entry, until_alive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a resolver of the test's own, at port 53, takes root")


def test_static(world: World) -> None:
    """Endpoints that are written down: a host that no DNS knows is called, by HTTP and by TCP, at ports of its own."""
    ports = "[{number: 80, name: http, protocol: HTTP}, {number: 7, name: echo, protocol: TCP}]"
    endpoint = f"{{address: {world.host}, ports: {{http: {world.servers.http}, echo: {world.servers.tcp}}}}}"
    assert "Could not resolve" in world.curl("http://static.example.com/").err
    with world.applied(
        entry("static", f"{{hosts: [static.example.com], ports: {ports}, resolution: STATIC, endpoints: [{endpoint}]}}")
    ):
        assert world.told("http://static.example.com/a")["host"] == "static.example.com"
        assert world.speak("static.example.com", 7) == "outside hello"
    assert "Could not resolve" in world.curl("http://static.example.com/").err


SLICE = """
apiVersion: v1
kind: Service
metadata: {{name: by-hand}}
spec: {{ports: [{{name: http, port: 80}}, {{name: tcp-echo, port: 7}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: by-hand-1, labels: {{kubernetes.io/service-name: by-hand}}}}
addressType: IPv4
ports: [{{name: http, port: {http}}}, {{name: tcp-echo, port: {tcp}}}]
endpoints:
- {{addresses: [{host}]}}
- {{addresses: [192.0.2.1], conditions: {{ready: false}}}}
"""


def test_endpoints_by_hand(world: World) -> None:
    """Broken: a Service whose endpoints somebody writes himself would answer nobody, or send calls to one that is not ready."""
    with world.applied(SLICE.format(http=world.servers.http, tcp=world.servers.tcp, host=world.host)):
        assert {world.told("http://by-hand/a")["host"] for _ in range(4)} == {"by-hand"}
        assert world.speak("by-hand", 7) == "outside hello"


def test_dns(world: World) -> None:
    """The proxy asks the world's DNS for a host of which the application gets a virtual address; routes hold for it."""
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.http}}}"
    fault = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dns}
spec:
  hosts: [dns.example.com]
  http:
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: dns.example.com}}]
  - route: [{destination: {host: dns.example.com}}]
"""
    with world.applied(entry("dns", f"{{hosts: [dns.example.com], ports: [{port}], resolution: DNS}}"), fault):
        assert world.told("http://dns.example.com/fine")["path"] == "/fine"
        assert "HTTP/1.1 418" in world.curl("http://dns.example.com/broken").out
        assert world.mesh.inside("getent", "hosts", "dns.example.com").out.startswith("240.240.")


def test_dns_round_robin_with_tls(world: World) -> None:
    """An application's own TLS to a host outside goes through whole: its certificate is checked by the application."""
    port = f"{{number: 443, name: https, protocol: HTTPS, targetPort: {world.servers.https}}}"
    spec = (
        f"{{hosts: [big.example.com], ports: [{port}], resolution: DNS_ROUND_ROBIN, endpoints: [{{address: edge.example.com}}]}}"
    )
    with world.applied(entry("big", spec)):
        told = world.told("--cacert", str(world.roots), "https://big.example.com/", through=False)
        assert told["tls"]


def test_wildcards(world: World) -> None:
    """NONE: to wherever the application found the host, told by its name, in HTTP's Host and in TLS."""
    http, https = world.servers.http, world.servers.https
    ports = f"{{number: {http}, name: http, protocol: HTTP}}, {{number: {https}, name: tls, protocol: TLS}}"
    with world.applied(entry("wild", f'{{hosts: ["*.wild.example.com"], ports: [{ports}], resolution: NONE}}')):
        assert world.told(f"http://a.wild.example.com:{http}/")["host"].startswith("a.wild.example.com")
        url = f"https://b.wild.example.com:{https}/"
        assert world.told("--cacert", str(world.roots), url, through=False)["tls"]


def test_wildcards_by_name(world: World) -> None:
    """DYNAMIC_DNS: to where DNS finds the host that is named, at the entry's port, whatever address and port the caller says."""
    http, https = world.servers.http, world.servers.https
    ports = f"{{number: 80, name: http, protocol: HTTP, targetPort: {http}}}"
    ports += f", {{number: 443, name: tls, protocol: TLS, targetPort: {https}}}"
    spec = f'{{hosts: ["*.wild.example.com"], ports: [{ports}], resolution: DYNAMIC_DNS}}'
    with world.applied(entry("wild", spec)):
        assert world.told("http://a.wild.example.com/")["host"] == "a.wild.example.com"
        for named in ("b.wild.example.com", f"b.wild.example.com:{world.servers.tcp}"):
            assert world.told("-H", f"Host: {named}", "http://192.0.2.1/")["host"] == named
        assert "HTTP/1.1 503" in world.curl("-H", "Host: nowhere.unknown.wild.example.com", "http://192.0.2.1/").out
        at = ("--cacert", str(world.roots), "--connect-to", "::192.0.2.1:443")
        assert world.told(*at, "https://c.wild.example.com/", through=False)["tls"]


def test_an_address_of_its_own(world: World) -> None:
    """A virtual address that the ServiceEntry names leads to its endpoints."""
    spec = (
        "hosts: [db.example.com], addresses: [198.51.100.7], ports: [{number: 5432, name: db, protocol: TCP}], resolution: STATIC"
    )
    endpoint = f"{{address: {world.host}, ports: {{db: {world.servers.tcp}}}}}"
    with world.applied(entry("db", f"{{{spec}, endpoints: [{endpoint}]}}")):
        assert world.speak("198.51.100.7", 5432) == "outside hello"
        assert world.speak("db.example.com", 5432) == "outside hello"


def test_only_those_who_may_see_it(world: World) -> None:
    """exportTo: for other namespaces the host is as it was, and a Service is not there: no name, no cluster."""
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.http}}}"
    spec = f'{{hosts: [dns.example.com], exportTo: ["."], ports: [{port}], resolution: DNS}}'
    hidden = """
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: other, annotations: {networking.istio.io/exportTo: "%s"}}
spec: {selector: {app: nobody}, ports: [{port: 80, name: http}]}
"""
    space = "{apiVersion: v1, kind: Namespace, metadata: {name: other}}"
    with world.applied(space, entry("private", spec, "other"), hidden % "."):
        assert world.mesh.inside("getent", "hosts", "dns.example.com").out.split()[0] == world.host
        assert world.mesh.inside("getent", "hosts", "hidden.other", check=False).code != 0
        assert "hidden.other" not in world.mesh.tulle("proxy", "config", "cluster", "curl").out
        world.mesh.tulle("apply", "-f", "-", stdin=hidden % "., default")
        world.mesh.synced()
        assert world.mesh.inside("getent", "hosts", "hidden.other").code == 0
        assert "hidden.other" in world.mesh.tulle("proxy", "config", "cluster", "curl").out


@pytest.mark.parametrize(("names", "status"), [("", 200), (', subjectAltNames: ["other.example.net"]', 503)])
def test_tls_origination(world: World, names: str, status: int) -> None:
    """The application speaks HTTP, the proxy TLS to the host, whose certificate must be for it, or for whom the entry names."""
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.https}}}"
    spec = f"{{hosts: [dns.example.com], ports: [{port}], resolution: DNS{names}}}"
    with world.applied(entry("dns", spec), ORIGINATION % world.roots):
        ran = world.curl("http://dns.example.com/")
        assert f"HTTP/1.1 {status}" in ran.out
        assert status != 200 or '"tls": true' in ran.out


GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms}
spec:
  metadata: {labels: {app: vm}}
  template: {serviceAccount: vm, locality: eu/north/a, weight: 3, labels: {version: v9}}
  probe: {httpGet: {path: /healthz, port: 8000}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: machines}
spec: {selector: {app: vm}, ports: [{port: 8000, name: http}]}
"""


SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        well = self.path != "/healthz" or os.path.exists(sys.argv[1])
        self.send_response(200 if well else 503); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_workload_of_a_group(world: World, tmp_path: Path) -> None:
    """It has the group's labels, identity and place, and gets traffic while the group's probe is answered well."""
    mesh = world.mesh
    well, server = tmp_path / "well", tmp_path / "server.py"
    server.write_text(SERVER)

    def ready() -> str:
        form = "jsonpath={.metadata.annotations.tulle\\.dev/ready}"
        return mesh.kubectl("get", "workloadentry", "vm-1", "-o", form, check=False).out

    with world.applied(GROUP):
        argv = [*mesh.command, "run", "--group", "vms", "--name", "vm-1", "--port", "8000:http", "--"]
        child = subprocess.Popen([*argv, sys.executable, str(server), str(well)], env=mesh.env, stderr=subprocess.PIPE, text=True)
        try:
            until_alive(lambda: ready() == "false", child)
            assert "HTTP/1.1 503" in world.curl("http://machines:8000/").out
            well.touch()
            until_alive(lambda: ready() == "true", child)
            until_alive(lambda: "HTTP/1.1 200" in world.curl("http://machines:8000/").out, child)
            entry = json.loads(mesh.kubectl("get", "workloadentry", "vm-1", "-o", "json").out)["spec"]
            assert (entry["serviceAccount"], entry["locality"], entry["weight"]) == ("vm", "eu/north/a", 3)
            assert (entry["labels"]["app"], entry["labels"]["version"]) == ("vm", "v9")
            well.unlink()
            until_alive(lambda: ready() == "false", child)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(30)


BETWEEN = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: cross-network}
spec:
  selector: {istio: eastwestgateway}
  servers: [{port: {number: 15443, name: tls, protocol: TLS}, hosts: ["*.local"], tls: {mode: AUTO_PASSTHROUGH}}]
"""


def test_two_networks(world: World) -> None:
    """Broken: a workload of another network would be out of reach, or called past that network's gateway."""
    mesh, bound = world.mesh, free_port()
    socket = ("--socket", str(mesh.home / "run" / "demo" / "node.sock"))
    two = ("--label", "topology.istio.io/network=two")
    one = ("--label", "topology.istio.io/network=one")
    server = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000, bind='127.0.0.1')"
    commands = (
        ("gateway", "--name", "eastwest", "--label", "istio=eastwestgateway", *two, "--port", f"15443:tls:{bound}", *socket),
        ("run", "--service", "far", "--port", "8000:http", *two, "--", sys.executable, "-c", server),
        ("run", "--service", "near", *one, "--", "sleep", "infinity"),
    )
    running = [subprocess.Popen([*mesh.command, *argv], env=mesh.env, stderr=subprocess.PIPE, text=True) for argv in commands]
    answered = ("-o", "/dev/null", "-w", "%{http_code}", "http://far:8000/")

    def seen(workload: str) -> str:
        ran = mesh.inside("curl", "-s", "-m", "5", *answered, workload=workload, check=False)
        return ran.out

    try:
        until_alive(lambda: seen("near") == "200", running[2])
        with world.applied(BETWEEN):
            gateway = mesh.kubectl("get", "workloadentry", "eastwest", "-o", "jsonpath={.spec.address}").out
            endpoints = mesh.tulle("proxy", "config", "endpoint", "near", "--name", "8000").out
            assert f"{gateway}:{bound}" in endpoints
            assert [seen("near") for _ in range(5)] == ["200"] * 5
            direct = mesh.tulle("proxy", "config", "endpoint", "curl", "--name", "8000").out
            assert f"{gateway}:{bound}" not in direct, "who says no network reaches all"
            assert seen("curl") == "200"
            running[0].send_signal(signal.SIGTERM)
            running[0].wait(60)
            mesh.synced()
            until_alive(lambda: seen("near") == "200", running[2])
    finally:
        for child in reversed(running):
            child.send_signal(signal.SIGTERM)
            child.wait(60)
