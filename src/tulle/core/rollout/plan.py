"""A Rollout's spec → what is to be done step by step. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from tulle.api.own.rollout import Analysis, Metric, RolloutSpec
from tulle.api.values import seconds
from tulle.core.rollout.hooks import Hook, hooks_of
from tulle.core.rollout.queries import Query, queries_of, refused_queries

WHOLE = 100  # percent
_INTERVAL = 60.0  # seconds


class Check(msgspec.Struct, frozen=True):
    """What must hold of a measurement: bounds of its value, and (`confidence` percent, 0: none) that the candidate is not worse
    than the stable version by more than `tolerance` percent.
    """

    name: Literal["request-success-rate", "request-duration"]
    least: float | None = None
    most: float | None = None
    confidence: float = 0.0
    tolerance: float = 0.0
    requests: int = 10  # that the candidate (and with `confidence` the stable version) must have had


class Plan(msgspec.Struct, frozen=True):
    """What is to be done. `identity` is another where another change is rolled out, or by another route.

    `weights`: the candidate's share (percent) in each step, before all of the traffic; the first `promoted` of them are the
    analysis, the others the promotion. In the first `mirrored` the candidate gets copies of requests. `rounds`: how many checks a
    step takes. Times are seconds.
    """

    identity: str
    strategy: Literal["Canary", "BlueGreen", "ABTest"]
    weights: tuple[int, ...]
    promoted: int
    rounds: int
    interval: float
    threshold: int
    checks: tuple[Check, ...] = ()
    deadline: float | None = None
    suspend: bool = False
    hooks: tuple[Hook, ...] = ()
    queries: tuple[Query, ...] = ()
    mirrored: int = 0


def plan(spec: RolloutSpec, namespace: str = "default", name: str = "") -> Plan:
    """What a Rollout asks for, as far as `unsupported` has nothing to say."""
    analysis = spec.analysis
    steps = _steps(analysis) if spec.strategy == "Canary" else (0,) if spec.strategy == "BlueGreen" else (WHOLE,)
    mirrored = int(analysis.mirror and not spec.skip_analysis)
    if mirrored and spec.strategy == "Canary":
        steps = 0, *steps
    promotion: tuple[int, ...] = ()
    if spec.strategy == "Canary" and analysis.step_weight_promotion:
        promotion = tuple(range(steps[-1] + analysis.step_weight_promotion, WHOLE, analysis.step_weight_promotion))
    route = spec.route_ref
    who = (spec.stable.version or spec.stable.service, spec.candidate.version or spec.candidate.service)
    identity = f"{who[0]} to {who[1]} by {route.kind} {route.name}" + (f" {route.section_name}" if route.section_name else "")
    return Plan(
        identity=identity,
        strategy=spec.strategy,
        weights=() if spec.skip_analysis else (*steps, *promotion),
        promoted=0 if spec.skip_analysis else len(steps),
        rounds=analysis.iterations or 1,
        interval=seconds(analysis.interval) if analysis.interval else _INTERVAL,
        threshold=analysis.threshold,
        checks=tuple(_check(metric) for metric in analysis.metrics if metric.query is None),
        deadline=None if spec.progress_deadline is None else seconds(spec.progress_deadline),
        suspend=spec.suspend,
        hooks=hooks_of(tuple(analysis.webhooks)),
        queries=queries_of(spec, namespace, name),
        mirrored=mirrored,
    )


def _steps(analysis: Analysis) -> tuple[int, ...]:
    if analysis.step_weights is not None:
        return tuple(analysis.step_weights)
    step, most = analysis.step_weight or WHOLE, WHOLE if analysis.max_weight is None else analysis.max_weight
    return (*range(step, most, step), most)


def _check(metric: Metric) -> Check:
    bounds, compare = metric.threshold_range, metric.compare
    name: Literal["request-success-rate", "request-duration"] = (
        "request-success-rate" if metric.name == "request-success-rate" else "request-duration"
    )
    found = Check(name, bounds.min if bounds else None, bounds.max if bounds else None)
    if compare is None:
        return found
    return msgspec.structs.replace(
        found, confidence=compare.confidence, tolerance=compare.tolerance, requests=compare.min_requests
    )


def unsupported(spec: RolloutSpec, *, prometheus: bool = False) -> Iterator[str]:
    """What a Rollout asks for that is not done, field by field: it does not begin then. `prometheus`: whether there is one."""
    analysis = spec.analysis
    if analysis.session_affinity:
        yield (
            "spec.analysis.sessionAffinity: found it; needed the strategy ABTest with a rule of the route that matches a cookie, "
            "for only weights of a route are written"
        )
    if analysis.mirror and spec.strategy == "ABTest":
        yield "spec.analysis.mirror: found it with ABTest; needed Canary or BlueGreen, for a test is of requests with answers"
    yield from refused_queries(spec, prometheus=prometheus)
    if analysis.match and spec.route_ref.section_name is None:
        yield (
            "spec.analysis.match: found it without spec.routeRef.sectionName; needed the name of the rule with these matches, "
            "for only weights are written"
        )
