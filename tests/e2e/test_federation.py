"""Two meshes on one machine that believe each other: bundles by both profiles, calls, policies, and what stays shut."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_node_agent import Host
from tests.support import commands
from tests.support.certificates import Roots
from tests.support.commands import run
from tests.support.mesh import free_port
from tests.support.waiting import until
from tulle.client.node_api import Port, WorkloadSpec
from tulle.control.ca import certificates
from tulle.core.trust_bundle import TrustBundle, document, split

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

ECHO = WorkloadSpec(name="echo-v1", service="echo", version="v1", service_account="echo", ports=(Port(8000, "http"),))
CALLER = WorkloadSpec(name="caller-v1", service="caller", version="v1", service_account="caller")
SERVE = [sys.executable, "-m", "http.server", "8000", "--directory", "/proc/self/net"]
CONTROL_PLANE = "spiffe://%s/ns/tulle-system/sa/control-plane"
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: tulle-system}
spec: {mtls: {mode: STRICT}}
"""
REMOTE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: west, namespace: default}
spec:
  hosts: [echo.west.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}]
  endpoints: [{address: %s, labels: {security.istio.io/tlsMode: istio}}]
  subjectAltNames: ["spiffe://west.example/ns/default/sa/echo"]
"""
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo, namespace: default}
spec: {selector: {matchLabels: {app: echo}}, rules: [{from: [{source: %s}]}]}
"""


class Mesh(Host):
    """A control plane with a bundle endpoint, a node, and one workload."""

    def __init__(self, trust_domain: str, **settings: str) -> None:
        super().__init__()
        self.trust_domain = trust_domain
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.env |= {"TULLE_TRUST_DOMAIN": trust_domain, "TULLE_BUNDLE_ENDPOINT": self.endpoint, "TULLE_BUNDLE_REFRESH": "5s"}
        self.env |= settings

    def up(self, spec: WorkloadSpec, *argv: str) -> str:
        """The address of its workload, once that is ready."""
        self.start_control_plane()
        self.start_agent()
        self.apply(STRICT)
        self.app = self.start(spec, *argv)
        return self.ready(spec.id).address

    def apply(self, text: str) -> None:
        done = commands.tulle(["apply", "-f", "-"], self.env, stdin=text)
        assert done.code == 0, done.text
        assert self.run("wait", "--for=synced", "--timeout", "60s").returncode == 0

    def believe(self, *others: dict[str, Any]) -> None:
        """Federate with these, and with nobody else."""
        said = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}}
        self.apply(json.dumps({**said, "spec": {"federatedTrustDomains": list(others)}}))

    def bundle(self) -> str:
        return self.run("federation", "bundle").stdout

    def known(self, trust_domain: str) -> dict[str, Any]:
        """What the control plane knows of another trust domain."""
        said = json.loads(self.run("federation", "list", "-o", "json").stdout)
        return next((one for one in said if one["trustDomain"] == trust_domain), {})

    def call_west(self) -> str:
        return self.call(CALLER.id, "http://echo.west.example:8000/dev")


@pytest.fixture
def web(tmp_path: Path) -> dict[str, str]:
    """A certificate of an authority of the web, in files."""
    authority = Roots()
    chain, key = authority.server("localhost")
    (tmp_path / "web.pem").write_bytes(chain)
    (tmp_path / "web.key").write_bytes(key)
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    files = {"CERT": "web.pem", "KEY": "web.key"}
    return {f"TULLE_BUNDLE_ENDPOINT_{kind}_FILE": str(tmp_path / name) for kind, name in files.items()}


@pytest.fixture
def meshes(web: dict[str, str]) -> Iterator[tuple[Mesh, Mesh]]:
    east, west = Mesh("east.example", **web), Mesh("west.example")
    try:
        yield east, west
    except BaseException:
        print(east.logs(), west.logs())
        raise
    finally:
        east.close()
        west.close()


