"""What the proxy of a workload counts, logs and traces: as Telemetry and MeshConfig say, after inheritance.

`Sides` has both: `client` for the calls that a workload makes (and for all that a gateway passes on), `server` for those it gets.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey


class Metric(StrEnum):
    """Istio's standard metrics, as Telemetry names them."""

    REQUEST_COUNT = "REQUEST_COUNT"
    REQUEST_DURATION = "REQUEST_DURATION"
    REQUEST_SIZE = "REQUEST_SIZE"
    RESPONSE_SIZE = "RESPONSE_SIZE"
    TCP_OPENED_CONNECTIONS = "TCP_OPENED_CONNECTIONS"
    TCP_CLOSED_CONNECTIONS = "TCP_CLOSED_CONNECTIONS"
    TCP_SENT_BYTES = "TCP_SENT_BYTES"
    TCP_RECEIVED_BYTES = "TCP_RECEIVED_BYTES"
    GRPC_REQUEST_MESSAGES = "GRPC_REQUEST_MESSAGES"
    GRPC_RESPONSE_MESSAGES = "GRPC_RESPONSE_MESSAGES"


class Labels(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the labels of a metric differ from Istio's: `removed`, and `added` (or other values) as CEL expressions by name."""

    removed: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()


class Counting(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which metrics are `off`, and the `labels` of those that are on and have not just Istio's."""

    off: tuple[Metric, ...] = ()
    labels: tuple[tuple[Metric, Labels], ...] = ()


class AccessLog(msgspec.Struct, frozen=True, omit_defaults=True):
    """A log of requests and connections: to the file `path`, or over OTLP to `collector` as the log `name`.

    A line is `text` ("": Istio's), or JSON of `fields` (`json` without any: Istio's); both in Envoy's format of access logs. Only
    what the CEL expression `filter` holds for is logged ("": everything). `provider` is its name in MeshConfig.
    """

    provider: str
    path: str = ""
    collector: DestinationKey | None = None
    name: str = ""
    text: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    json: bool = False
    filter: str = ""


class SpanTag(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tag of spans: a value of the source, which is `literal`, `environment`, `header` or `formatter` (Envoy's format)."""

    name: str
    source: str
    value: str
    default: str = ""


class Tracing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Traces over OTLP to `collector` (None: to nobody outside). `provider` is its name in MeshConfig.

    `sampling` is the percentage of the traces that begin here (None: nobody said one). Not `reported`: no spans are sent. Not
    `propagated`: the headers that carry a trace are not added. `b3`: these are B3's, too, as Zipkin has it. `by_request_id`:
    x-request-id tells whether it was sampled. `http_path`: by HTTP, to that path; else by gRPC, waiting `timeout` seconds. Values
    longer than `longest` are cut (0: as Envoy does).
    """

    provider: str = ""
    collector: DestinationKey | None = None
    http_path: str = ""
    timeout: float = 0.0
    sampling: float | None = None
    reported: bool = True
    propagated: bool = True
    b3: bool = False
    by_request_id: bool = True
    istio_tags: bool = True
    longest: int = 0
    tags: tuple[SpanTag, ...] = ()


EVERYTHING = Counting()
UNTOLD = Tracing()


class Telemetry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is made of the calls on one side."""

    metrics: Counting = EVERYTHING
    logs: tuple[AccessLog, ...] = ()
    tracing: Tracing = UNTOLD


STANDARD = Telemetry()


class Sides(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is made of the calls that a workload makes, and of those that it gets."""

    client: Telemetry = STANDARD
    server: Telemetry = STANDARD


STANDARD_SIDES = Sides()
