"""Rollout: a new version of a service gets its traffic step by step while its measurements hold, and loses it when they break.

Fields of the analysis are named as Flagger's users know them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.http import HTTPMatchRequest
from tulle.api.list_types import keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.own.status import RolloutStatus
from tulle.api.rules import exactly_one
from tulle.api.values import Defaulted, Double, Duration, Group, HeaderName, KindName, Many, Map, ObjectName, SectionName, seconds

GATEWAY_API = "gateway.networking.k8s.io"
ISTIO = "networking.istio.io"
# The routes that can be steered.
ROUTES = {(GATEWAY_API, "HTTPRoute"), (GATEWAY_API, "GRPCRoute"), (ISTIO, "VirtualService")}

Weight = Annotated[int, Field(ge=0, le=100, json_schema_extra={"format": "int32"})]
Count = Annotated[int, Field(ge=1, le=10_000, json_schema_extra={"format": "int32"})]


class Version(Ruled):
    """One version of the service: its workloads by their `version` label, or a Service of its own."""

    version: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    service: ObjectName | None = None

    def faults(self) -> Iterator[Fault]:
        """One of the two."""
        yield from exactly_one(self, "version", "service")


class TargetRef(Ruled):
    """The Service that callers name."""

    group: Defaulted[Group] = ""
    kind: Defaulted[KindName] = "Service"
    name: ObjectName

    def faults(self) -> Iterator[Fault]:
        """A Service."""
        if (self.group, self.kind) != ("", "Service"):
            yield Fault(("kind",), f'found "{self.kind}"; needed Service', "BadEnum")


class RouteRef(Ruled):
    """The route whose weights are steered; it stays its owner's in all else."""

    group: Defaulted[Group] = GATEWAY_API
    kind: Defaulted[KindName] = "HTTPRoute"
    name: ObjectName
    section_name: SectionName | None = None  # one rule of it, by name

    def faults(self) -> Iterator[Fault]:
        """A kind of route with weights."""
        if (self.group, self.kind) not in ROUTES:
            known = ", ".join(f"{kind}.{group}" for group, kind in sorted(ROUTES))
            yield Fault(("kind",), f'found "{self.kind}.{self.group}"; needed one of {known}', "BadEnum")


class ThresholdRange(Ruled):
    """The values that are good."""

    min: Double | None = None
    max: Double | None = None

    def faults(self) -> Iterator[Fault]:
        """A bound; a range that is not empty."""
        if self.min is None and self.max is None:
            yield Fault((), "found neither bound; needed min or max", "Required")
        if self.min is not None and self.max is not None and self.min > self.max:
            yield Fault(("min",), f"found {self.min:g}; needed at most max, {self.max:g}", "OutOfRange")


class Comparison(Schema):
    """The candidate against the stable version over the same window, judged by a statistical test at `confidence` percent.

    No verdict falls before both had `minRequests` requests. The candidate may be worse by `tolerance` percent.
    """

    min_requests: Count = 50
    confidence: Annotated[Double, Field(ge=50, le=99.99)] = 95.0
    tolerance: Annotated[Double, Field(ge=0, le=1000)] = 0.0


BUILT_IN = ("request-success-rate", "request-duration")


class Metric(Ruled):
    """A measurement: `request-success-rate` (percent), `request-duration` (99th percentile, ms), or a PromQL `query`."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    interval: Defaulted[Duration] = "1m"
    threshold_range: ThresholdRange | None = None
    query: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    compare: Comparison | None = None

    def faults(self) -> Iterator[Fault]:
        """Something to measure, and what is good."""
        if self.query is None and self.name not in BUILT_IN:
            yield Fault(("query",), f"found nothing; needed a query, for only {' and '.join(BUILT_IN)} are built in", "Required")
        if self.query is not None and self.name in BUILT_IN:
            yield Fault(("query",), f"found it with the built-in {self.name}; needed another name, or no query", "OneOf")
        if self.threshold_range is None and self.compare is None:
            yield Fault((), "found neither thresholdRange nor compare; needed at least one of the two", "Required")


_HOOKS = Literal[
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
    "load-test",
]


class SecretKeyRef(Schema):
    """A value in a Secret of the same namespace."""

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253)]


class Webhook(Ruled):
    """A POST at a point of the rollout; its answer (2xx or not) counts where something is confirmed or checked.

    With `signatureKeyRef` the body is signed (HMAC-SHA256) in the header X-Tulle-Signature.
    """

    name: Annotated[str, Field(min_length=1, max_length=253)]
    type: Defaulted[_HOOKS] = "rollout"
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    timeout: Defaulted[Duration] = "10s"
    retries: Annotated[int, Field(ge=0, le=10, json_schema_extra={"format": "int32"})] = 0
    metadata: Annotated[Map[str], Field(max_length=64)] = Field(default_factory=dict)
    signature_key_ref: SecretKeyRef | None = None

    def faults(self) -> Iterator[Fault]:
        """A web address, and a deadline that a rollout can wait for."""
        if not self.url.startswith(("http://", "https://")) or not self.url.partition("://")[2].strip("/"):
            yield Fault(("url",), f'found "{self.url}"; needed a URL that starts with http:// or https://')
        if seconds(self.timeout) > 300:
            yield Fault(("timeout",), f"found {self.timeout}; needed at most 5m", "OutOfRange")


class SessionAffinity(Schema):
    """A client that got the candidate stays with it: the cookie's name and lifetime in seconds."""

    cookie_name: HeaderName
    max_age: Annotated[int, Field(ge=1, le=2**31 - 1, json_schema_extra={"format": "int32"})] = 86_400