def test_two_trust_domains(meshes: tuple[Mesh, Mesh], tmp_path: Path) -> None:
    """Broken: meshes that believe each other cannot talk; or whoever is believed for one trust domain is so for another."""
    east, west = meshes
    address = west.up(ECHO, *SERVE)
    east.up(CALLER, "sleep", "infinity")
    east.apply(REMOTE % address)
    assert east.call_west() == "503", "nobody is believed yet"

    at_west = {"url": f"https://{west.endpoint}/", "profile": "https_spiffe", "spiffeId": CONTROL_PLANE % "west.example"}
    wrong = {**at_west, "spiffeId": CONTROL_PLANE % "west.example" + "x"}
    east.believe({"trustDomain": "west.example", "trustDomainBundle": west.bundle(), "bundleEndpoint": wrong})
    until("the wrong endpoint is refused", lambda: "needed spiffe://west.example" in str(east.known("west.example").get("error")))
    east.believe({"trustDomain": "west.example", "trustDomainBundle": west.bundle(), "bundleEndpoint": at_west})
    at_east = {
        "url": f"https://{east.endpoint.replace('127.0.0.1', 'localhost')}/bundle.json",
        "caCertificates": (tmp_path / "authority.pem").read_text(),
    }
    now, rogue = time.time(), certificates.make_key()
    root = certificates.make_root(rogue, "rogue.example", now)
    of_rogue = document(TrustBundle("rogue.example", split(certificates.pem(root)))).decode()
    others = {"trustDomain": "rogue.example", "trustDomainBundle": of_rogue}
    west.believe({"trustDomain": "east.example", "bundleEndpoint": at_east}, others)
    until("east is known in west", lambda: west.known("east.example").get("authorities") == 1)
    until("west was read in east", lambda: bool(east.known("west.example").get("refreshed")))
    until("they talk", lambda: east.call_west() == "200")

    def as_(identity: str) -> str:
        """What a caller with a certificate of the rogue authority is answered."""
        key = certificates.make_key()
        leaf = certificates.make_leaf(root, rogue, key.public_key(), now, 3600, uri=identity)
        (tmp_path / "rogue.pem").write_bytes(certificates.key_pem(key) + certificates.pem(leaf))
        curl = ["curl", "-sSk", "-m", "5", "--alpn", "--http2", "-o", "/dev/null", "-w", "%{http_code}"]
        return run([*curl, "--cert", str(tmp_path / "rogue.pem"), f"https://{address}:8000/dev"], east.env).out

    itself = "spiffe://rogue.example/a/b"
    assert as_(itself) == "200", "a trust domain that is believed, with a bundle that was handed over"
    assert as_("spiffe://east.example/ns/default/sa/caller") == "000", "believed for itself, and not for another"
    assert as_("spiffe://west.example/ns/default/sa/echo") == "000"

    west.apply(ALLOW % '{principals: ["east.example/ns/default/sa/caller"]}')
    assert east.call_west() == "200", "policies see who is calling"
    assert as_(itself) == "403"
    west.apply(ALLOW % '{namespaces: ["default"]}')
    assert east.call_west() == "403", "a namespace of that name in another trust domain is another namespace"
    west.apply(ALLOW % '{trustDomains: ["east.example"]}')
    assert east.call_west() == "200"

    assert east.run("ca", "rotate", "prepare").returncode == 0
    until("the new root is known in the other mesh", lambda: west.known("east.example").get("authorities") == 2)
    assert west.known("east.example")["sequence"] == 2
    code = "from spiffe import WorkloadApiClient as C; b = C().fetch_x509_bundles()\n"
    code += "print({str(one.trust_domain): len(one.x509_authorities) for one in b.bundles})"
    until(
        "applications know it",
        lambda: "'east.example': 2" in west.run("exec", ECHO.id, "--", sys.executable, "-c", code).stdout,
    )
    west.believe(others)
    until("what is believed no longer", lambda: east.call_west() == "503")
