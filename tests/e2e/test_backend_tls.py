"""TLS to a backend that speaks it itself: checked as a BackendTLSPolicy or a DestinationRule says, seen in real traffic."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Roots
from tests.support.mesh import TULLE, Mesh
from tests.support.waiting import until

# Answers the server name that it was asked for, and whether the client showed a certificate.
SERVER = """
import http.server, ssl, sys
asked = {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{asked.get('name')} {bool(self.connection.getpeercert())}".encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.load_verify_locations(sys.argv[3])
context.verify_mode = ssl.CERT_OPTIONAL
context.sni_callback = lambda _socket, name, _context: asked.update(name=name)
class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        connection, address = super().get_request()
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address
Server(("127.0.0.1", 8443), Handler).serve_forever()
"""


# The demo is strict: nothing but mutual TLS comes in. This application's own TLS is to.
PERMISSIVE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: secure}
spec: {selector: {matchLabels: {app: secure}}, mtls: {mode: PERMISSIVE}}
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Files that every user of this host may read: pytest's own folders are not."""
    made = Path(tempfile.mkdtemp(prefix="tulle-tls-"))
    made.chmod(0o755)
    roots = Roots()
    for name, (chain, key) in (("server", roots.server("secure.example")), ("client", roots.server("client.example"))):
        (made / f"{name}.pem").write_bytes(chain)
        (made / f"{name}.key").write_bytes(key)
    (made / "ca.pem").write_bytes(roots.pem)
    (made / "other.pem").write_bytes(Roots().pem)
    (made / "server.py").write_text(SERVER)
    for file in made.iterdir():
        file.chmod(0o644)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def secure(mesh: Mesh, folder: Path) -> Iterator[Mesh]:
    """The mesh with a service `secure` whose application speaks TLS on its port of HTTP."""
    files = [str(folder / name) for name in ("server.pem", "server.key", "ca.pem")]
    argv = ["run", "--service", "secure", "--port", "8443:http", "--", sys.executable, str(folder / "server.py"), *files]
    child = subprocess.Popen([*TULLE, *argv], env=mesh.env)
    mesh.kubectl("wait", "--for=create", "--timeout=60s", "service/secure")  # a rule for nobody is refused
    mesh.tulle("apply", "-f", "-", stdin=PERMISSIVE)
    rule(mesh, mode="SIMPLE", sni="anything.example", insecureSkipVerify=True)
    until_answered(mesh, "anything.example False")
    mesh.tulle("delete", "destinationrule", "secure")
    mesh.synced()
    yield mesh
    mesh.tulle("delete", "peerauthentication", "secure")
    child.send_signal(signal.SIGTERM)
    child.wait(60)


def answer(mesh: Mesh) -> str:
    """What curl gets of `secure`: the body, or the status where it is no 200."""
    script = 'curl -s -m 5 -w " %{http_code}" http://secure:8443/'
    body, _space, status = mesh.inside("sh", "-c", script, check=False).out.rpartition(" ")
    return body if status == "200" else status


def until_answered(mesh: Mesh, wanted: str) -> None:
    until(f"the answer is {wanted}", lambda: answer(mesh) == wanted, 60, lambda: (answer(mesh), mesh.logs()))


def policy(mesh: Mesh, hostname: str, pem: str, **options: str) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem}}
    validation = {"hostname": hostname, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "secure"}], "validation": validation}
    spec["options"] = {f"tulle.dev/tls-{name}-protocol-version": version for name, version in options.items()}
    metadata = {"name": "secure"}
    of_api = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec}
    mesh.tulle("apply", "-f", "-", stdin=json.dumps(config_map) + "\n---\n" + json.dumps(of_api))
    mesh.synced()


def rule(mesh: Mesh, *apps: str, **tls: object) -> None:
    spec: dict[str, object] = {"host": "secure", "trafficPolicy": {"tls": tls}}
    for app in apps:
        spec["workloadSelector"] = {"matchLabels": {"app": app}}
    of_istio = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "secure"}, "spec": spec}
    mesh.tulle("apply", "-f", "-", stdin=json.dumps(of_istio))
    mesh.synced()


def test_a_backend_tls_policy(secure: Mesh, folder: Path) -> None:
    """Broken: the backend would be called in plain text, unchecked, or not at all."""
    policy(secure, "secure.example", (folder / "ca.pem").read_text())
    assert answer(secure) == "secure.example False"
    policy(secure, "other.example", (folder / "ca.pem").read_text())
    assert answer(secure) == "503"
    policy(secure, "secure.example", (folder / "other.pem").read_text())
    assert answer(secure) == "503"
    policy(secure, "secure.example", "no certificate")
    assert answer(secure) == "503"
    policy(secure, "secure.example", (folder / "ca.pem").read_text())
    assert answer(secure) == "secure.example False"
    policy(secure, "secure.example", (folder / "ca.pem").read_text(), max="TLSV1_1")  # the server has none so old
    assert answer(secure) == "503"
    policy(secure, "secure.example", (folder / "ca.pem").read_text(), min="TLSV1_3")
    assert answer(secure) == "secure.example False"
    secure.tulle("delete", "backendtlspolicy", "secure")


def test_a_destination_rule_with_files(secure: Mesh, folder: Path) -> None:
    """Broken: a client certificate would not be shown, or a missing file take down more than its destination."""
    names = {"sni": "secure.example", "caCertificates": str(folder / "ca.pem")}
    client = {"clientCertificate": str(folder / "client.pem"), "privateKey": str(folder / "client.key")}
    rule(secure, mode="MUTUAL", **names, **client)
    assert answer(secure) == "secure.example True"
    rule(secure, mode="SIMPLE", sni="secure.example", caCertificates=str(folder / "absent.pem"))
    assert answer(secure) == "503"
    assert secure.inside("curl", "-s", "-m", "5", "--fail", "http://details:9080/details/0").code == 0
    (folder / "absent.pem").write_bytes((folder / "ca.pem").read_bytes())
    (folder / "absent.pem").chmod(0o644)
    until_answered(secure, "secure.example False")  # the node looks at files every few seconds
    rule(secure, mode="SIMPLE", sni="secure.example")  # the host's own authorities, which do not know this one
    assert answer(secure) == "503"
    rule(secure, mode="SIMPLE", sni="anything.example", insecureSkipVerify=True)
    assert answer(secure) == "anything.example False"
    secure.tulle("delete", "destinationrule", "secure")


def test_a_secret_for_those_whom_a_rule_selects(secure: Mesh, folder: Path) -> None:
    """Broken: a client's certificate of a Secret would not be shown, or be shown by callers whom nobody selected."""
    data = {"tls.crt": "client.pem", "tls.key": "client.key", "ca.crt": "ca.pem"}
    texts = {name: (folder / file).read_text() for name, file in data.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "paying"}, "stringData": texts}
    secure.tulle("apply", "-f", "-", stdin=json.dumps(secret))
    rule(secure, "curl", mode="MUTUAL", sni="secure.example", credentialName="paying")
    assert answer(secure) == "secure.example True"
    rule(secure, "somebody-else", mode="MUTUAL", sni="secure.example", credentialName="paying")
    assert answer(secure) != "secure.example True"
    secure.tulle("delete", "destinationrule", "secure")
    secure.tulle("delete", "secret", "paying")
