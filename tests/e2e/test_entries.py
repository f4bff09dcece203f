"""Services outside the mesh: real servers on this machine, seen from a workload through ServiceEntries of each resolution."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import Ran
from tests.support.mesh import Mesh, free_port
from tests.support.outside import Outside, outside, resolver
from tests.support.waiting import until
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
    certificate: Path  # with its key

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
            yield World(mesh, servers, host, roots, certificate)
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


ALONE = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  egress: [{hosts: ["*/*.svc.cluster.local"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"""
NAMED = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: named}
spec:
  workloadSelector: {labels: {app: curl}}
  egress: [{hosts: ["*/*.svc.cluster.local", "*/dns.example.com"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"""


def test_nothing_leaves_a_namespace_but_what_is_named(world: World) -> None:
    """Broken: with the one object that shuts a namespace something would leave it all the same, or nothing work inside."""
    http, tcp = world.servers.http, world.servers.tcp
    ports = f"[{{number: {http}, name: http, protocol: HTTP}}, {{number: {tcp}, name: tcp, protocol: TCP}}]"
    known = entry("known", f"{{hosts: [dns.example.com], ports: {ports}, resolution: DNS}}")
    hosts = [f"http://{host}:{http}/" for host in ("dns.example.com", "unknown.example.com", world.host)]

    def leaves(workload: str) -> list[bool]:
        return ['"host"' in world.curl(url, workload=workload).out for url in hosts]

    def inside(workload: str) -> bool:
        return "HTTP/1.1 200" in world.curl("http://reviews:9080/reviews/0", workload=workload).out

    with world.applied(known):
        assert leaves("curl") == leaves("details-v1") == [True] * 3
        with world.applied(ALONE):
            assert leaves("curl") == leaves("details-v1") == [False] * 3
            assert inside("curl")
            assert inside("details-v1")
            assert "outside hello" not in (world.speak(world.host, tcp), world.speak("dns.example.com", tcp))
            with world.applied(NAMED):
                assert leaves("curl") == [True, False, False]
                assert world.speak("dns.example.com", tcp) == "outside hello"
                assert leaves("details-v1") == [False] * 3, "who is not named"
                assert inside("curl")


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
    """A workload calls, knows and is sent only what its Sidecar names, and is called where its Sidecar says; others as before."""
    ratings = world.mesh.inside("getent", "hosts", "ratings").out.split()[0]
    assert "HTTP/1.1 200" in world.curl("http://ratings:9080/ratings/0").out
    with world.applied(SIDECARS):
        assert "HTTP/1.1 200" in world.curl("http://reviews:9080/reviews/0").out
        assert "Could not resolve" in world.curl("http://ratings:9080/ratings/0").err
        at = ("--connect-to", f"::{ratings}:9080")
        assert "HTTP/1.1 502" in world.curl(*at, "http://ratings:9080/ratings/0").out
        assert "HTTP/1.1 200" in world.curl("http://elsewhere:9191/details/0").out
        known = world.mesh.tulle("proxy", "config", "cluster", "curl").out
        assert "reviews.default" in known
        assert "ratings.default" not in known
        assert world.mesh.inside("getent", "hosts", "ratings", workload="reviews-v2").out.split()[0] == ratings
    assert "HTTP/1.1 200" in world.curl("http://ratings:9080/ratings/0").out


LISTENERS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: curl}}
spec:
  workloadSelector: {{labels: {{app: curl}}}}
  egress:
  - {{port: {{number: 15100, protocol: HTTP}}, captureMode: NONE, hosts: ["./reviews.default.svc.cluster.local"]}}
  - {{bind: 127.0.0.1, port: {{number: 3307, protocol: MYSQL}}, captureMode: NONE, hosts: ["./db.example.com"]}}
  - {{bind: 198.51.100.9, port: {{number: 9080, protocol: HTTP}}, hosts: ["./ratings.default.svc.cluster.local"]}}
  - {{bind: "unix://{folder}/egress.sock", port: {{number: 0, protocol: HTTP}}, hosts: ["./*"]}}
  - {{hosts: ["./*"]}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: details}}
spec:
  workloadSelector: {{labels: {{app: details}}}}
  ingress:
  - {{port: {{number: 9080, protocol: HTTP}}}}
  - {{port: {{number: 9292, protocol: HTTP}}, defaultEndpoint: "0.0.0.0:9080", captureMode: NONE}}
  - {{port: {{number: 9393, protocol: HTTP}}, defaultEndpoint: "unix://{folder}/app.sock"}}
  - port: {{number: 9443, protocol: HTTPS}}
    defaultEndpoint: 127.0.0.1:9080
    tls: {{mode: SIMPLE, serverCertificate: {pem}, privateKey: {pem}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: details}}
spec: {{selector: {{matchLabels: {{app: details}}}}, mtls: {{mode: PERMISSIVE}}}}
"""
KNOWN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: known}
spec: {selector: {matchLabels: {app: details}}, rules: [{from: [{source: {principals: ["*"]}}]}]}
"""
LISTENING = (
    "import sys; sys.exit(not any(x.split()[1].endswith(':244C') and x.split()[3] == '0A' for x in open('/proc/net/tcp')))"
)


class OnASocket(http.server.BaseHTTPRequestHandler):
    """An application that listens on no port."""

    def do_GET(self) -> None:
        """Its one answer."""
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"sock")

    def log_message(self, *words: object) -> None:
        """Nothing."""


@contextmanager
def on_a_socket(path: Path) -> Iterator[None]:
    """That application, for a while."""
    with socketserver.ThreadingUnixStreamServer(str(path), OnASocket) as server:
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_addresses_of_a_sidecars_own(world: World) -> None:
    """Broken: what a Sidecar binds would not answer (ports, addresses, Unix sockets), nor lead to where it says, in or out."""
    folder = world.mesh.home / "sockets"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    details = world.mesh.inside("hostname", "-I", workload="details-v1").out.split()[0]
    endpoint = f"{{address: {world.host}, ports: {{db: {world.servers.tcp}}}}}"
    db = "{hosts: [db.example.com], ports: [{number: 5432, name: db, protocol: TCP}], resolution: STATIC, endpoints: [%s]}"
    # Every user may read it, and its key: a certificate in a file is the host's.
    pem = folder / "server.pem"
    pem.write_bytes(world.certificate.read_bytes())
    pem.chmod(0o644)
    listeners = LISTENERS.format(folder=folder, pem=pem)
    with on_a_socket(folder / "app.sock"), world.applied(entry("db", db % endpoint), listeners):
        assert "HTTP/1.1 200" in world.curl("-H", "Host: reviews", "http://127.0.0.1:15100/reviews/0").out
        assert "HTTP/1.1 502" in world.curl("-H", "Host: details", "http://127.0.0.1:15100/").out
        assert world.speak("127.0.0.1", 3307) == "outside hello"
        assert "HTTP/1.1 200" in world.curl("-H", "Host: ratings", "http://198.51.100.9:9080/ratings/0").out
        assert "HTTP/1.1 200" in world.curl("--unix-socket", f"{folder}/egress.sock", "http://details:9080/details/0").out
        assert world.mesh.inside("python3", "-c", LISTENING, workload="details-v1", check=False).code == 0
        assert "HTTP/1.1 200" in world.curl(f"http://{details}:9292/details/0").out
        assert world.curl(f"http://{details}:9393/").out.endswith("sock")
        at = ("--cacert", str(world.roots), "--connect-to", f"::{details}:9443")
        ended = world.curl(*at, "https://edge.example.com/details/0")
        assert "200" in ended.out.partition("\n")[0], ended.text
        with world.applied(KNOWN):
            # Whom the application's own TLS lets in has no identity of the mesh, though he comes from a workload.
            assert "403" in world.curl(*at, "https://edge.example.com/details/0").out.partition("\n")[0]
            assert "HTTP/1.1 200" in world.curl("http://details:9080/details/0").out
    assert world.curl("-H", "Host: reviews", "http://127.0.0.1:15100/reviews/0").code == 7


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


def until_alive(holds: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait for it, while the process lives."""

    def alive() -> bool:
        assert child.poll() is None, child.communicate()[1]
        return holds()

    until("it comes", alive, 60)


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


EGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: egressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [dns.example.com], tls: {mode: ISTIO_MUTUAL}}
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.wild.example.com"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: through-egress}
spec:
  hosts: [dns.example.com]
  gateways: [egress, mesh]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: egressgateway.default.svc.cluster.local, port: {number: 443}}}]
  - match: [{gateways: [egress], port: 443}]
    route: [{destination: {host: dns.example.com, port: {number: 80}}}]
    headers: {request: {set: {x-caller: "%DOWNSTREAM_PEER_URI_SAN%"}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild-through-egress}
spec:
  hosts: ["*.wild.example.com"]
  gateways: [egress, mesh]
  http:
  - match: [{gateways: [mesh]}]
    route: [{destination: {host: egressgateway.default.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress]}]
    route: [{destination: {host: "*.wild.example.com"}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: to-egress}
spec:
  host: egressgateway.default.svc.cluster.local
  trafficPolicy:
    portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL, sni: dns.example.com}}]
