"""docs/tasks/defaults.md beside what is made where nobody configures anything: each line of its table, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf.message import Message

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.client.node_api import DRAIN
from tulle.core import type_urls
from tulle.core.envoy.speaking import HTTP2, OPTIONS
from tulle.core.model.route import DEFAULT_RETRY
from tulle.node.registration import SPREAD
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from tulle.pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "defaults.md"
REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"
OWN = "inbound|9080||"

M = TypeVar("M", bound=Message)
_OFF = (1 << 32) - 1


def stated() -> dict[str, str]:
    """The table of the page: what → its default, in words."""
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {row[0].strip(): row[1].strip() for row in rows[1:]}


class Made:
    """What proxies are sent of services that nobody says anything of; one instance of `reviews` is not ready."""

    def __init__(self) -> None:
        db = service("db", ports=({"port": 3306, "name": "tcp"},), address="240.240.0.9")
        starting = entry("reviews-v9", "10.0.0.99", {"app": "reviews"}, ready="false")
        self.mesh = Mesh([*bookinfo(), db, entry("db", "10.0.0.90", {"app": "db"}), starting])

    def of(self, message: type[M], type_url: str, name: str, proxy: str = "default/curl") -> M:
        """A resource as a proxy has it."""
        tables = [self.mesh.pipeline.table(layer, type_url) for layer in self.mesh.pipeline.layers(proxy)]
        return message.FromString(next(table[name].value for table in reversed(tables) if name in table))

    @property
    def cluster(self) -> cluster_pb2.Cluster:
        return self.of(cluster_pb2.Cluster, type_urls.CLUSTER, REVIEWS)

    @property
    def endpoints(self) -> endpoint_pb2.ClusterLoadAssignment:
        return self.of(endpoint_pb2.ClusterLoadAssignment, type_urls.ENDPOINT, REVIEWS)

    @property
    def routes(self) -> list[route_components_pb2.Route]:
        """For reading methods, and for all."""
        name = "9080.default/reviews.default.svc.cluster.local:9080"
        found = self.of(route_components_pb2.VirtualHost, type_urls.VIRTUAL_HOST, name).routes
        return [one for one in found if not one.match.HasField("connect_matcher")]

    @property
    def carried(self) -> tcp_proxy_pb2.TcpProxy:
        """What carries the bytes of connections to `db`."""
        listener = self.of(listener_pb2.Listener, type_urls.LISTENER, "240.240.0.9_3306")
        return tcp_proxy_pb2.TcpProxy.FromString(listener.filter_chains[0].filters[-1].typed_config.value)


def mutual_tls(made: Made) -> tuple[bool, str]:
    inbound = made.of(listener_pb2.Listener, type_urls.LISTENER, "virtualInbound", "default/reviews-v1")
    plain = [chain for chain in inbound.filter_chains if not chain.HasField("transport_socket")]
    secured = [chain for chain in inbound.filter_chains if chain.HasField("transport_socket")]
    matches = made.cluster.transport_socket.name or made.cluster.transport_socket_matches[0].transport_socket.name
    return bool(plain and secured) and matches == "envoy.transport_sockets.tls", "plain text is taken too"


def balanced(made: Made) -> tuple[bool, str]:
    drawn = made.cluster.least_request_lb_config.choice_count.value or 2  # Envoy's
    return made.cluster.lb_policy == cluster_pb2.Cluster.LEAST_REQUEST and drawn == 2, "of two random ones"


def retries(made: Made) -> tuple[bool, str]:
    reading, all_of_them = (one.route.retry_policy for one in made.routes)
    conditions = set(reading.retry_on.split(",")) - set(all_of_them.retry_on.split(","))
    safe = made.routes[0].match.headers[-1].string_match.safe_regex.regex == "GET|HEAD|OPTIONS"
    never = {"5xx", "gateway-error", "reset"} & set(DEFAULT_RETRY.on)
    held = safe and conditions == {"reset"} and not never and reading.num_retries == all_of_them.num_retries
    return held, f"{all_of_them.num_retries.value} more tries"


def pauses(made: Made) -> tuple[bool, str]:
    return not made.routes[0].route.retry_policy.HasField("retry_back_off"), "up to 25 ms at first"  # Envoy's


def connections(made: Made) -> tuple[bool, str]:
    tries = made.carried.max_connect_attempts.value - 1
    words = {4: "four"}
    pause = made.carried.backoff_options  # as much at most; half of it as a rule
    longest = sum(min(pause.base_interval.ToMilliseconds() * 2**n, pause.max_interval.ToMilliseconds()) for n in range(tries))
    return 150 <= longest / 2 <= 250, f"up to {words[tries]} times"


def request_timeout(made: Made) -> tuple[bool, str]:
    return all(one.route.timeout.ToSeconds() == 0 and one.route.HasField("timeout") for one in made.routes), "none"


def connect_timeout(made: Made) -> tuple[bool, str]:
    return True, f"{made.cluster.connect_timeout.ToSeconds()} s"


def breakers(made: Made) -> tuple[bool, str]:
    (most,) = made.cluster.circuit_breakers.thresholds
    bounds = (most.max_connections, most.max_pending_requests, most.max_requests, most.max_retries)
    return {one.value for one in bounds} == {_OFF}, "none"


def outliers(made: Made) -> tuple[bool, str]:
    return not made.cluster.HasField("outlier_detection"), "none"


def news(made: Made) -> tuple[bool, str]:
    window = made.cluster.common_lb_config
    return window.HasField("update_merge_window") and window.update_merge_window.ToNanoseconds() == 0, "at once"


def ejected(made: Made) -> tuple[bool, str]:
    spec = {"host": "reviews", "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 3}}}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "out"}, "spec": spec}
    made.mesh.apply([obj(rule)])
    outlier = made.cluster.outlier_detection
    made.mesh.delete([obj(rule)])
    most = outlier.max_ejection_percent.value or 10  # Envoy's
    return outlier.always_eject_one_host.value, f"{most}% of the instances"


def panic(made: Made) -> tuple[bool, str]:
    share = made.cluster.common_lb_config
    return share.HasField("healthy_panic_threshold"), f"{share.healthy_panic_threshold.value:g}%"


def readiness(made: Made) -> tuple[bool, str]:
    asked = {
        one.endpoint.address.socket_address.address
        for place in made.endpoints.endpoints
        for one in place.lb_endpoints
        if one.health_status in (0, 1)
    }
    return "10.0.0.99" not in asked and len(asked) == 3, "every declared port"


def warm_up(made: Made) -> tuple[bool, str]:
    return not made.cluster.least_request_lb_config.HasField("slow_start_config"), "none"


def near(made: Made) -> tuple[bool, str]:
    return {place.priority for place in made.endpoints.endpoints} == {0}, "no;"


def between(made: Made) -> tuple[bool, str]:
    return made.cluster.typed_extension_protocol_options[OPTIONS] == HTTP2, "HTTP/2"


def to_applications(made: Made) -> tuple[bool, str]:
    own = made.of(cluster_pb2.Cluster, type_urls.CLUSTER, OWN, "default/reviews-v1")
    return OPTIONS not in own.typed_extension_protocol_options, "as its port declares"  # HTTP/1: its port's name is `http`


def idle(made: Made) -> tuple[bool, str]:
    options = http_protocol_options_pb2.HttpProtocolOptions.FromString(
        made.cluster.typed_extension_protocol_options[OPTIONS].value
    )
    return not options.common_http_protocol_options.HasField("idle_timeout"), "1 h"  # Envoy's


def drain(made: Made) -> tuple[bool, str]:
    return f"at most {SPREAD:g} s" in stated()["Drain"], f"{DRAIN:g} s before the application"


FACTS: dict[str, Callable[[Made], tuple[bool, str]]] = {
    "Mutual TLS": mutual_tls,
    "Choice of an instance": balanced,
    "Retries": retries,
    "Pause between tries": pauses,
    "Connections (TCP, TLS)": connections,
    "Request timeout": request_timeout,
    "Connect timeout": connect_timeout,
    "Circuit breakers": breakers,
    "Outlier detection": outliers,
    "News of an instance's health": news,
    "Ejected at most": ejected,
    "Panic threshold": panic,
    "Readiness": readiness,
    "Warm-up": warm_up,
    "Near instances first": near,
    "HTTP between sidecars": between,
    "HTTP to an application": to_applications,
    "Idle HTTP connections to instances": idle,
    "Drain": drain,
}


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


def test_every_line_is_held_to_the_code() -> None:
    """Broken: somebody adds a default to the page that nobody looks at again."""
    assert list(stated()) == list(FACTS)


@pytest.mark.parametrize("what", FACTS)
def test_the_page_is_right(made: Made, what: str) -> None:
    """Broken: people who configure nothing get something else than they are told."""
    holds, words = FACTS[what](made)
    assert holds
    assert words in stated()[what]
