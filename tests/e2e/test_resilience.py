"""Instances that fail, are too busy, or stand far away: what a caller's sidecar does about them, seen in real traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.mesh import Mesh
from tests.support.web import INSTANCES, Web


@pytest.fixture(scope="module")
def web(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    found = Web(mesh, tmp_path_factory.mktemp("web"))
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def clean(web: Web) -> Iterator[None]:
    """Each test leaves neither a rule nor a failing instance."""
    yield
    for name in INSTANCES:
        web.fail(name, fails=False)
    web.mesh.tulle("delete", "destinationrule", "web", check=False)
    web.mesh.synced()
    assert "NACK" not in web.mesh.tulle("proxy", "status").out


def test_a_full_destination_sheds_load(web: Web) -> None:
    """Broken: a bound of requests would not be kept, and a slow service be drowned in them."""
    assert {status for status, *_ in web.ask(12, "/slow", parallel=12)} == {200}
    web.apply(
        "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRetries: 1}}"
    )
    statuses = Counter(status for status, *_ in web.ask(12, "/slow", parallel=12))
    assert statuses[503] >= 6, statuses
    assert statuses[200] >= 2, statuses


def test_a_failing_instance_is_left_out(web: Web) -> None:
    """Broken: a third of all requests would fail for as long as one instance does."""
    web.fail("us-1")
    assert Counter(status for status, *_ in web.ask(60))[500] >= 5
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
        loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}
    """)
    web.ask(30)
    statuses = Counter(status for status, *_ in web.ask(60))
    assert statuses == {200: 60}, statuses


@pytest.mark.parametrize("algorithm", ["ringHash: {minimumRingSize: 1024}", "maglev: {}"])
def test_a_client_stays_with_an_instance(web: Web, algorithm: str) -> None:
    """Broken: a client's session would be spread over all instances, or all clients be sent to one."""
    web.apply(f"loadBalancer: {{consistentHash: {{httpHeaderName: x-user, {algorithm}}}}}")
    users = [web.names(10, {"x-user": f"user {number}"}) for number in range(8)]
    assert all(len(names) == 1 for names in users), users
    assert len({next(iter(names)) for names in users}) > 1, users


def test_a_client_is_given_its_cookie(web: Web) -> None:
    """Broken: a client without the cookie would get none, and land elsewhere each time."""
    web.apply("loadBalancer: {consistentHash: {httpCookie: {name: stay, path: /, ttl: 1h}}}")
    ((status, name, cookie),) = web.ask(1)
    assert (status, cookie.partition("=")[0]) == (200, "stay")
    assert web.names(20, {"cookie": cookie.partition(";")[0]}) == {name: 20}


def test_failover_between_zones_and_regions(web: Web) -> None:
    """Broken: callers would go far away while there is something near, or stay with what has failed."""
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
    """)
    assert web.names(30) == {"north-1": 30}
    web.fail("north-1")
    web.until(lambda: web.names(30) == {"south-1": 30}, "the next zone takes all")
    web.fail("south-1")
    web.until(lambda: web.names(30) == {"us-1": 30}, "the next region takes all")


def test_an_explicit_geographic_rule(web: Web) -> None:
    """Broken: callers of one region would not go where a rule sends them."""
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/north, to: {"us/*": 100}}]}}')
    assert web.names(30) == {"us-1": 30}
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {"eu/north": 50, "eu/south": 50}}]}}')
    names = web.names(60)
    assert set(names) == {"north-1", "south-1"}, names
    assert min(names.values()) > 15, names


@pytest.mark.parametrize(
    "policy",
    [
        "connectionPool: {http: {useClientProtocol: true}}",
        "connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE, maxRequestsPerConnection: 2}}",
        "connectionPool: {http: {h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 1s, timeout: 1s}}}",
        "connectionPool: {tcp: {tcpKeepalive: {time: 5s, interval: 1s}, maxConnectionDuration: 1s, idleTimeout: 1s}}",
        "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 50}}\nretryBudget: {percent: 50}",
        "tls: {mode: ISTIO_MUTUAL, sni: web.example}",
    ],
)
def test_other_settings_let_requests_through(web: Web, policy: str) -> None:
    """Broken: sidecars would no longer understand each other under a setting that is only to tune them."""
    web.apply(policy)
    statuses = Counter(status for status, *_ in web.ask(30))
    assert statuses == {200: 30}, statuses