"""


LIST = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: out}
spec:
  selector: {matchLabels: {istio: egressgateway}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]
    to: [{operation: {hosts: [dns.example.com]}}]
"""


def test_an_egress_gateway(world: World) -> None:
    """As Istio's egress task has it: calls leave by the gateway, which knows who calls, and speaks TLS to the host outside.

    With a policy it lets out only whom that names, and only to where it says.
    """
    mesh, secure, plain = world.mesh, free_port(), free_port()
    ports = ("--port", f"443:https:{secure}", "--port", f"80:http:{plain}")
    socket = str(mesh.home / "run" / "demo" / "node.sock")
    gateway = (*mesh.command, "gateway", "--name", "egressgateway", "--label", "istio=egressgateway", *ports, "--socket", socket)
    own = mesh.kubectl("get", "workloadentry", "curl", "-o", "jsonpath={.spec.address}").out
    http = world.servers.http
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {world.servers.https}}}"
    known = entry("dns", f"{{hosts: [dns.example.com], ports: [{port}], resolution: DNS}}")
    port = f"{{number: 80, name: http, protocol: HTTP, targetPort: {http}}}"
    wild = entry("wild", f'{{hosts: ["*.wild.example.com"], ports: [{port}], resolution: DYNAMIC_DNS}}')
    with world.applied(known, wild, ORIGINATION % world.roots, REGISTRY_ONLY):
        assert world.told("http://dns.example.com/")["client"] == own
        running = subprocess.Popen(gateway, env=mesh.env, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        try:
            assert "serves at" in running.stderr.readline()
            with world.applied(EGRESS):
                told = world.told("http://dns.example.com/through")
                assert (told["path"], told["host"]) == ("/through", "dns.example.com")
                assert told["tls"], "it did not originate TLS"
                assert told["client"] != own, "the gateway called, not the sidecar"
                assert told["caller"] == "spiffe://cluster.local/ns/default/sa/curl"
                told = world.told("http://a.wild.example.com/wild")
                assert (told["path"], told["host"]) == ("/wild", "a.wild.example.com")
                assert told["client"] != own
                assert "HTTP/1.1 200" not in world.curl(f"http://unknown.example.com:{http}/").out
                other = "http://dns.example.com/other"
                assert "HTTP/1.1 200" in world.curl(other, workload="ratings-v1").out
                with world.applied(LIST):
                    assert "HTTP/1.1 403" in world.curl(other, workload="ratings-v1").out
                    assert world.told("http://dns.example.com/named")["tls"]
                    assert "HTTP/1.1 403" in world.curl("http://a.wild.example.com/").out
        finally:
            running.terminate()
            running.wait(30)
        assert world.told("http://dns.example.com/")["client"] == own
