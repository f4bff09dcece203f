"""A DestinationRule's annotations on how callers find out which endpoints are well → the model's words, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio import DestinationRule
from tulle.api.own.detection import HEALTH_CHECK, OUTLIERS, HealthCheckNote, OutlierDetectionNote, read_note
from tulle.api.values import seconds
from tulle.core.compile.mistakes import error, not_yet
from tulle.core.compile.traffic_policies import Policy
from tulle.core.model.service import Protocol, Service
from tulle.core.model.traffic import FailurePercentage, HealthCheck, Outlier, SuccessRate
from tulle.kit.problem import Problem

NOTES = frozenset((OUTLIERS, HEALTH_CHECK))


def detecting(said: Policy, rule: DestinationRule, port: int) -> Policy:
    """A port's policy with what the annotations of its rule add."""
    notes = rule.metadata.annotations
    outliers = read_note(notes, OUTLIERS, OutlierDetectionNote)
    check = read_note(notes, HEALTH_CHECK, HealthCheckNote)
    if isinstance(outliers, OutlierDetectionNote):
        rate, percentage = outliers.success_rate, outliers.failure_percentage
        outlier = msgspec.structs.replace(
            said.outlier or Outlier(),
            success_rate=SuccessRate(rate.stdev_factor, rate.minimum_hosts, rate.request_volume) if rate else None,
            failure_percentage=FailurePercentage(percentage.threshold, percentage.minimum_hosts, percentage.request_volume)
            if percentage
            else None,
        )
        said = msgspec.structs.replace(said, outlier=outlier)
    if isinstance(check, HealthCheckNote) and check.port in (None, port):
        said = msgspec.structs.replace(said, check=_check(check))
    return said


def _check(said: HealthCheckNote) -> HealthCheck:
    return HealthCheck(
        interval=seconds(said.interval),
        timeout=seconds(said.timeout),
        unhealthy_after=said.unhealthy_threshold,
        healthy_after=said.healthy_threshold,
        path=said.path,
        host=said.host,
        statuses=tuple(sorted(set(said.statuses))),
        grpc=said.grpc,
    )


def detection_problems(rule: DestinationRule, target: Service | None) -> Iterator[Problem]:
    """Annotations that cannot be read, and a check that no port of the `target` can be asked by."""
    notes = rule.metadata.annotations
    check = read_note(notes, HEALTH_CHECK, HealthCheckNote)
    by_grpc = isinstance(check, HealthCheckNote) and check.grpc is not None
    if by_grpc and target and not any(port.protocol in (Protocol.GRPC, Protocol.HTTP2) for port in target.ports):
        what = "grpc where no port is declared as gRPC or HTTP/2"
        yield not_yet(rule.ref, f"metadata.annotations[{HEALTH_CHECK}]", what)
    for name, found in (
        (OUTLIERS, read_note(notes, OUTLIERS, OutlierDetectionNote)),
        (HEALTH_CHECK, check),
    ):
        if isinstance(found, str):
            yield error(rule.ref, f"metadata.annotations[{name}]", "BadAnnotation", found)