class Analysis(Ruled):
    """The steps and what must hold at each of them. After `threshold` failed checks the traffic goes back to the stable version.

    Canary: `stepWeight` up to `maxWeight`, or `stepWeights`, in percent. A/B: the requests of `match`, for `iterations`
    checks. Blue-green: none, for `iterations` checks, then all. `mirror` copies requests to the candidate before it gets any.
    """

    interval: Defaulted[Duration] = "1m"
    threshold: Defaulted[Count] = 5
    max_weight: Weight | None = None
    step_weight: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] | None = None
    step_weights: Annotated[Many[Weight], Field(min_length=1, max_length=100)] | None = None
    step_weight_promotion: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] | None = None
    iterations: Count | None = None
    match: Annotated[Many[HTTPMatchRequest], Field(max_length=64)] = ()
    mirror: bool = False
    mirror_weight: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] = 100
    session_affinity: SessionAffinity | None = None
    metrics: Annotated[Many[Metric], Field(max_length=32), keyed("name")] = ()
    webhooks: Annotated[Many[Webhook], Field(max_length=32), keyed("name")] = ()

    def faults(self) -> Iterator[Fault]:
        """One kind of steps, rising."""
        if self.step_weights is not None:
            for name, value in (("stepWeight", self.step_weight), ("maxWeight", self.max_weight)):
                if value is not None:
                    yield Fault((name,), "found it beside stepWeights; needed one of the two", "OneOf")
            for index, (before, after) in enumerate(zip(self.step_weights, self.step_weights[1:], strict=False)):
                if after <= before:
                    yield Fault(("stepWeights", index + 1), f"found {after} after {before}; needed weights that rise")
        if self.iterations is not None and (self.step_weight is not None or self.step_weights is not None):
            yield Fault(("iterations",), "found it beside steps of weight; needed one of the two", "OneOf")


class Alert(Ruled):
    """Whom to tell: a webhook that takes Slack's JSON."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    severity: Literal["info", "warn", "error"] = "info"
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    url_ref: SecretKeyRef | None = None

    def faults(self) -> Iterator[Fault]:
        """An address, written or in a Secret."""
        yield from exactly_one(self, "url", "urlRef")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            yield Fault(("url",), f'found "{self.url}"; needed a URL that starts with http:// or https://')


class RolloutSpec(Ruled):
    """From which version to which, on which route, how, and what must hold.

    With `suspend` the stable version has all of the traffic; without it again, the steps begin anew.
    """

    target_ref: TargetRef
    stable: Version
    candidate: Version
    route_ref: RouteRef
    strategy: Defaulted[Literal["Canary", "BlueGreen", "ABTest"]] = "Canary"
    analysis: Analysis
    progress_deadline: Duration | None = None
    skip_analysis: bool = False
    suspend: bool = False
    alerts: Annotated[Many[Alert], Field(max_length=16), keyed("name")] = ()

    def faults(self) -> Iterator[Fault]:
        """Two different versions, and the steps that the strategy has."""
        if self.stable == self.candidate:
            yield Fault(("candidate",), "found the stable version; needed another one", "Duplicate")
        if (self.stable.version is None) != (self.candidate.version is None):
            yield Fault(("candidate",), "found a version beside a service; needed the same for stable and candidate", "OneOf")
        steps = self.analysis.step_weight is not None or self.analysis.step_weights is not None
        if self.strategy == "Canary" and not steps:
            yield Fault(("analysis",), "found no steps; needed stepWeight or stepWeights, for the strategy is Canary", "Required")
        if self.strategy != "Canary" and self.analysis.iterations is None:
            message = f"found nothing; needed the number of checks, for the strategy is {self.strategy}"
            yield Fault(("analysis", "iterations"), message, "Required")
        if self.strategy == "ABTest" and not self.analysis.match:
            yield Fault(("analysis", "match"), "found none; needed the requests that get the candidate", "Required")
        if self.strategy != "ABTest" and self.analysis.match:
            yield Fault(("analysis", "match"), f"found it with {self.strategy}; needed none, or the strategy ABTest", "OneOf")


class Rollout(Object):
    """A rollout."""

    kind: Literal["Rollout"] = "Rollout"
    spec: RolloutSpec
    status: RolloutStatus | None = None
