"""Telemetry: which metrics, access logs and traces are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.status import IstioStatus
from tulle.api.istio.targets import Targeted
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import at_most_one
from tulle.api.values import Duration, Many, Map, Nullable, Percent

Mode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]
NonEmpty = Annotated[str, Field(min_length=1)]


class ProviderRef(Schema):
    """A provider of the mesh's configuration."""

    name: NonEmpty


class ModeSelector(Schema):
    """On which side of a call."""

    mode: Mode = "CLIENT_AND_SERVER"


class LogFilter(Schema):
    """Which requests are logged: a CEL expression."""

    expression: str = ""


class AccessLogging(Schema):
    """Access logs."""

    match: ModeSelector | None = None
    providers: Many[ProviderRef] = ()
    disabled: Nullable[bool] = None
    filter: LogFilter | None = None


class MetricSelector(Ruled):
    """Which metric, on which side."""

    metric: (
        Literal[
            "ALL_METRICS",
            "REQUEST_COUNT",
            "REQUEST_DURATION",
            "REQUEST_SIZE",
            "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS",
            "TCP_CLOSED_CONNECTIONS",
            "TCP_SENT_BYTES",
            "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES",
            "GRPC_RESPONSE_MESSAGES",
        ]
        | None
    ) = None
    custom_metric: NonEmpty | None = None
    mode: Mode = "CLIENT_AND_SERVER"

    def faults(self) -> Iterator[Fault]:
        """One metric."""
        yield from at_most_one(self, "metric", "customMetric")


class TagOverride(Ruled):
    """A label to set (to a CEL expression) or to remove."""

    operation: Literal["UPSERT", "REMOVE"] | None = None
    value: str | None = None

    def faults(self) -> Iterator[Fault]:
        """A value to set, none to remove."""
        if self.operation == "REMOVE" and self.value is not None:
            yield Fault(("value",), "found it with the operation REMOVE; needed none", "OneOf")
        if self.operation == "UPSERT" and not self.value:
            yield Fault(("value",), "found nothing; needed a value, for the operation is UPSERT", "Required")


class MetricsOverride(Schema):
    """What differs for a metric."""

    match: MetricSelector | None = None
    disabled: Nullable[bool] = None
    tag_overrides: Map[TagOverride] = Field(default_factory=dict)


class Metrics(Schema):
    """Metrics."""

    providers: Many[ProviderRef] = ()
    overrides: Many[MetricsOverride] = ()
    reporting_interval: Duration | None = None


class LiteralTag(Schema):
    """A fixed value."""

    value: NonEmpty


class FormatterTag(Schema):
    """A value in Envoy's format of access logs."""

    value: NonEmpty


class NamedTag(Schema):
    """A value of an environment variable or a header."""

    name: NonEmpty
    default_value: str = ""


class CustomTag(Ruled):
    """A tag of spans."""

    literal: LiteralTag | None = None
    environment: NamedTag | None = None
    header: NamedTag | None = None
    formatter: FormatterTag | None = None

    def faults(self) -> Iterator[Fault]:
        """One source."""
        yield from at_most_one(self, "literal", "environment", "header", "formatter")


class Tracing(Schema):
    """Traces."""

    match: ModeSelector | None = None
    providers: Many[ProviderRef] = ()
    random_sampling_percentage: Nullable[Percent] = None
    disable_span_reporting: Nullable[bool] = None
    disable_context_propagation: Nullable[bool] = None
    custom_tags: Map[CustomTag] = Field(default_factory=dict)
    use_request_id_for_trace_sampling: Nullable[bool] = None
    enable_istio_tags: Nullable[bool] = None


class TelemetrySpec(Targeted):
    """What is measured, logged and traced at the selected workloads."""

    tracing: Many[Tracing] = ()
    metrics: Many[Metrics] = ()
    access_logging: Many[AccessLogging] = ()


class Telemetry(Object):
    """Istio's Telemetry."""

    kind: Literal["Telemetry"] = "Telemetry"
    spec: TelemetrySpec = Field(default_factory=TelemetrySpec)
    status: IstioStatus | None = None
