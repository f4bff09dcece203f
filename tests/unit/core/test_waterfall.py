"""The spans of a trace, put in order."""

from __future__ import annotations

import random

import msgspec

from tulle.core.model.spans import CLIENT, SERVER, Span, Trace
from tulle.core.waterfall import summary, trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGIN = 1_800_000_000_000_000  # µs
MINUTES = 240_000_000  # µs


def span(number: int, parent: int, service: str, kind: str, start: float, duration: float, *, failed: bool = False) -> Span:
    """`start` and `duration` in milliseconds."""
    return Span(
        trace=TRACE,
        id=f"{number:016x}",
        parent=f"{parent:016x}" if parent else "",
        workload=f"default/{service}-v1",
        service=f"default/{service}",
        kind=kind,
        name=f"GET /{service}",
        start=BEGIN + round(start * 1000),
        duration=round(duration * 1000),
        failed=failed,
    )


# What a request for a page of Bookinfo leaves.
BOOKINFO = (
    span(1, 0, "ingressgateway", CLIENT, 0, 40),
    span(2, 1, "productpage", SERVER, 1, 38),
    span(3, 2, "productpage", CLIENT, 3, 6),
    span(4, 3, "details", SERVER, 4, 4),
    span(5, 2, "productpage", CLIENT, 3, 30),
    span(6, 5, "reviews", SERVER, 4, 28),
    span(7, 6, "reviews", CLIENT, 10, 20),
    span(8, 7, "ratings", SERVER, 11, 18),
)


def shape(found: Trace | None) -> list[tuple[int, str, float]]:
    assert found is not None
    return [(step.depth, step.service.removeprefix("default/"), step.start) for step in found.steps]


def test_in_any_order() -> None:
    """Broken: a waterfall would look another way each time, for spans come from each node when it likes."""
    wanted = [
        (0, "ingressgateway", 0.0),
        (1, "productpage", 1.0),
        (2, "productpage", 3.0),
        (3, "details", 4.0),
        (2, "productpage", 3.0),
        (3, "reviews", 4.0),
        (4, "reviews", 10.0),
        (5, "ratings", 11.0),
    ]
    dice = random.Random(7)
    for _ in range(20):
        spans = dice.sample(BOOKINFO, len(BOOKINFO))
        found = trace([*spans, spans[0]])
        assert sorted(shape(found)) == sorted(wanted)
        assert found is not None
        assert [step.depth for step in found.steps] in ([0, 1, 2, 3, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 2, 3])
        assert (found.start, found.duration) == (BEGIN / 1e6, 40.0)


def test_clocks_minutes_apart() -> None:
    """Broken: calls would be drawn minutes before they were made, and a trace of 40 ms be four minutes long."""
    for wrong in (-MINUTES, MINUTES):
        spans = [msgspec.structs.replace(one, start=one.start + wrong) if "reviews" in one.workload else one for one in BOOKINFO]
        found = trace(spans)
        assert found is not None
        assert found.duration == 40.0
        steps = {step.id: step for step in found.steps}
        for one in found.steps[1:]:
            parent = steps[one.parent]
            assert parent.start <= one.start
            assert one.start + one.duration <= parent.start + parent.duration
        assert {one.service for one in found.steps if one.moved} == {"default/reviews"}, "ratings' clock was right"


def test_what_goes_on_when_nobody_waits() -> None:
    """Broken: a call that its caller gave up on would be cut to its caller's patience, or moved to where it was not."""
    found = trace([span(1, 0, "a", CLIENT, 0, 100), span(2, 1, "b", SERVER, 60, 90), span(3, 1, "b", SERVER, 1, 5000)])
    assert shape(found) == [(0, "a", 0.0), (1, "b", 1.0), (1, "b", 60.0)]
    assert found is not None
    assert found.duration == 5001.0
    assert not any(step.moved for step in found.steps)


def test_a_part_of_it() -> None:
    """Broken: a trace of which a span is missing would not be shown, or as if it were whole."""
    found = trace(BOOKINFO[5:])
    assert shape(found) == [(0, "reviews", 0.0), (1, "reviews", 6.0), (2, "ratings", 7.0)]
    assert found is not None
    assert [step.lost for step in found.steps] == [True, False, False]
    line = summary(BOOKINFO[5:])
    assert line is not None
    assert not line.known
    assert trace([]) is None


def test_parents_in_a_circle() -> None:
    """Broken: a proxy that reports garbage would keep the control plane busy for ever, or lose the spans."""
    found = trace([span(1, 2, "a", SERVER, 0, 1), span(2, 1, "b", SERVER, 0, 1), span(3, 3, "c", SERVER, 0, 1)])
    assert found is not None
    assert sorted(step.id for step in found.steps) == [f"{number:016x}" for number in (1, 2, 3)]
    deep = trace([span(number, number - 1, "a", SERVER, 0, 1) for number in range(1, 2000)])
    assert deep is not None
    assert len(deep.steps) == 1999


def test_in_a_line() -> None:
    """Broken: lists of traces would not say what was asked for, or hide that something failed."""
    line = summary([*BOOKINFO[:7], msgspec.structs.replace(BOOKINFO[7], failed=True)])
    assert line is not None
    assert (line.service, line.name, line.spans, line.errors) == ("default/productpage", "GET /productpage", 8, 1)
    assert line.services == tuple(
        f"default/{name}" for name in ("details", "ingressgateway", "productpage", "ratings", "reviews")
    )
