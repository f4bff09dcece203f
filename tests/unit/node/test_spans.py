"""What Envoys tell of requests that are traced, until the control plane has been told."""

from __future__ import annotations

from typing import Any

from tulle.client.api import ApiClient
from tulle.core.model.spans import CLIENT, SERVER, Span
from tulle.kit.errors import Refused, Unavailable
from tulle.node.metrics.standard import Who
from tulle.node.span_report import SpanReporter
from tulle.node.spans import Buffer, Intake
from tulle.pb import message_class

OWN = Who("reviews-v2", "default", "reviews", "v2", "spiffe://cluster.local/ns/default/sa/reviews")
TRACE, PARENT, ID = bytes(range(16)), bytes(range(8)), bytes(range(8, 16))


def request(**tags: str) -> Any:
    made: Any = message_class("opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest")()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "somebody-else"
    span = resource.scope_spans.add().spans.add(trace_id=TRACE, span_id=ID, parent_span_id=PARENT, name="GET /reviews", kind=2)
    span.start_time_unix_nano, span.end_time_unix_nano = 1_800_000_000_000_000_000, 1_800_000_000_012_345_678
    for name, value in tags.items():
        span.attributes.add(key=name.replace("__", ".")).value.string_value = value
    return made


async def told(*requests: Any, buffer: Buffer | None = None) -> Buffer:
    buffer = Buffer() if buffer is None else buffer
    intake: Any = Intake(lambda: OWN, buffer)
    for one in requests:
        assert await intake._export(one if isinstance(one, bytes) else one.SerializeToString(), None) == b""
    return buffer


async def test_a_span() -> None:
    """Broken: traces would not say whose proxy a span is of, when it began, or that the request failed."""
    buffer = await told(request(http__status_code="503", response_flags="UF", component="proxy"))
    (span,), dropped = buffer.take(10)
    assert span == Span(
        trace=TRACE.hex(),
        id=ID.hex(),
        parent=PARENT.hex(),
        workload="default/reviews-v2",
        service="default/reviews",
        version="v2",
        kind=SERVER,
        name="GET /reviews",
        start=1_800_000_000_000_000,
        duration=12_345,
        failed=True,
        tags={"http.status_code": "503", "response_flags": "UF"},
    )
    assert dropped == 0


async def test_what_counts_as_failed() -> None:
    """Broken: an error of gRPC would look well, for its status of HTTP is 200; or a missing page count as a failure."""
    for tags, wanted in (
        ({"http__status_code": "200"}, False),
        ({"http__status_code": "404"}, False),
        ({"http__status_code": "0"}, True),
        ({"http__status_code": "200", "grpc__status_code": "14"}, True),
        ({"http__status_code": "200", "grpc__status_code": "5"}, False),
    ):
        ((span,), _) = (await told(request(**tags))).take(1)
        assert span.failed is wanted, tags


async def test_garbage_and_size() -> None:
    """Broken: an Envoy, or whoever takes its place, could fill the node's memory with one span."""
    big = request(**{f"tag{number}": "x" * 100_000 for number in range(100)})
    buffer = await told(b"\xff\xff", big)
    ((span,), _) = buffer.take(10)
    assert sum(len(name) + len(value) for name, value in span.tags.items()) < 30_000


async def test_more_than_there_is_room_for() -> None:
    """Broken: a control plane that is away would make nodes grow; or nobody would hear that spans are missing."""
    buffer = await told(*(request() for _ in range(12)), buffer=Buffer(most=10))
    assert len(buffer) == 10
    spans, dropped = buffer.take(4)
    assert (len(spans), dropped) == (4, 2)
    await told(*(request() for _ in range(3)), buffer=buffer)
    buffer.back(spans, dropped)
    assert (len(buffer), buffer.dropped) == (10, 2 + 3)


class _Api:
    """Answers a report as it is told to."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.bodies: list[Any] = []

    async def request(self, _method: str, _path: str, body: Any) -> None:
        if (error := self.answers.pop(0)) is not None:
            raise error
        self.bodies.append(body)


async def test_reports() -> None:
    """Broken: spans would be lost while the control plane is away, told again for ever where it does not want them, or twice."""
    api = _Api(Unavailable("away"), None, Refused("no"), None)

    async def client() -> ApiClient:
        return api  # type: ignore[return-value]

    buffer = await told(request())
    reporter = SpanReporter("n1", buffer, client)
    assert await reporter.once() is False
    assert len(buffer) == 1
    await reporter.once()
    assert [body["node"] for body in api.bodies] == ["n1"]
    assert len(buffer) == 0
    await told(request(), buffer=buffer)
    await reporter.once()
    assert len(buffer) == 0
    await reporter.once()
    assert (api.bodies[1]["spans"], api.bodies[1]["dropped"]) == ((), 1)
    assert CLIENT not in str(api.bodies)
