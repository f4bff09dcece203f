"""A whole mesh in the host's own network: `cgroup` capture with a real control plane, Envoys and applications."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.test_outages import instance_of, load, network, pid_of, supervisor_stopped
from tests.support.corpora import corpora
from tests.support.mesh import Mesh, envoy_of, fetch
from tests.support.waiting import until
from tulle.node.host_network import has_ipv6

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroup capture takes root")

PERMISSIVE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: details, namespace: default}
spec: {selector: {matchLabels: {app: details}}, mtls: {mode: PERMISSIVE}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Mesh]:
    made = Mesh(capture="cgroup")
    try:
        started = made.up(check=False)
        if "capture cgroup is not possible here" in started.text:
            pytest.skip(started.text)
        assert started.code == 0, started.text + made.logs()
        instance = instance_of(made)
        yield made
        made.down()
        assert network(instance) == set()
    finally:
        made.remove()


def test_six_workloads_share_a_network(host: Mesh) -> None:
    """Istio's files steer them: everyone declares port 9080 of its service and is reached at a port of its own."""
    assert host.state()["capture"] == "cgroup"
    assert fetch(f"{host.base}/productpage")[0].status == 200
    host.apply("kubectl", corpora("istio/samples/bookinfo/networking/destination-rule-all.yaml"))
    host.apply("tulle", corpora("istio/samples/bookinfo/networking/virtual-service-reviews-v3.yaml"))
    replies = fetch(f"{host.base}/api/v1/products/0/reviews", 30)
    assert all(reply.status == 200 and "red" in reply.body for reply in replies)
    assert '"red"' in host.inside("curl", "-sS", "http://reviews:9080/reviews/0").out


def test_strict_holds_on_the_same_host(host: Mesh) -> None:
    """A program of the host, without identity, must not get past the sidecar by calling the application's port over loopback."""
    entries = host.kubectl("get", "workloadentries", "details-v1", "-o", "jsonpath={.spec.address} {.spec.ports.http}").out
    address, port = entries.split()
    places = [f"http://{host_}:{port}/details/0" for host_ in (address, "127.0.0.1")]
    for place in places:  # the demo is STRICT
        ran = subprocess.run(["curl", "-sS", "-m", "5", place], capture_output=True, text=True, check=False)
        assert ran.returncode in (52, 56), ran
    assert fetch(f"{host.base}/productpage")[0].status == 200
    assert "Shakespeare" in host.inside("curl", "-sS", "http://details:9080/details/0").out
    host.tulle("apply", "-f", "-", stdin=PERMISSIVE)
    host.synced()
    try:
        assert [fetch(place)[0].status for place in places] == [200, 200]
    finally:
        host.tulle("delete", "-f", "-", stdin=PERMISSIVE)
        host.synced()


SIX = """
apiVersion: v1
kind: Service
metadata: {name: six, namespace: default}
spec:
  clusterIP: "2001:db8:6::7"
  clusterIPs: ["2001:db8:6::7", 240.240.6.7]
  ipFamilies: [IPv6, IPv4]
  ipFamilyPolicy: RequireDualStack
  selector: {app: details}
  ports: [{port: 9080, name: http}]
"""


def test_ipv6(host: Mesh) -> None:
    """A dual-stack service by both of its addresses, through the sidecar each time; and the application's port by IPv6."""
    if not has_ipv6():
        pytest.skip("no IPv6 on this host")
    subprocess.run(["ip", "-6", "route", "add", "2001:db8:6::/64", "dev", "lo", "src", "::1"], check=True)
    host.tulle("apply", "-f", "-", stdin=SIX + "---" + PERMISSIVE)
    host.synced()
    try:
        for family, address in (("-4", "240.240.6.7"), ("-6", "[2001:db8:6::7]")):
            by_name = host.inside("curl", "-sS", "-v", family, "http://six:9080/details/0")
            assert "Shakespeare" in by_name.out
            assert address.strip("[]") in by_name.err
            ran = host.inside("curl", "-sS", "-g", "-D-", f"http://{address}:9080/details/0")
            assert "x-envoy" in ran.out
            assert "Shakespeare" in ran.out
        port = host.kubectl("get", "workloadentries", "details-v1", "-o", "jsonpath={.spec.ports.http}").out
        call = ["curl", "-sS", "-g", "-D-", f"http://[::1]:{port}/details/0"]
        by_six = subprocess.run(call, capture_output=True, text=True, check=False)
        assert "x-envoy" in by_six.stdout
        assert "Shakespeare" in by_six.stdout
    finally:
        subprocess.run(["ip", "-6", "route", "delete", "2001:db8:6::/64", "dev", "lo"], check=False)
        host.tulle("delete", "-f", "-", stdin=SIX + "---" + PERMISSIVE)
        host.synced()


def test_a_killed_agent_costs_no_request(host: Mesh) -> None:
    """Rules, Envoys and names hold while there is no agent, and while the next takes over."""
    envoy = envoy_of(host, "default/reviews-v1")
    assert envoy
    with load(host) as running:
        with supervisor_stopped(host):
            os.kill(pid_of(host, "tulle node"), signal.SIGKILL)
            until("some traffic without an agent", lambda: sum(running.seen.values()) > 100)
        until("an agent again", lambda: envoy_of(host, "default/reviews-v1") == envoy, 60)
        host.synced()
    assert running.failures == 0, running.words
    assert "Shakespeare" in host.inside("curl", "-sS", "http://details:9080/details/0").out
