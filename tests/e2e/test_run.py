"""`tulle run` and `tulle exec`: a person's own process in the mesh."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mesh import TULLE, Mesh
from tests.support.waiting import until

SERVER = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"""


def test_a_job_finishes_with_its_own_exit_code(mesh: Mesh) -> None:
    """The sidecar does not keep a job alive, and does not change what it returns or prints."""
    ran = mesh.tulle("run", "--service", "job", "--", sys.executable, "-c", "print('done'); raise SystemExit(7)", check=False)
    assert ran.code == 7, ran.text
    assert "done" in ran.out
    assert mesh.kubectl("get", "workloadentries", "-o", "name").out.count("/job") == 0


def test_the_app_starts_when_its_proxy_is_ready(mesh: Mesh) -> None:
    """The very first request of a job reaches a service of the mesh."""
    ran = mesh.tulle("run", "--service", "caller", "--", "curl", "-sS", "--fail", "http://details:9080/details/0")
    assert "Shakespeare" in ran.out


def test_a_service_of_ones_own(mesh: Mesh, tmp_path: Path) -> None:
    """Called by its name from another workload, encrypted, with the caller's identity in the header; gone when it ends."""
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    argv = [*TULLE, "run", "--service", "echo", "--version", "v1", "--port", "8000:http", "--", sys.executable, str(server)]
    child = subprocess.Popen(argv, env=mesh.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:

        def answered() -> str:
            assert child.poll() is None, child.communicate()[1]
            ran = mesh.inside("curl", "-sS", "-m", "5", "--fail", "http://echo:8000/hello", check=False)
            return ran.out if ran.code == 0 else ""

        said = until("echo answers", answered, 60)
        assert '"path": "/hello"' in said
        assert "spiffe://cluster.local/ns/default/sa/curl" in said
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 128 + signal.SIGTERM
    assert "echo" not in mesh.kubectl("get", "workloadentries", "-o", "name").out


def test_exec_gives_the_exit_code(mesh: Mesh) -> None:
    """As `kubectl exec` does."""
    assert mesh.inside("sh", "-c", "exit 3", check=False).code == 3


def test_names_resolve_inside(mesh: Mesh) -> None:
    """Short, namespaced and full names lead to the service's virtual address."""
    for name in ("reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"):
        seen = mesh.inside("getent", "ahostsv4", name).out
        assert seen.startswith("240.240."), f"{name}: {seen}"


@pytest.mark.parametrize("what", ["all", "bootstrap", "cluster", "listener", "route", "endpoint", "secret"])
@pytest.mark.parametrize("form", ["short", "json", "yaml"])
def test_proxy_config(mesh: Mesh, what: str, form: str) -> None:
    """Every view of a sidecar's configuration in every form, in Istio's names."""
    shown = mesh.tulle("proxy", "config", what, "productpage-v1", "-o", form).out
    word = {
        "cluster": "reviews.default.svc.cluster.local",
        "listener": "15006",
        "route": "reviews",
        "endpoint": "9080",
        "secret": "ROOTCA",
        "bootstrap": "default/productpage-v1",
        "all": "reviews",
    }[what]
    assert word in shown


def test_status_and_check(mesh: Mesh) -> None:
    """All proxies are listed and synced; `tulle check` is content; `tulle version` has both sides."""
    listed = mesh.tulle("proxy", "status").out
    for name in (
        "productpage-v1",
        "details-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
        "ratings-v1",
        "curl",
        "ingressgateway",
    ):
        assert name in listed
    assert "NACK" not in listed
    mesh.tulle("check")
    assert "1.40" in mesh.tulle("version").out
    assert mesh.tulle("kubeconfig").out.strip() == str(mesh.kubeconfig)
