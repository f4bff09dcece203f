"""Sidecar: bounds of what comes in, and where what the mesh does not know goes."""

from __future__ import annotations

from typing import Any

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.outbound import others, outbound
from tulle.core.compile.workloads import workload
from tulle.core.envoy.listeners import encode_workload
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey
from tulle.core.model.workload import InboundPort, Workload
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2

POOL = {"tcp": {"maxConnections": 3, "connectTimeout": "2s", "idleTimeout": "5s"}, "http": {"http2MaxRequests": 4}}
ME = "default/details-v1"


def sidecar(**spec: Any) -> Any:
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "s"}, "spec": spec})


def mesh(**spec: Any) -> Mesh:
    database = service("db", ports=({"port": 3306, "name": "mysql"},), selector={"app": "details"}, address="240.240.0.60")
    proxy = service("forward", ports=({"port": 3128, "name": "tcp"},), address="240.240.0.61")
    return Mesh([*bookinfo(), database, proxy, entry("forward", "10.0.0.61", {"app": "forward"}), sidecar(**spec)])


def ports(one: Mesh) -> dict[int, InboundPort]:
    row = one.pipeline.workload(ME)
    assert row is not None
    return {port.port: port for port in row.inbound}


def test_bounds_of_what_comes_in() -> None:
    """Broken: an application would get more connections and requests at once than it was said to stand."""
    found = mesh(inboundConnectionPool=POOL)
    assert found.problems() == []
    http, tcp = ports(found)[9080], ports(found)[3306]
    assert (http.connections.maximum, http.requests.maximum, http.connect_timeout) == (3, 4, 2.0)
    assert tcp.carriage.idle_timeout == 5.0
    made = found.pipeline.table(f"workload/{ME}", type_urls.CLUSTER)["inbound|9080||"]
    cluster = cluster_pb2.Cluster.FromString(made.value)
    (limits,) = cluster.circuit_breakers.thresholds
    assert (limits.max_connections.value, limits.max_requests.value, cluster.connect_timeout.seconds) == (3, 4, 2)


def test_a_ports_own_bounds_come_first() -> None:
    """Broken: what is said for one port would be lost in what is said for all."""
    own = {"port": {"number": 9080, "protocol": "HTTP", "name": "http"}, "connectionPool": {"tcp": {"maxConnections": 9}}}
    other = {"port": {"number": 9081, "protocol": "TCP", "name": "tcp"}}
    found = ports(mesh(inboundConnectionPool=POOL, ingress=[own, other]))
    assert (found[9080].connections.maximum, found[9081].connections.maximum) == (9, 3)


def test_what_is_spoken_to_an_application_is_not_a_pools_matter() -> None:
    """Broken: somebody would rely on an upgrade of the application's connections that nobody makes."""
    found = mesh(inboundConnectionPool={"http": {"h2UpgradePolicy": "UPGRADE", "maxRetries": 1}})
    assert [(one.path, one.reason) for one in found.problems()] == [
        ("spec.inboundConnectionPool.http.h2UpgradePolicy", "NotYetSupported")
    ]


def policy(mode: str = "ALLOW_ANY", host: str = "forward") -> dict[str, Any]:
    return {"outboundTrafficPolicy": {"mode": mode, "egressProxy": {"host": host, "port": {"number": 3128}}}}


def test_what_the_mesh_does_not_know_goes_to_the_egress_proxy() -> None:
    """Broken: calls that were to be watched by one proxy would leave the mesh by themselves."""
    found = mesh(**policy())
    assert found.problems() == []
    proxy = DestinationKey("forward.default.svc.cluster.local", 3128)
    row, shared = found.pipeline.workload(ME), found.pipeline.flow.get(outbound, "default")
    host = found.pipeline.flow.get(others, RouteTableKey(9080, "default"))
    assert row is not None
    assert shared is not None
    assert host is not None
    assert row.unknown == shared.unknown == host.routes[0].destinations[0].destination == proxy
    listener = next(one for one in encode_workload(row) if one.name == "virtualOutbound")
    assert proxy.cluster.encode() in listener.value


def test_an_egress_proxy_that_cannot_be_says_so() -> None:
    """Broken: calls would go past a proxy that is not there, and nobody be told."""
    wrong = mesh(**policy(host="forwrad"))
    assert [(one.path, one.reason) for one in wrong.problems()] == [
        ("spec.outboundTrafficPolicy.egressProxy.host", "HostNotFound")
    ]
    assert (one := wrong.pipeline.workload(ME)) is not None
    assert one.unknown is not None, "and calls end there"
    found = mesh(**policy("REGISTRY_ONLY"))
    assert [one.reason for one in found.problems()] == ["NotYetSupported"]
    row: Workload | None = found.pipeline.flow.get(workload, ("default", "details-v1"))
    assert row is not None
    assert (row.registry_only, row.unknown) == (True, None)
