"""Requests as Envoy tells them while somebody looks: what of them is shown, and how much."""

from __future__ import annotations

from typing import Any

from tulle.core.envoy.tap import LEAST, SHARE
from tulle.core.model.looks import Look, Wanted
from tulle.node.logs.requests import read
from tulle.node.logs.tap import BUDGET, Tap
from tulle.pb import message_class


def entry(status: int = 200, path: str = "/") -> Any:
    made = message_class("envoy.data.accesslog.v3.HTTPAccessLogEntry")()
    made.response.response_code.value = status  # type: ignore[attr-defined]
    made.request.path = path  # type: ignore[attr-defined]
    return made


def test_what_is_shown_of_a_request() -> None:
    """Broken: a token in a query would stand on somebody's screen; or nobody could tell who called, where it went, what came."""
    found = message_class("envoy.data.accesslog.v3.HTTPAccessLogEntry")()
    assert isinstance(found, object)
    message: Any = found
    common, request, response = message.common_properties, message.request, message.response
    common.start_time.seconds, common.duration.nanos = 1000, 1_500_000
    common.tls_properties.peer_certificate_properties.subject_alt_name.add(uri="spiffe://cluster.local/ns/d/sa/curl")
    common.downstream_direct_remote_address.socket_address.address = "10.1.0.5"
    common.upstream_cluster = "inbound|9080||"
    common.upstream_remote_address.socket_address.address = "127.0.0.1"
    common.upstream_remote_address.socket_address.port_value = 9080
    common.response_flags.upstream_connection_failure = True
    common.response_flags.unauthorized_details.reason = 1
    request.request_method, request.authority, request.path = 1, "shop:9080", "/items?token=secret"
    request.request_headers["accept"] = "*/*"
    response.response_code.value, response.response_code_details = 503, "via_upstream"
    message.protocol_version = 2
    shown = read(message)
    assert (shown.time, shown.milliseconds, shown.status, shown.protocol) == (1000.0, 1.5, 503, "HTTP/1.1")
    assert (shown.method, shown.authority, shown.path) == ("GET", "shop:9080", "/items")
    assert (shown.caller, shown.address, shown.upstream) == ("spiffe://cluster.local/ns/d/sa/curl", "10.1.0.5", "127.0.0.1:9080")
    assert set(shown.flags) == {"UF", "UAEX"}
    assert shown.headers == {"accept": "*/*"}


def test_nothing_is_told_while_nobody_looks() -> None:
    """Broken: every request would cost something for ever after the first look."""
    tap = Tap(lambda: 0.0)
    assert not tap.runtime.values
    first = tap.begin(Look("a", "d/w", "tap"))
    second = tap.begin(Look("b", "d/w", "tap", Wanted(statuses=((500, 599),))))
    assert tap.runtime.values[LEAST] == 0
    tap.end(first)
    assert tap.runtime.values[LEAST] == 500
    tap.end(second)
    assert not tap.runtime.values


def test_each_sees_what_he_asked_for() -> None:
    """Broken: one who looks for errors would be shown what another one looks at."""
    tap = Tap(lambda: 0.0)
    everything = tap.begin(Look("a", "d/w", "tap"))
    errors = tap.begin(Look("b", "d/w", "tap", Wanted(statuses=((500, 599),), path="/shop")))
    tap.told([entry(200), entry(500), entry(503, "/shop/1")])
    assert [one.status for one in everything.take()] == [200, 500, 503]
    assert [one.status for one in errors.take()] == [503]
    assert not errors.take()


def test_more_than_can_be_shown() -> None:
    """Broken: looking at a busy service would take a core of the node's, and memory without end for one who does not read."""
    now = 0.0
    tap = Tap(lambda: now)
    viewer = tap.begin(Look("a", "d/w", "tap"))
    for _ in range(20):  # 20 seconds of 100,000 requests a second, of which Envoy tells the share that it is told to
        count = int(100_000 * tap.share)
        tap.told([entry()] * count)
        now += 1.0
    assert 0.3 * BUDGET <= 100_000 * tap.share <= 1.5 * BUDGET
    assert tap.runtime.values[SHARE] == round(tap.share * 1_000_000)
    assert len(viewer.waiting) <= 1000
    assert viewer.left_out > 0
    for _ in range(20):  # it calms down
        now += 1.0
        tap.told([entry()])
    assert tap.share == 1
