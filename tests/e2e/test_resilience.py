"""Instances that fail, are too busy, or stand far away: what a caller's sidecar does about them, seen in real traffic."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.mesh import Mesh, free_port
from tests.support.web import INSTANCES, Web

RULE = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n"


def answers(web: Web, count: int, path: str = "/") -> Counter[tuple[int, str]]:
    """What so many requests were answered, and by whom."""
    return Counter((status, body) for status, body, _cookie in web.ask(count, path))


def lost(web: Web) -> Iterator[tuple[str, str, float]]:
    """What got lost: by which instance, of which path, and when."""
    for name in INSTANCES:
        record = web.folder / name / "lost.txt"
        for line in record.read_text().splitlines() if record.exists() else ():
            words = line.split()
            yield name, words[1], float(words[-1])


@contextmanager
def losing(web: Web, *names: str) -> Iterator[None]:
    """Instances that lose whatever is for `/lost`."""
    for name in names:
        (web.folder / name / "lose").touch()
    try:
        yield
    finally:
        for name in names:
            (web.folder / name / "lose").unlink()


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


def test_a_full_destination_sheds_load(web: Web) -> None:
    """Broken: a bound of requests would not be kept, and a slow service be drowned in them."""
    assert {status for status, *_ in web.ask(12, "/slow", parallel=12)} == {200}
    web.apply(
        "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRetries: 1}}"
    )
    statuses = Counter(status for status, *_ in web.ask(12, "/slower", parallel=12))
    assert statuses[503] >= 6, statuses
    assert statuses[200] >= 2, statuses


@pytest.mark.parametrize(
    "detected",
    [
        {"failurePercentage": {"threshold": 50, "minimumHosts": 3, "requestVolume": 3}},
        {"successRate": {"stdevFactor": 0.5, "minimumHosts": 3, "requestVolume": 3}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_who_fails_too_often_is_left_out(web: Web, detected: dict[str, object]) -> None:
    """Broken: an instance that fails now and then, and never so many times in a row, would go on failing requests."""
    web.fail("us-1")
    policy = "outlierDetection: {consecutive5xxErrors: 0, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 50}"
    web.apply(policy, outlier_detection=detected)
    web.until(lambda: {status for status, *_ in web.ask(40)} == {200}, "the failing instance is out")
    assert "us-1" not in web.names(40)


def test_an_instance_that_says_it_is_not_well(web: Web) -> None:
    """Broken: what an endpoint answers to a health check would not decide whether it gets requests."""
    web.fail("us-1")
    web.apply(
        "loadBalancer: {simple: ROUND_ROBIN}",
        health_check={"path": "/healthz", "port": 8000, "interval": "0.5s", "unhealthyThreshold": 1},
    )
    web.until(lambda: {status for status, *_ in web.ask(30)} == {200}, "nobody asks the one that is not well")
    assert web.names(30).keys() == {"north-1", "south-1"}
    web.fail("us-1", fails=False)
    web.until(lambda: "us-1" in web.names(30), "it is well again")


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


def test_what_got_lost_is_repeated_where_that_is_safe(web: Web) -> None:
    """Broken: readers would see an instance die, orders be given twice, or a rule that says otherwise count for nothing."""
    for name in ("north-1", "us-1"):
        (web.folder / name / "lose").touch()

    def lost(path: str, method: str, headers: dict[str, str] | None = None) -> tuple[Counter[int], list[str]]:
        """What 12 requests were answered, and what of them was lost, by instance."""
        statuses = Counter(status for status, *_ in web.ask(12, f"/lost/{path}", headers=headers, method=method))
        records = [(web.folder / name / "lost.txt").read_text().splitlines() for name in ("north-1", "us-1")]
        return statuses, [line for lines in records for line in lines if f"/lost/{path} " in line]

    try:
        for method in ("GET", "HEAD", "OPTIONS"):
            assert lost(method, method)[0] == {200: 12}
        statuses, records = lost("order", "POST", {"x-envoy-retry-on": "gateway-error"})
        assert statuses[503] == len(records) > 0, "given once, whether there was an answer or not"
        assert not [line for line in records if "x-envoy-retry-on" in line]
        web.apply("retryBudget: {percent: 1, minRetryConcurrency: 1}")
        assert {status for status, *_ in web.ask(36, "/lost/budget", parallel=12)} == {200, 503}, "one retry at a time"
        web.rule("retries: {attempts: 2, retryOn: connect-failure}")
        statuses, records = lost("ruled", "GET")
        assert statuses[503] == len(records) > 0, "the rule does not repeat them"
        web.mesh.tulle("delete", "destinationrule", "web")
        web.rule("retries: {attempts: 2, retryOn: reset}")
        assert lost("all", "POST")[0] == {200: 12}, "the rule repeats them all"
    finally:
        web.mesh.tulle("delete", "virtualservice", "web", check=False)
        for name in ("north-1", "us-1"):
            (web.folder / name / "lose").unlink()


def test_the_busy_one_is_found_among_those_that_lost_it(web: Web) -> None:
    """Broken: with most instances lost, requests would fail because the good one has more to do than the dead ones."""
    with losing(web, "north-1", "us-1"):
        statuses = Counter(status for status, *_ in web.ask(150, "/lost/slow", parallel=50))
    assert statuses == {200: 150}


def test_a_retry_waits_longer_each_time(web: Web) -> None:
    """Broken: all callers would come back to a service in trouble at once, or wait for minutes in the end.

    Envoy draws each pause at random: from nothing to the base, twice the base, four times, and so on up to ten times the base.
    Eight of them with a base of 100 ms are 2.75 s in the mean; with Envoy's own base they would be 0.7 s, without a bound 13 s.
    With an annotation that bounds them by the base they are 0.4 s.
    """

    def waits(called: str) -> float:
        """Seconds from the first to the last try, the mean of 30 requests."""
        with losing(web, *INSTANCES):
            statuses = Counter(status for status, *_ in web.ask(30, f"/lost/{called}/*", parallel=30))
        assert statuses == {503: 30}
        tries: dict[str, list[float]] = {}
        for _name, path, when in lost(web):
            if path.startswith(f"/lost/{called}/"):
                tries.setdefault(path, []).append(when)
        assert [len(times) for times in tries.values()] == [9] * 30
        return sum(max(times) - min(times) for times in tries.values()) / 30

    web.rule("retries: {attempts: 8, retryOn: reset, backoff: 100ms}")
    try:
        mean = waits("pause")
        assert 1.7 < mean < 8
        web.mesh.kubectl("annotate", "virtualservice", "web", "tulle.dev/retry-backoff-max=100ms")
        web.mesh.synced()
        assert waits("short") < mean / 2
    finally:
        web.mesh.tulle("delete", "virtualservice", "web")


def test_a_retry_goes_back_where_a_rule_allows_it(web: Web) -> None:
    """Broken: with `retryIgnorePreviousHosts: false` clients that belong to an instance would be sent to others, or without it to
    the one that has just failed them."""
    web.apply("loadBalancer: {consistentHash: {httpHeaderName: x-user}}")
    kate = {"x-user": "kate"}
    (home,) = web.names(5, kate)
    try:
        with losing(web, home):
            web.rule("retries: {attempts: 2, retryOn: reset}")
            assert Counter(status for status, *_ in web.ask(10, "/lost/elsewhere", headers=kate)) == {200: 10}
            web.rule("retries: {attempts: 2, retryOn: reset, retryIgnorePreviousHosts: false}")
            assert Counter(status for status, *_ in web.ask(10, "/lost/again", headers=kate)) == {503: 10}
        places = Counter((name, path) for name, path, _when in lost(web))
        assert places[home, "/lost/elsewhere"] == 10
        assert places[home, "/lost/again"] == 30
    finally:
        web.mesh.tulle("delete", "virtualservice", "web")


FAR = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far}}
spec:
  hosts: [far.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{name: one, number: 8000, protocol: {protocol}}}]
  endpoints: [{{address: {here}, ports: {{one: {port}}}}}, {{address: {here}, ports: {{one: {nobody}}}}}]
"""

