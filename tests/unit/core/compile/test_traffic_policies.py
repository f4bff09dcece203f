"""DestinationRule's traffic policies: how parts are inherited, and what each field becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.envoy import validate
from tests.unit.core.compile.mesh import Mesh, bookinfo, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.callers import ANYBODY
from tulle.core.compile.destinations import carriage, destination
from tulle.core.envoy.clusters import encode_cluster
from tulle.core.model.destination import Destination, Transport
from tulle.core.model.tcp_route import Carriage, Tunnel
from tulle.core.model.traffic import (
    Connections,
    Cookie,
    Hash,
    Keepalive,
    LoadBalancer,
    Outlier,
    ProxyProtocol,
    Requests,
    Upgrade,
    Warmup,
)
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def rule(policy: dict[str, Any], *subsets: dict[str, Any]) -> Object:
    spec = {"host": "reviews", "trafficPolicy": policy, "subsets": list(subsets)}
    metadata = {"name": "reviews", "namespace": "default"}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec})


def how(mesh: Mesh, policy: dict[str, Any], *subsets: dict[str, Any], subset: str = "") -> Destination:
    mesh.apply([rule(policy, *subsets)])
    assert mesh.problems() == []
    row = mesh.pipeline.flow.get(destination, (("default", "reviews"), 9080, subset))
    assert row
    return row


def v1(policy: dict[str, Any]) -> dict[str, Any]:
    return {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy}


def test_a_subset_inherits_parts_whole(mesh: Mesh) -> None:
    """Broken: a subset's connection pool would be mixed with its rule's, against Istio's rule."""
    whole = {
        "connectionPool": {"tcp": {"maxConnections": 5}},
        "outlierDetection": {"consecutive5xxErrors": 3},
        "loadBalancer": {"simple": "RANDOM"},
    }
    row = how(mesh, whole, v1({"connectionPool": {"http": {"maxRetries": 2}}}), subset="v1")
    assert (row.connections, row.requests) == (Connections(), Requests(max_retries=2))
    assert (row.outlier, row.load_balancer) == (Outlier(errors=3), LoadBalancer.RANDOM)


def test_a_ports_settings_leave_nothing_to_inherit(mesh: Mesh) -> None:
    """Broken: one port would be held to what was said for the others, against Istio's rule."""
    port = {"port": {"number": 9080}, "loadBalancer": {"simple": "ROUND_ROBIN"}}
    whole = {
        "connectionPool": {"tcp": {"maxConnections": 5}},
        "outlierDetection": {"consecutive5xxErrors": 3},
        "proxyProtocol": {"version": "V2"},
        "portLevelSettings": [port],
    }
    row = how(mesh, whole)
    assert (row.connections, row.outlier, row.load_balancer) == (Connections(), None, LoadBalancer.ROUND_ROBIN)
    assert row.proxy_protocol is ProxyProtocol.V2
    # A subset inherits what its rule says for this port, and its own settings for the port come last.
    row = how(mesh, whole, v1({"connectionPool": {"tcp": {"maxConnections": 7}}}), subset="v1")
    assert (row.connections.maximum, row.load_balancer) == (7, LoadBalancer.ROUND_ROBIN)
    row = how(mesh, whole, v1({"portLevelSettings": [{**port, "loadBalancer": {"simple": "RANDOM"}}]}), subset="v1")
    assert (row.connections.maximum, row.load_balancer) == (0, LoadBalancer.RANDOM)


@pytest.mark.parametrize(
    ("said", "balancer", "hashed"),
    [
        ({"httpHeaderName": "x-user"}, LoadBalancer.RING_HASH, Hash(header="x-user")),
        ({"httpQueryParameterName": "q", "minimumRingSize": 9}, LoadBalancer.RING_HASH, Hash(query="q", size=9)),
        ({"useSourceIp": True, "ringHash": {"minimumRingSize": 5}}, LoadBalancer.RING_HASH, Hash(source_address=True, size=5)),
        ({"useSourceIp": False}, LoadBalancer.RING_HASH, None),
        ({"httpHeaderName": "a", "maglev": {"tableSize": 11}}, LoadBalancer.MAGLEV, Hash(header="a", size=11)),
        ({"httpHeaderName": "a", "maglev": {}}, LoadBalancer.MAGLEV, Hash(header="a")),
        ({"httpCookie": {"name": "c"}}, LoadBalancer.RING_HASH, Hash(cookie=Cookie("c"))),
        (
            {"httpCookie": {"name": "c", "path": "/p", "ttl": "0s", "attributes": [{"name": "Secure"}]}},
            LoadBalancer.RING_HASH,
            Hash(cookie=Cookie("c", "/p", 0.0, (("Secure", ""),))),
        ),
    ],
)
def test_consistent_hash(mesh: Mesh, said: dict[str, Any], balancer: LoadBalancer, hashed: Hash | None) -> None:
    """Broken: a client would not stay with its endpoint."""
    row = how(mesh, {"loadBalancer": {"consistentHash": said}})
    assert (row.load_balancer, row.hash) == (balancer, hashed)


