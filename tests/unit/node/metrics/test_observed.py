"""What a node tells of its proxies' counts."""

from __future__ import annotations

from tests.unit.node.metrics.test_standard import CALLER, HOST, OWN, counted
from tulle.core.model.calls import BOUNDS, Count, Edge, added, failed, quantile, since
from tulle.node.metrics.families import Family, Histogram, Sample
from tulle.node.metrics.observed import news, observed

SAID = {"peer": "UID=shop/cart-7/cart/v2", "principal": CALLER, "service": HOST, "code": "200", "flags": "-", "grpc": "-"}
EDGE = Edge(
    reporter="destination",
    source="shop/cart-7",
    source_app="cart",
    source_version="v2",
    destination="default/reviews-v1",
    destination_app="reviews",
    destination_version="v1",
    service=HOST,
    code="200",
    principal=CALLER,
    mutual=True,
)


def test_requests_and_their_times() -> None:
    """Broken: counts and times of one kind of call would not come together."""
    buckets = tuple((bound * 1000, 2.0 if bound >= 5 else 0.0) for bound in BOUNDS)
    found = observed([counted("destination_duration", Histogram(buckets, 2, 8000.0), **SAID)], OWN)
    assert found == {EDGE: Count(2, 8.0, (0, 0, *(2 for _ in BOUNDS[2:])))}


def test_who_calls_in_plaintext() -> None:
    """Broken: nobody would be told whom strict mutual TLS would shut out."""
    plain = Family(
        "envoy_mesh_destination_plaintext", "counter", [Sample({"service": HOST, "kind": "tcp", "address": "10.0.0.9"}, 4.0)]
    )
    found = observed([plain], OWN)
    ((edge, count),) = found.items()
    assert (edge.reporter, edge.address, edge.protocol, edge.mutual, edge.service) == (
        "plaintext",
        "10.0.0.9",
        "tcp",
        False,
        HOST,
    )
    assert count.calls == 4


def test_what_is_new() -> None:
    """Broken: calls would be told twice, or a proxy that began anew take back what it had counted."""
    before, now = {EDGE: Count(5, 50.0, (1, 5))}, {EDGE: Count(7, 80.0, (1, 7))}
    assert news(before, now) == ((EDGE, Count(2, 30.0, (0, 2))),)
    assert news(now, now) == ()
    assert news(now, {EDGE: Count(1, 9.0, (0, 1))}) == ((EDGE, Count(1, 9.0, (0, 1))),)
    assert since(None, Count(1)) == Count(1)
    assert added(Count(1, 1.0, (1,)), Count(2, 2.0, (1, 2))) == Count(3, 3.0, (2, 2))


def test_quantiles() -> None:
    """Broken: latency would be off by a bucket, or a service without calls have one."""
    assert quantile(Count(), 0.5) is None
    count = Count(100, 0.0, (0, 50, 100))
    assert quantile(count, 0.5) == 1
    assert quantile(count, 0.75) == 3
    assert quantile(Count(10, 0.0, (0,) * 15 + (10,)), 0.99) is not None


def test_what_counts_as_failed() -> None:
    """Broken: a caller's mistake would turn a service red, or a lost one leave it green."""
    for edge, expected in (
        (Edge("source", code="200"), False),
        (Edge("source", code="404"), False),
        (Edge("source", code="503"), True),
        (Edge("source", code="0"), True),
        (Edge("source", protocol="grpc", code="200", grpc="5"), False),
        (Edge("source", protocol="grpc", code="200", grpc="14"), True),
        (Edge("source", protocol="tcp"), False),
        (Edge("source", protocol="tcp", flags="UF"), True),
    ):
        assert failed(edge) is expected, edge
