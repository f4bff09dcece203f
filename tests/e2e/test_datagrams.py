"""UDP at a Service's virtual IP: shared out by a UDPRoute, past an instance that is gone. And ports where nobody answers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.e2e.test_protocols import PYTHON, SPOKEN, call
from tests.support.gateways import Gateways, object_
from tests.support.mesh import Mesh, assert_shares, free_port
from tests.support.serving import serving
from tests.support.spoken import datagrams
from tests.support.waiting import until
from tulle.core.networks import VIRTUAL, inside

# The number of DNS, which capture takes for itself wherever else it leads; an ordinary user may not bind it.
PORT = "53:udp" if os.geteuid() == 0 else "53:udp:5300"
BOUND = PORT.rpartition(":")[2].replace("udp", "53")
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {{name: line, namespace: default}}
spec:
  parentRefs: [{{group: "", kind: Service, name: line, port: 53}}]
  rules:
  - backendRefs:
    - {{name: {name}, port: 53, weight: {first}}}
    - {{name: line-v2, port: 53, weight: {second}}}
"""
ONE_VERSION = """---
apiVersion: v1
kind: Service
metadata: {{name: line-{version}, namespace: default}}
spec:
  selector: {{app: line, version: {version}}}
  ports: [{{port: 53, name: udp, protocol: UDP, targetPort: {bound}}}]
"""
SIX = f"""
apiVersion: v1
kind: Service
metadata: {{name: line-six, namespace: default}}
spec:
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  selector: {{app: line}}
  ports: [{{port: 53, name: udp, protocol: UDP, targetPort: {BOUND}}}]
"""


@contextmanager
def version(mesh: Mesh, name: str) -> Iterator[None]:
    argv = [PYTHON, SPOKEN, "serve-datagrams", BOUND, name]
    with serving(mesh, "line", PORT, argv, [PYTHON, SPOKEN, "datagrams", "line", "53", "1"], name):
        yield


def routed(mesh: Mesh, name: str, first: int, second: int) -> None:
    """Everything to a Service and to the second version, in these shares."""
    mesh.kubectl("apply", "-f", "-", stdin=ROUTE.format(name=name, first=first, second=second))
    mesh.synced()


def heard(mesh: Mesh, clients: int) -> Counter[str]:
    """Who answers so many clients; "" for those that are not answered."""
    return Counter(call(mesh, "datagrams", "line", "53", str(clients)))


def test_shares_of_clients(mesh: Mesh, gateways: Gateways) -> None:
    """Broken: a virtual IP is silent to UDP, takes it for DNS, or goes on with shares, or an instance, that are past."""
    mesh.kubectl("apply", "-f", "-", stdin="".join(ONE_VERSION.format(version=one, bound=BOUND) for one in ("v1", "v2")))
    with ExitStack() as over:
        over.callback(lambda: mesh.kubectl("delete", "service", "line-v1", "line-v2"))
        over.enter_context(version(mesh, "v1"))
        two = over.enter_context(ExitStack())
        two.enter_context(version(mesh, "v2"))
        until("the second one answers, too", lambda: "v2" in heard(mesh, 40), 60)
        mesh.synced()
        address = mesh.inside("getent", "ahostsv4", "line").out.split()[0]
        assert inside(address, VIRTUAL[0])
        assert set(heard(mesh, 40)) == {"v1", "v2"}, "without a route its own workloads take turns"
        over.callback(lambda: mesh.kubectl("delete", "udproute", "line"))
        routed(mesh, "line-v1", 80, 20)
        assert_shares(lambda: heard(mesh, 1000), {"v1": 0.8, "v2": 0.2})
        routed(mesh, "line-v1", 0, 1)
        assert heard(mesh, 40) == {"v2": 40}
        routed(mesh, "line", 1, 0)
        if mesh.inside("ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "global").out:
            mesh.kubectl("apply", "-f", "-", stdin=SIX)
            over.callback(lambda: mesh.kubectl("delete", "service", "line-six"))
            mesh.synced()
            six = mesh.inside("getent", "ahostsv6", "line-six").out.split()[0]
            assert inside(six, VIRTUAL[1])
            assert set(call(mesh, "datagrams", six, "53", "20")) == {"v1", "v2"}, "by IPv6"
        two.close()
        mesh.synced()
        assert heard(mesh, 40) == {"v1": 40}, "nobody is sent to the one that is gone"
        outside = free_port()
        listening = [{"name": "udp", "port": outside, "protocol": "UDP"}]
        line = {"parentRefs": [{"name": "datagrams"}], "rules": [{"backendRefs": [{"name": "line", "port": 53}]}]}
        gateways.apply(
            object_("Gateway", "datagrams", {"gatewayClassName": "tulle", "listeners": listening}),
            object_("UDPRoute", "through", line),
        )
        assert asyncio.run(datagrams("127.0.0.1", outside, 10)) == {"v1": 10}, "from outside, through a gateway"


def test_a_port_that_a_service_does_not_have(mesh: Mesh) -> None:
    """Broken: a call to it is waited for until its caller gives up, though nobody could ever answer there."""
    began = time.monotonic()
    ran = mesh.inside(
        "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "-m", "20", "http://reviews:9999/", check=False
    )
    assert time.monotonic() - began < 15
    assert ran.code != 0 or ran.out == "503", ran
    code = """
import json, socket, time
began = time.monotonic()
try:
    with socket.create_connection(("reviews", 9998), 20) as one:
        one.settimeout(20)
        heard = one.recv(1)
except OSError as error:
    heard = b""
print(json.dumps([len(heard), time.monotonic() - began]))
"""
    length, seconds = json.loads(mesh.inside(PYTHON, "-c", code).out)
    assert (length, seconds < 5) == (0, True)