def test_warmup(mesh: Mesh) -> None:
    """Broken: a cold instance would get its full share at once."""
    said = {"duration": "30s", "minimumPercent": 5, "aggression": 2}
    assert how(mesh, {"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": said}}).warmup == Warmup(30.0, 5.0, 2.0)
    assert how(mesh, {"loadBalancer": {"warmupDurationSecs": "10s"}}).warmup == Warmup(10.0)


def test_connection_pool(mesh: Mesh) -> None:
    """Broken: a bound of connections or requests would not be kept."""
    tcp = {
        "maxConnections": 1,
        "connectTimeout": "250ms",
        "tcpKeepalive": {"probes": 2, "time": "7200s", "interval": "0.2s"},
        "maxConnectionDuration": "1h",
        "idleTimeout": "9s",
    }
    http = {
        "http1MaxPendingRequests": 2,
        "http2MaxRequests": 3,
        "maxRequestsPerConnection": 4,
        "maxRetries": 5,
        "maxConcurrentStreams": 6,
        "h2UpgradePolicy": "UPGRADE",
        "http2KeepAlive": {"interval": "5s", "timeout": "1s"},
    }
    row = how(mesh, {"connectionPool": {"tcp": tcp, "http": http}})
    assert row.connect_timeout == 0.25
    assert row.connections == Connections(1, Keepalive(2, 7200, 1), 3600.0, 9.0, 5.0, 1.0)
    assert row.requests == Requests(3, 2, 5, 4, 6, Upgrade.HTTP2)
    assert how(mesh, {"connectionPool": {"tcp": tcp, "http": {"idleTimeout": "3s"}}}).connections.idle_timeout == 3.0


@pytest.mark.parametrize(
    ("http", "upgrade"),
    [
        ({"h2UpgradePolicy": "DO_NOT_UPGRADE"}, Upgrade.HTTP1),
        ({"h2UpgradePolicy": "DEFAULT", "maxRetries": 1}, Upgrade.DECLARED),
        ({"useClientProtocol": True}, Upgrade.AS_CALLED),
    ],
)
def test_versions_of_http(mesh: Mesh, http: dict[str, Any], upgrade: Upgrade) -> None:
    """Broken: an application that cannot do HTTP/2 would be sent it, or the other way round."""
    assert how(mesh, {"connectionPool": {"http": http}}).requests.upgrade is upgrade


def test_outlier_detection(mesh: Mesh) -> None:
    """Broken: a failing instance would stay in rotation, or a good one be left out."""
    said = {
        "consecutive5xxErrors": 0,
        "consecutiveGatewayErrors": 2,
        "consecutiveLocalOriginFailures": 3,
        "splitExternalLocalOriginErrors": True,
        "interval": "1s",
        "baseEjectionTime": "3m",
        "maxEjectionPercent": 100,
        "minHealthPercent": 40,
        "outlierDetectionHttpErrorCodes": [500, 429],
    }
    assert how(mesh, {"outlierDetection": said}).outlier == Outlier(0, 2, 3, True, 1.0, 180.0, 100, 40, (429, 500))
    assert how(mesh, {"outlierDetection": {"consecutiveErrors": 4}}).outlier == Outlier(gateway_errors=4)


def test_retry_budget(mesh: Mesh) -> None:
    """Broken: retries would pile up on a service that is already failing."""
    said = {"percent": 10, "minRetryConcurrency": 2, "budgetInterval": "1s"}
    row = how(mesh, {"retryBudget": said})
    assert row.requests == Requests(budget=10.0, budget_minimum=2, budget_interval=1.0)
    assert how(mesh, {"retryBudget": {"minRetryConcurrency": 2}}).requests.budget == 20.0


def test_mutual_tls_of_the_mesh_by_other_names(mesh: Mesh) -> None:
    """Broken: a person who narrows down who may answer would not be heard."""
    said = {"mode": "ISTIO_MUTUAL", "sni": "a.example", "subjectAltNames": ["spiffe://cluster.local/ns/default/sa/only"]}
    row = how(mesh, {"tls": said})
    assert (row.transport, row.sni) == (Transport.MTLS, "a.example")
    assert row.identities == ("spiffe://cluster.local/ns/default/sa/only",)


def carries(mesh: Mesh, port: int, subset: str = "") -> Carriage | None:
    return mesh.pipeline.flow.get(carriage, ((("default", "reviews"), port, subset), ANYBODY))


