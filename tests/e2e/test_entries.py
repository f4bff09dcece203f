"""Services outside the mesh: real servers on this machine, seen from a workload through ServiceEntries of each resolution."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mesh import Mesh, Ran, free_port
from tests.support.outside import Outside, outside, resolver
from tulle.client.node_api import Kind, NodeClient, Port, WorkloadSpec
from tulle.control.ca.authority import Authority

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a resolver of the test's own, at port 53, takes root")

RESOLVER = "127.83.0.53"
HOSTS = ("dns.example.com", "edge.example.com", "*.wild.example.com", "unknown.example.com")
THROUGH = "x-envoy-upstream-service-time"  # Envoy's, in answers that it routed


@dataclass
class World:
    """A mesh, and what there is outside of it."""

    mesh: Mesh
    servers: Outside
    host: str  # the servers' address, as workloads reach it
    roots: Path

    @contextmanager
    def applied(self, *documents: str) -> Iterator[None]:
        """These objects for a while."""
        text = "\n---\n".join(documents)
        self.mesh.kubectl("apply", "-f", "-", stdin=text)
        self.mesh.synced()
        try:
            yield
        finally:
            self.mesh.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)
            self.mesh.synced()

    def curl(self, *arguments: str, workload: str = "curl") -> Ran:
        """curl in a workload; headers and body on its output."""
        return self.mesh.inside("curl", "-sS", "-i", "-m", "5", *arguments, workload=workload, check=False)

    def told(self, *arguments: str, through: bool = True) -> dict[str, str]:
        """What a server outside was asked by curl, which the sidecar routed (as HTTP) or not."""
        ran = self.curl(*arguments)
        assert ran.code == 0, ran.text
        head, _, body = ran.out.replace("\r\n", "\n").partition("\n\n")
        assert head.startswith("HTTP/1.1 200"), ran.text
        assert (THROUGH in head) is through, ran.text
        found: dict[str, str] = json.loads(body)
        return found

    def speak(self, host: str, port: int) -> str:
        """The first words of a TCP server, and its echo of ours; what went wrong where there are none."""
        code = f"""
import socket
with socket.create_connection(("{host}", {port}), timeout=5) as one:
    first = one.recv(100)
    one.sendall(b"hello")
    print(first.decode().strip(), one.recv(100).decode() if first else "closed")
"""
        ran = self.mesh.inside("python3", "-c", code, check=False)
        return ran.out.strip() if ran.code == 0 else ran.err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A demo whose machine asks the test's own resolver."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o755)
    own = Authority.open(folder / "ca")
    issued = own.issue_server(["*.example.com", "*.wild.example.com"], 3600)
    mesh = Mesh(capture="netns")
    # Every user of the host may read it, as proxies' authorities must be.
    certificate, roots, resolv = folder / "server.pem", mesh.home / "roots.pem", folder / "resolv.conf"
    certificate.write_bytes(issued.key + issued.chain)
    roots.write_bytes(own.bundle)
    roots.chmod(0o644)
    resolv.write_text(f"nameserver {RESOLVER}\n")
    mesh.command = ["unshare", "-m", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh", *mesh.command]
    names: dict[str, str] = {}
    with outside(certificate) as servers, resolver(RESOLVER, names):
        try:
            mesh.up()
            host = mesh.inside("ip", "-4", "route", "show", "default").out.split()[2]
            names |= dict.fromkeys(HOSTS, host)
            yield World(mesh, servers, host, roots)
        finally:
            mesh.remove()


def entry(name: str, text: str, namespace: str = "default") -> str:
    """A ServiceEntry."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec: {text}
"""


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
    """exportTo: for other namespaces the host is as it was."""
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.http}}}"
    spec = f'{{hosts: [dns.example.com], exportTo: ["."], ports: [{port}], resolution: DNS}}'
    with world.applied("{apiVersion: v1, kind: Namespace, metadata: {name: other}}", entry("private", spec, "other")):
        assert world.mesh.inside("getent", "hosts", "dns.example.com").out.split()[0] == world.host


REGISTRY_ONLY = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""


def test_registry_only(world: World) -> None:
    """What the mesh does not know is not called: HTTP hears 502, other connections are closed; what it knows goes on."""
    http, https = world.servers.http, world.servers.https
    unknown = f"http://unknown.example.com:{http}/"
    # The same port for a host that is known, so that HTTP is looked into there.
    known = entry(
        "known", f"{{hosts: [dns.example.com], ports: [{{number: {http}, name: http, protocol: HTTP}}], resolution: DNS}}"
    )
    with world.applied(known):
        assert world.told(unknown)["host"].startswith("unknown.example.com")
        assert world.speak(world.host, world.servers.tcp) == "outside hello"
        with world.applied(REGISTRY_ONLY):
            assert "HTTP/1.1 502" in world.curl(unknown).out
            assert world.curl("-k", f"https://unknown.example.com:{https}/").code != 0
            assert world.speak(world.host, world.servers.tcp) in ("closed", "") or "outside" not in world.speak(
                world.host, world.servers.tcp
            )
            assert world.told(f"http://dns.example.com:{http}/")["host"].startswith("dns.example.com")
            assert "HTTP/1.1 200" in world.curl("http://reviews:9080/reviews/0").out
        assert world.told(unknown)["host"].startswith("unknown.example.com")


SIDECARS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: curl}
spec:
  workloadSelector: {labels: {app: curl}}
  egress: [{hosts: ["./reviews.default.svc.cluster.local", "./elsewhere.default.svc.cluster.local"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: details}
spec:
  workloadSelector: {labels: {app: details}}
  ingress: [{port: {number: 9191, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:9080"}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {selector: {app: details}, ports: [{port: 9191, name: web, appProtocol: http}]}
"""


