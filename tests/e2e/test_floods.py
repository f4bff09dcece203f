"""The known floods, against a gateway and against a sidecar (by an insider with a certificate): others go on being served."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.floods import flooding
from tests.support.mesh import Mesh, envoy_of, fetch
from tulle.control.ca.authority import Authority
from tulle.control.store.sealed import Keys

INSIDER = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"


@dataclass
class Victim:
    """Where a flood goes. `certificate`: what lets it in; `workload`: whose Envoy it is."""

    mesh: Mesh
    workload: str
    host: str
    port: int
    certificate: Path | None = None

    def serves_neighbours(self) -> None:
        """Those who call the same proxy, one request after the other."""
        if self.certificate is None:
            seen = [reply.status for reply in fetch(f"{self.mesh.base}/productpage", 15, parallel=1)]
        else:
            loop = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do curl -s -m 30 -o /dev/null -w '%{http_code} ' $0; done"
            seen = [int(code) for code in self.mesh.inside("sh", "-c", loop, "http://details:9080/details/0").out.split()]
        assert seen == [200] * 15

    def memory(self) -> int:
        """Bytes that its Envoy holds."""
        status = Path(f"/proc/{envoy_of(self.mesh, self.workload)}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10


@pytest.fixture(scope="module")
def gateway(mesh: Mesh) -> Victim:
    """The demo's ingress, by anybody."""
    return Victim(mesh, "tulle-system/ingressgateway", "127.0.0.1", mesh.ingress_port)


@pytest.fixture(scope="module")
def sidecar(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """One of the demo's services, by whoever has the certificate of another."""
    state = mesh.home / "state" / "demo"
    stolen = Authority.open(state / "ca", seal=Keys.of_folder(state)).issue_server(["localhost"], 3600, INSIDER)
    file = tmp_path_factory.mktemp("insider") / "stolen.pem"
    file.write_bytes(stolen.key + stolen.chain)
    address = mesh.kubectl("get", "workloadentry", "details-v1", "-o", "jsonpath={.spec.address}").out
    return Victim(mesh, "default/details-v1", address, 9080, file)


@pytest.fixture(params=["gateway", "sidecar"])
def victim(request: pytest.FixtureRequest) -> Victim:
    """Each of them."""
    found: Victim = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("kind", ["idle", "rapid_reset", "header_bombs", "frames"])
def test_neighbours_go_on_being_served(victim: Victim, kind: str) -> None:
    """Broken: one client, without any right, could take a proxy from all others, or its host's memory."""
    before, running = victim.memory(), envoy_of(victim.mesh, victim.workload)
    with flooding(kind, victim.host, victim.port, victim.certificate) as flood:
        victim.serves_neighbours()
        held = victim.memory() - before
    counted = flood.counted
    if kind == "idle":
        assert counted["opened"] >= 2000
    elif kind == "header_bombs":
        assert set(counted["answers"]) <= {"431", "closed"}, "larger than any request may be"
    else:
        assert counted["closed"] >= 3, "whoever floods loses his connection"
    assert held < 100 << 20, "bytes more while it lasted"
    assert envoy_of(victim.mesh, victim.workload) == running, "it has not fallen"


def test_who_never_ends_is_let_go(gateway: Victim, sidecar: Victim) -> None:
    """Broken: a few hundred clients that send a byte a second would hold a proxy's connections for ever (slowloris)."""
    with (
        flooding("slowloris", gateway.host, gateway.port) as outside,
        flooding("slowloris", sidecar.host, sidecar.port, sidecar.certificate) as inside,
    ):
        began = time.monotonic()
        gateway.serves_neighbours()
        sidecar.serves_neighbours()
        for flood in (outside, inside):
            counted = flood.spent()
            assert counted["closed"] == counted["opened"] == 500, counted
            assert set(counted["answers"]) <= {"408", "closed"}, counted
    assert time.monotonic() - began < 60