def test_how_connections_are_carried(mesh: Mesh) -> None:
    """Broken: an idle timeout of a database's connections would not be kept, or be kept at a port with settings of its own."""
    ports = ({"port": 9080, "name": "http"}, {"port": 3306, "name": "mysql"}, {"port": 6379, "name": "redis"})
    mesh.apply([service("reviews", ports=ports)])
    tcp = {"tcp": {"idleTimeout": "0s", "maxConnectionDuration": "9s"}, "http": {"idleTimeout": "3s"}}
    other = {"port": {"number": 6379}, "connectionPool": {"tcp": {"maxConnections": 1}}}
    tunnel = {"targetHost": "far.example", "targetPort": 443}
    mesh.apply(
        [
            rule(
                {"connectionPool": tcp, "portLevelSettings": [other], "tunnel": tunnel},
                v1({"tunnel": {**tunnel, "protocol": "POST"}}),
            )
        ]
    )
    assert mesh.problems() == []
    assert carries(mesh, 3306) == Carriage(idle_timeout=0.0, max_duration=9.0, tunnel=Tunnel("far.example", 443))
    assert carries(mesh, 6379) == Carriage(tunnel=Tunnel("far.example", 443))
    assert carries(mesh, 3306, "v1") == Carriage(idle_timeout=0.0, max_duration=9.0, tunnel=Tunnel("far.example", 443, post=True))


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        *(
            ({"loadBalancer": {"consistentHash": said}}, f"loadBalancer.consistentHash.{field}")
            for said, field in (
                ({"httpHeaderName": "a\nb"}, "httpHeaderName"),
                ({"httpHeaderName": ""}, "httpHeaderName"),
                ({"httpQueryParameterName": ""}, "httpQueryParameterName"),
                ({"httpCookie": {"name": ""}}, "httpCookie.name"),
                ({"httpCookie": {"name": "a", "attributes": [{"name": "b", "value": "c\r"}]}}, "httpCookie.attributes[0].value"),
            )
        ),
        ({"tls": {"mode": "ISTIO_MUTUAL", "sni": "a" * 256}}, "tls.sni"),
        ({"tls": {"mode": "SIMPLE", "sni": "a b"}}, "tls.sni"),
    ],
)
def test_names_that_envoy_refuses(mesh: Mesh, policy: dict[str, Any], field: str, tmp_path: Path) -> None:
    """Broken: one odd name would make every caller's proxy refuse the cluster, and keep an older one."""
    mesh.apply([rule(policy)])
    assert [problem.path for problem in mesh.problems()] == [f"spec.trafficPolicy.{field}"]
    assert validate([mesh.pipeline.table("mesh", type_urls.CLUSTER).values()], tmp_path) == ""


def test_keepalive_is_what_a_socket_can_have(mesh: Mesh) -> None:
    """Broken: a rule that its API allows would end the control plane's work, or no connection would be made."""
    alive = {"probes": 4294967295, "time": "2562047h", "interval": "10h"}
    row = how(mesh, {"connectionPool": {"tcp": {"tcpKeepalive": alive}}})
    sent = cluster_pb2.Cluster.FromString(encode_cluster(row).value).upstream_connection_options.tcp_keepalive
    assert [sent.keepalive_probes.value, sent.keepalive_time.value, sent.keepalive_interval.value] == [127, 32767, 32767]


def test_tunnels_that_differ_in_one_rule_are_said(mesh: Mesh) -> None:
    """Broken: connections to one destination would go through the tunnel of another, and nobody be told."""
    tunnel = {"targetHost": "far.example", "targetPort": 443}
    shares = [{"destination": {"host": "db", "subset": name}, "weight": 50} for name in ("v1", "v2")]
    spec = {"hosts": ["db"], "tcp": [{"route": shares}]}
    route = obj({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "db"}, "spec": spec})
    v2 = {"name": "v2", "labels": {"version": "v2"}}

    def of(policy: dict[str, Any]) -> Object:
        spec = {"host": "db", "trafficPolicy": policy, "subsets": [v1({"tunnel": tunnel}), v2]}
        return obj({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "db"}, "spec": spec})

    database = service("db", ports=({"port": 3306, "name": "mysql"},), selector={"app": "reviews"}, address="240.240.0.77")
    mesh.apply([database, route, of({"connectionPool": {"tcp": {"idleTimeout": "9s"}}})])
    assert [(one.path, one.reason) for one in mesh.problems()] == [("spec.tcp[0].route", "NotYetSupported")]
    mesh.apply([of({"tunnel": tunnel})])
    assert mesh.problems() == []


def test_a_tunnel_for_http_is_said_to_do_nothing(mesh: Mesh) -> None:
    """Broken: somebody would believe that his requests leave by a proxy."""
    tunnel = {"targetHost": "far.example", "targetPort": 443}
    mesh.apply([rule({"tunnel": tunnel}, v1({"tunnel": tunnel}))])
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [
        ("spec.subsets[0].trafficPolicy.tunnel", "NoTcpPort"),
        ("spec.trafficPolicy.tunnel", "NoTcpPort"),
    ]
