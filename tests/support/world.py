"""A mesh and what there is outside of it: servers of this machine, names that only its resolver knows, objects for a while."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import Ran
from tests.support.mesh import Mesh
from tests.support.outside import Outside, outside, resolver
from tests.support.waiting import until
from tulle.control.ca.authority import Authority

# Each worker of a run has its own.
RESOLVER = f"127.83.0.{53 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"
HOSTS = ("dns.example.com", "edge.example.com", "*.wild.example.com", "unknown.example.com")
THROUGH = "x-envoy-upstream-service-time"  # Envoy's, in answers that it routed

REGISTRY_ONLY = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""

ORIGINATION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dns}
spec:
  host: dns.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: %s, sni: dns.example.com}}
"""


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


@contextmanager
def outer_world(folder: Path) -> Iterator[World]:
    """A demo whose machine asks the test's own resolver."""
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


def until_alive(holds: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait for it, while the process lives."""

    def alive() -> bool:
        assert child.poll() is None, child.communicate()[1]
        return holds()

    until("it comes", alive, 60)
