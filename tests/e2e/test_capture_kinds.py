"""The demo without root: in a user namespace, and where not even that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.test_workload_api import ASK
from tests.support.corpora import corpora
from tests.support.mesh import Mesh, fetch, free_port

USER = "tulle-test"

# What a Sidecar binds itself: a port of loopback to call `reviews` by, and one more at which `details` is called.
BOUND = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: curl}}
spec:
  workloadSelector: {{labels: {{app: curl}}}}
  egress:
  - {{bind: 127.0.0.1, port: {{number: {port}, protocol: HTTP}}, captureMode: NONE, hosts: [./reviews.default.svc.cluster.local]}}
  - {{hosts: ["./*"]}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: details}}
spec:
  workloadSelector: {{labels: {{app: details}}}}
  ingress:
  - {{port: {{number: 9080, protocol: HTTP}}}}
  - {{port: {{number: 9292, protocol: HTTP}}, defaultEndpoint: "127.0.0.1:9080", captureMode: NONE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: details}}
spec: {{selector: {{matchLabels: {{app: details}}}}, mtls: {{mode: PERMISSIVE}}}}
"""


@pytest.fixture
def user() -> Iterator[str | None]:
    """Somebody without privileges: a user made for this test where the tests run as root, otherwise who runs them."""
    if os.geteuid() != 0:
        yield None
        return
    if not shutil.which("useradd"):
        pytest.skip("no useradd on this machine")
    subprocess.run(["useradd", "--system", "--no-create-home", USER], check=False, capture_output=True)
    yield USER
    subprocess.run(["userdel", USER], check=False, capture_output=True)


@pytest.mark.parametrize("capture", ["netns", "proxy"])
def test_demo_as_an_ordinary_user(user: str | None, capture: str) -> None:
    """The whole demo works without root, and Istio's files steer it all the same; also what a Sidecar binds itself answers."""
    mesh = Mesh(capture=capture, user=user)
    try:
        mesh.up()
        state = mesh.state()
        assert state["capture"] == capture
        assert fetch(f"{mesh.base}/productpage")[0].status == 200
        mesh.apply("kubectl", corpora("istio/samples/bookinfo/networking/destination-rule-all.yaml"))
        mesh.apply("tulle", corpora("istio/samples/bookinfo/networking/virtual-service-reviews-v3.yaml"))
        replies = fetch(f"{mesh.base}/api/v1/products/0/reviews", 50)
        assert all(reply.status == 200 and "red" in reply.body for reply in replies)
        ran = mesh.inside("curl", "-sS", "http://reviews:9080/reviews/0")
        assert '"red"' in ran.out
        here = ["curl", "-sS", "--noproxy", "*"]
        port = free_port()
        mesh.kubectl("apply", "-f", "-", stdin=BOUND.format(port=port))
        mesh.synced()
        assert '"red"' in mesh.inside(*here, "-H", "host: reviews", f"http://127.0.0.1:{port}/reviews/0").out
        if capture == "netns":
            at = mesh.inside("hostname", "-I", workload="details-v1").out.split()[0]
            assert mesh.inside(*here, "-o", "/dev/null", "-w", "%{http_code}", f"http://{at}:9292/details/0").out == "200"
        python = mesh.command[mesh.command.index("--") + 1 : -2] if "--" in mesh.command else [sys.executable]
        assert mesh.inside(*python, "-c", ASK).out.strip() == "spiffe://cluster.local/ns/default/sa/curl", "the Workload API"
        assert mesh.down().code == 0
        left = subprocess.run(["pgrep", "-f", str(mesh.home)], capture_output=True, text=True, check=False).stdout
        assert not left, left
    finally:
        mesh.remove()


def test_a_capture_that_is_not_possible_is_named_before_anything_starts(user: str | None) -> None:
    """What is missing and what to do, and no folder, process or port behind it."""
    none = Mesh(capture="cgroup", user=user)
    try:
        ran = none.up(check=False)
        assert ran.code == 1
        assert "capture cgroup is not possible here: it takes root" in ran.err
        assert "auto" in ran.err, "what to use instead"
        assert not (none.home / "run" / "demo" / "state.json").exists()
        assert not (none.home / "state" / "demo").exists()
    finally:
        none.remove()