def test_sidecars(world: World) -> None:
    """A workload calls only what its Sidecar names, and is called at the port that its Sidecar says; others are as they were."""
    assert "HTTP/1.1 200" in world.curl("http://ratings:9080/ratings/0").out
    with world.applied(SIDECARS):
        assert "HTTP/1.1 200" in world.curl("http://reviews:9080/reviews/0").out
        assert "HTTP/1.1 502" in world.curl("http://ratings:9080/ratings/0").out
        assert "HTTP/1.1 200" in world.curl("http://elsewhere:9191/details/0").out
    assert "HTTP/1.1 200" in world.curl("http://ratings:9080/ratings/0").out


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
            until(lambda: ready() == "false", child)
            assert "HTTP/1.1 503" in world.curl("http://machines:8000/").out
            well.touch()
            until(lambda: ready() == "true", child)
            until(lambda: "HTTP/1.1 200" in world.curl("http://machines:8000/").out, child)
            entry = json.loads(mesh.kubectl("get", "workloadentry", "vm-1", "-o", "json").out)["spec"]
            assert (entry["serviceAccount"], entry["locality"], entry["weight"]) == ("vm", "eu/north/a", 3)
            assert (entry["labels"]["app"], entry["labels"]["version"]) == ("vm", "v9")
            well.unlink()
            until(lambda: ready() == "false", child)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(30)


def until(holds: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait for it, while the process lives."""
    deadline = time.monotonic() + 30
    while not holds():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline, "it did not come"


ORIGINATION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dns}
spec:
  host: dns.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: %s, sni: dns.example.com}}
"""


@pytest.mark.parametrize(("names", "status"), [("", 200), (', subjectAltNames: ["other.example.net"]', 503)])
def test_tls_origination(world: World, names: str, status: int) -> None:
    """The application speaks HTTP, the proxy TLS to the host, whose certificate must be for it, or for whom the entry names."""
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.https}}}"
    spec = f"{{hosts: [dns.example.com], ports: [{port}], resolution: DNS{names}}}"
    with world.applied(entry("dns", spec), ORIGINATION % world.roots):
        ran = world.curl("http://dns.example.com/")
        assert f"HTTP/1.1 {status}" in ran.out
        assert status != 200 or '"tls": true' in ran.out


EGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [dns.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: through-egress}
spec:
  hosts: [dns.example.com]
  gateways: [egress, mesh]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: egressgateway.default.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: dns.example.com, port: {number: 80}}}]
---
apiVersion: v1
kind: Service
metadata: {name: egressgateway}
spec: {selector: {istio: egressgateway}, ports: [{name: http, port: 80, targetPort: %d}]}
"""


def test_an_egress_gateway(world: World) -> None:
    """As Istio's egress task has it: calls to a host outside leave by the gateway, and nothing else leaves."""
    mesh, bound = world.mesh, free_port()
    spec = WorkloadSpec(
        name="egress",
        service_account="egress",
        ports=(Port(bound, "http"),),
        labels={"istio": "egressgateway"},
        kind=Kind.GATEWAY,
    )

    async def ask(add: bool) -> None:
        async with NodeClient(mesh.home / "run" / "demo" / "node.sock") as node:
            await (node.add(spec) if add else node.remove(spec.id))

    own = mesh.kubectl("get", "workloadentry", "curl", "-o", "jsonpath={.spec.address}").out
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.http}}}"
    with world.applied(entry("dns", f"{{hosts: [dns.example.com], ports: [{port}], resolution: DNS}}"), REGISTRY_ONLY):
        assert world.told("http://dns.example.com/")["client"] == own
        with world.applied(EGRESS % bound):
            asyncio.run(ask(True))
            try:
                mesh.synced()
                told = world.told("http://dns.example.com/through")
                assert (told["path"], told["host"]) == ("/through", "dns.example.com")
                assert told["client"] != own, "the gateway called, not the sidecar"
                assert "HTTP/1.1 200" not in world.curl(f"http://unknown.example.com:{world.servers.http}/").out
            finally:
                asyncio.run(ask(False))
        assert world.told("http://dns.example.com/")["client"] == own
