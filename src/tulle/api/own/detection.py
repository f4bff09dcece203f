"""Annotations of a DestinationRule for what Istio's API has no words for: how callers find out which endpoints are well.

`tulle.dev/outlier-detection` stands beside the rule's `outlierDetection`, whose times and bounds hold for it too.
`tulle.dev/health-check` has each caller's proxy ask the endpoints. The words are Envoy's. Both are JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from tulle.api.object import Fault, Ruled, Schema
from tulle.api.values import Duration, Many, Percent, Port, UInt32

OUTLIERS = "tulle.dev/outlier-detection"
HEALTH_CHECK = "tulle.dev/health-check"
EXAMPLES = {
    OUTLIERS: '{"failurePercentage": {"threshold": 50, "minimumHosts": 3, "requestVolume": 20}, "successRate": {}}',
    HEALTH_CHECK: '{"path": "/healthz", "interval": "5s", "timeout": "1s"}',
}

T = TypeVar("T", bound=Schema)
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Status = Annotated[int, Field(ge=100, le=599)]


class SuccessRate(Schema):
    """Out goes who succeeds less often than the mean of all, by more than `stdev_factor` standard deviations."""

    stdev_factor: Annotated[float, Field(ge=0, le=1000)] = 1.9
    minimum_hosts: UInt32 = 5
    request_volume: UInt32 = 100


class FailurePercentage(Schema):
    """Out goes of whose requests `threshold` percent or more fail."""

    threshold: Percent = 85
    minimum_hosts: UInt32 = 5
    request_volume: UInt32 = 50


class OutlierDetectionNote(Ruled):
    """Ways to fail that are counted over an interval, by hosts with at least `request_volume` requests in it."""

    success_rate: SuccessRate | None = None
    failure_percentage: FailurePercentage | None = None

    def faults(self) -> Iterator[Fault]:
        """Something in it."""
        if self.success_rate is None and self.failure_percentage is None:
            yield Fault((), "found nothing; needed successRate or failurePercentage", "Required")


class HealthCheckNote(Ruled):
    """What a caller's proxy asks: an HTTP `path`, gRPC's health service (for `grpc`, "" for the server), or (`tcp`) a connection.

    With `port` only the endpoints of that port of the service are asked.
    """

    path: str = ""
    host: str = ""
    statuses: Many[_Status] = ()
    grpc: str | None = None
    tcp: bool = False
    port: Port | None = None
    interval: Duration = "5s"
    timeout: Duration = "1s"
    unhealthy_threshold: _Count = 3
    healthy_threshold: _Count = 1

    def faults(self) -> Iterator[Fault]:
        """One way to ask."""
        ways = [self.path != "", self.grpc is not None, self.tcp]
        if sum(ways) != 1:
            yield Fault((), f"found {sum(ways)} of path, grpc and tcp; needed one of them", "OneOf")
        if self.path and (not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable()):
            yield Fault(("path",), f'found "{self.path}"; needed a path that begins with /')
        if self.host and not (self.host.isascii() and self.host.isprintable() and " " not in self.host):
            yield Fault(("host",), f'found "{self.host}"; needed a host name')


def read_note(annotations: dict[str, str], name: str, shape: type[T]) -> T | str | None:
    """An annotation of that shape, None where it is absent, or what is wrong with it."""
    if name not in annotations:
        return None
    try:
        return shape.model_validate_json(annotations[name])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        faults = first.get("ctx", {}).get("faults", ())
        where = ".".join(map(str, faults[0].at if faults else first["loc"]))
        found = faults[0].message if faults else first["msg"]
        return f"{where}: {found}; such as {EXAMPLES[name]}" if where else f"{found}; such as {EXAMPLES[name]}"
