"""What the Envoys of this node tell of requests that are traced: OTLP in, spans of ours in a buffer out.

    Envoy ──OTLP over its Unix socket of ADS──▶ Intake ──▶ Buffer ──span_report.py──▶ control plane

Envoy is answered at once, whatever becomes of the spans: nothing waits for them. What there is no room for is dropped, and
counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import structlog

from tulle.core.envoy.tracing import ISTIO_TAGS, RESOURCE_ATTRIBUTES
from tulle.core.model.calls import Edge, failed
from tulle.core.model.spans import CLIENT, SERVER, Span
from tulle.node.metrics.standard import UNKNOWN, Who
from tulle.pb import message_class

log = structlog.get_logger("tulle.node")

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_REQUEST = "opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest"
MOST = 5000  # spans that wait, some 5 MB
_MOST_TAGS, _LONGEST = 48, 512
_CLIENT_KIND = 3  # of opentelemetry.proto.trace.v1.Span.SpanKind
_STREAMED = "component"  # says "proxy" of each of Envoy's spans


class Buffer:
    """Spans that wait to be reported. What is `dropped` counts those for which there was no room since it was last taken."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._spans: deque[Span] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, spans: Iterator[Span]) -> None:
        """The newest stay out where there is no room: of a trace rather the beginning is known than nothing whole."""
        for span in spans:
            if len(self._spans) < self._most:
                self._spans.append(span)
            else:
                self.dropped += 1

    def take(self, most: int) -> tuple[tuple[Span, ...], int]:
        """The oldest, and how many were dropped. `back` undoes it."""
        found = tuple(self._spans.popleft() for _ in range(min(most, len(self._spans))))
        dropped, self.dropped = self.dropped, 0
        return found, dropped

    def back(self, spans: tuple[Span, ...], dropped: int) -> None:
        """They could not be told."""
        room = max(0, self._most - len(self._spans))
        self._spans.extendleft(reversed(spans[len(spans) - min(room, len(spans)) :]))
        self.dropped += dropped + max(0, len(spans) - room)


class Intake:
    """OTLP's TraceService for one workload's Envoy. `own` says who that is."""

    def __init__(self, own: Callable[[], Who], buffer: Buffer) -> None:
        self._own, self._buffer = own, buffer

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        methods = {"Export": grpc.unary_unary_rpc_method_handler(self._export)}
        return (grpc.method_handlers_generic_handler(SERVICE, methods),)

    async def _export(self, body: bytes, _context: Any) -> bytes:
        try:
            request = message_class(_REQUEST).FromString(body)
        except Exception as error:  # google.protobuf.message.DecodeError; nothing of it is worth keeping
            log.warning("a proxy told spans that cannot be read", why=str(error))
            return b""
        self._buffer.add(spans(request, self._own()))
        return b""


def environment(own: Who) -> dict[str, str]:
    """What an Envoy is started with, so that spans which it sends to a collector by itself say whose they are."""
    version = "" if own.version == UNKNOWN else own.version
    attributes = {
        "service.name": f"{own.app}.{own.namespace}",
        "service.namespace": own.namespace,
        "service.instance.id": f"{own.namespace}/{own.workload}",
        **({"service.version": version} if version else {}),
    }
    tags = zip(ISTIO_TAGS, (own.app, version or "latest", own.namespace), strict=True)
    return {RESOURCE_ATTRIBUTES: ",".join(f"{name}={value}" for name, value in attributes.items()), **dict(tags)}


def spans(request: Any, own: Who) -> Iterator[Span]:
    """The spans of a request, all of `own`: what a proxy says of itself does not count."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for told in scope.spans:
                yield _span(told, own)


def _span(told: Any, own: Who) -> Span:
    tags = {one.key[:_LONGEST]: _text(one.value)[:_LONGEST] for one in told.attributes[:_MOST_TAGS]}
    tags.pop(_STREAMED, None)
    code, grpc_code = tags.get("http.status_code", ""), tags.get("grpc.status_code", "")
    protocol = "grpc" if grpc_code else "http"
    return Span(
        trace=told.trace_id.hex(),
        id=told.span_id.hex(),
        parent=told.parent_span_id.hex(),
        workload=f"{own.namespace}/{own.workload}",
        service=f"{own.namespace}/{own.app}",
        version="" if own.version == UNKNOWN else own.version,
        kind=CLIENT if told.kind == _CLIENT_KIND else SERVER,
        name=told.name[:_LONGEST],
        start=told.start_time_unix_nano // 1000,
        duration=max(0, told.end_time_unix_nano - told.start_time_unix_nano) // 1000,
        failed=failed(Edge("", protocol=protocol, code=code, grpc=grpc_code)),
        tags=tags,
    )


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    found = getattr(value, kind) if kind else ""
    if isinstance(found, bool):
        return "true" if found else "false"
    return found if isinstance(found, str) else str(found)