ONCE = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: far}}
spec: {{hosts: [far.example], http: [{{route: [{{destination: {{host: far.example}}}}], retries: {{attempts: 0}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: far}}
spec:
  host: far.example
  trafficPolicy:
    outlierDetection: {{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: {failures}, consecutive5xxErrors: 0,
                       baseEjectionTime: 60s, maxEjectionPercent: 100}}
"""


class Far:
    """A service outside the mesh of two addresses, at one of which nobody listens."""

    def __init__(self, web: Web, folder: Path) -> None:
        (folder / "empty").touch()
        here = web.mesh.inside("sh", "-c", "ip route show default | cut -d' ' -f3", workload="caller").out.strip()
        self.web, self.server = web, ThreadingHTTPServer((here, 0), partial(SimpleHTTPRequestHandler, directory=folder))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.places = {"here": here, "port": self.server.server_address[1], "nobody": free_port()}

    def apply(self, objects: str, **values: object) -> None:
        self.web.mesh.tulle("apply", "-f", "-", stdin=objects.format(**self.places, **values))
        self.web.mesh.synced()

    def ask(self, count: int) -> Counter[int]:
        return Counter(status for status, *_ in self.web.ask(count, "/empty", host="far.example"))

    def close(self) -> None:
        for kind in ("destinationrule", "virtualservice", "serviceentry"):
            self.web.mesh.tulle("delete", kind, "far", check=False)
        self.web.mesh.synced()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def far(web: Web, tmp_path: Path) -> Iterator[Far]:
    made = Far(web, tmp_path)
    yield made
    made.close()


def test_who_cannot_be_reached_is_left_out(far: Far) -> None:
    """Broken: a caller would try an address at which nobody listens again and again, or leave it out where no rule says so."""
    far.apply(FAR + ONCE, protocol="HTTP", failures=0)
    assert far.ask(60)[503] >= 10
    far.apply(FAR + ONCE, protocol="HTTP", failures=2)
    assert far.ask(20)[503] >= 2
    assert set(far.ask(60)) == {200}


def test_a_connection_is_made_elsewhere(far: Far) -> None:
    """Broken: of a service of bytes half of the connections would fail for as long as one of two instances is dead and listed."""
    far.apply(FAR, protocol="TCP")
    statuses = far.ask(100)  # at each of five tries one of two, at random: 3 of 100 fail by nature
    assert statuses[200] > 85, statuses


def test_a_new_instance_is_given_more_and_more(web: Web) -> None:
    """Broken: an instance that has just started would be given its whole share at once, cold as it is."""
    web.apply("loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 60s, minimumPercent: 1}}")
    fair = 400 / (len(INSTANCES) + 1)
    web.start("cold")
    try:
        web.until(lambda: "cold" in web.names(200), "it is given something")
        share = web.names(400)["cold"]
        assert 0 < share < 0.75 * fair
    finally:
        web.end("cold")


def test_too_few_healthy_instances_are_not_left_with_all(web: Web) -> None:
    """Broken: the last healthy instances would be given all requests of those that were left out, and fail as well."""
    web.fail("us-1")
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 60s, maxEjectionPercent: 100, minHealthPercent: 90}
        loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}
    """)
    web.ask(20)
    assert answers(web, 60)[500, "us-1"] >= 10, "below the minimum, all instances share the requests"


def test_a_copy_never_touches_the_caller(web: Web) -> None:
    """Broken: callers would wait for whoever gets copies of their requests, or see it fail."""
    subsets = "".join(f"  - {{name: {name}, labels: {{version: {name}}}}}\n" for name in INSTANCES)
    web.mesh.tulle("apply", "-f", "-", stdin=f"{RULE}  subsets:\n{subsets}")
    web.rule("mirrors: [{destination: {host: web, subset: us-1}}]", subset="north-1")
    copies = web.folder / "us-1"
    try:
        (copies / "lose").touch()
        assert answers(web, 20, "/lost/copied") == {(200, "north-1"): 20}
        assert "/lost/copied " in (copies / "lost.txt").read_text()
        (copies / "stuck").touch()
        assert answers(web, 20) == {(200, "north-1"): 20}
    finally:
        for name in ("lose", "stuck"):
            (copies / name).unlink(missing_ok=True)
        web.mesh.tulle("delete", "virtualservice", "web", check=False)


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
    assert answers(web, 30) == {(200, "north-1"): 30}
    web.fail("north-1")
    web.ask(10)
    assert answers(web, 30) == {(200, "south-1"): 30}, "the next zone"
    web.fail("south-1")
    web.ask(10)
    assert answers(web, 30) == {(200, "us-1"): 30}, "the next region"


def test_what_fails_just_after_a_change_is_left_out_at_once(web: Web) -> None:
    """Broken: for a second after each change of endpoints no failing instance would be left out."""
    web.fail("north-1")
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
    """)
    statuses = Counter(status for status, *_ in web.ask(400))
    assert 0 < statuses[500] < 100, statuses


def test_an_explicit_geographic_rule(web: Web) -> None:
    """Broken: callers of one region would not go where a rule sends them."""
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/north, to: {"us/*": 100}}]}}')
    assert web.names(30) == {"us-1": 30}
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {"eu/north": 50, "eu/south": 50}}]}}')
    names = web.names(60)
    assert set(names) == {"north-1", "south-1"}, names
    assert min(names.values()) > 15, names


def test_each_zone_gets_its_part(web: Web) -> None:
    """Broken: with more callers than instances in a zone these would be given too much, or callers leave their region."""
    web.apply("loadBalancer: {simple: ROUND_ROBIN, zoneAwareLbSetting: {enabled: true, minClusterSize: 2}}")
    seen = answers(web, 200)
    assert set(seen) == {(200, "north-1"), (200, "south-1")}, seen
    assert 20 < seen[200, "south-1"] < 80, "the north has two of three proxies and one of two instances: a quarter goes south"


def test_some_callers_prefer_other_places(web: Web) -> None:
    """Broken: where some callers are to go would hold for all of them, or for none."""
    some = "  workloadSelector: {matchLabels: {app: caller}}\n  trafficPolicy:\n    loadBalancer:\n"
    web.mesh.tulle("apply", "-f", "-", stdin=f'{RULE}{some}      localityLbSetting: {{failoverPriority: ["version=us-1"]}}\n')
    web.mesh.synced()
    assert web.names(30) == {"us-1": 30}
    assert set(web.mesh.inside("curl", "-sS", "http://web:8000/[1-30]", "-w", "\n").out.split()) == set(INSTANCES)


def test_who_reports_less_load_is_given_more(web: Web) -> None:
    """Broken: an instance that says that it can take no more would be given as much as one that has nothing to do."""
    loads = {"north-1": 0.9, "south-1": 0.1, "us-1": 0.9}
    for name, load in loads.items():
        (web.folder / name / "load").write_text(f"TEXT cpu_utilization={load},rps_fractional=10")
    try:
        web.apply("""
            loadBalancer:
              backendUtilization: {weightStabilizationPeriod: 1s, weightUpdatePeriod: 1s}
              localityLbSetting: {enabled: false}
        """)
        web.until(lambda: web.names(60)["south-1"] > 35, "nine of eleven requests are for it")
    finally:
        for name in loads:
            (web.folder / name / "load").unlink()


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
