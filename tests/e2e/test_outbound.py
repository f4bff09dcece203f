"""What may leave a workload, and where: the mesh's mode, Sidecars, an egress gateway; to real servers outside."""

from __future__ import annotations

import http.server
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mesh import free_port
from tests.support.world import ORIGINATION, REGISTRY_ONLY, World, entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a resolver of the test's own, at port 53, takes root")


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
