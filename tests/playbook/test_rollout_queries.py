"""PromQL in roll-outs as stories: what Prometheus answers, and what is decided."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tests.playbook.test_rollout import SPEC, Story, planned
from tulle.api.own.rollout import RolloutSpec
from tulle.core.rollout.decide import point
from tulle.core.rollout.plan import plan, unsupported
from tulle.core.rollout.queries import NAMES, Reading, nothing, queries_of, reading

QUERY = {"name": "errors", "query": "sum(errors)", "thresholdRange": {"max": 1}}


class Measuring(Story):
    """Prometheus answers `has`: so many series, or a sentence."""

    def __init__(self) -> None:
        super().__init__(planned(metrics=[QUERY]))
        self.has: list[float] | str = [0.5]
        self._readings: dict[str, Reading] = {}
        self._point = ""

    def look(self, after: float = 0.0, **changes: Any) -> Measuring:
        if self._point != point(self.state):
            self._readings, self._point = {}, point(self.state)
        super().look(after, readings=dict(self._readings), **changes)
        if self._point == point(self.state):
            for name in self.queries:
                before = self._readings.get(name)
                say = nothing if isinstance(self.has, str) else reading
                found = say(self.has, self.now, before)  # type: ignore[arg-type]
                self._readings[name] = found
        return self

    def looks(self, times: int, after: float) -> Measuring:
        for _ in range(times):
            self.look(after)
        return self


def test_a_number_within_its_bounds() -> None:
    """Broken: a metric of people's own would not count."""
    assert Measuring().looks(18, 1).phase == ("Progressing", 50)
    assert Measuring().looks(60, 1).phase == ("Succeeded", 100)


def test_a_number_out_of_bounds() -> None:
    """Broken: a release that people's own metric condemns would be promoted."""
    for value in (1.5, math.inf):
        story = Measuring()
        story.has = [value]
        assert story.looks(40, 1).phase == ("Failed", 0)
        assert "errors: " in story.state.message
        assert "needed at most 1" in story.state.message


@pytest.mark.parametrize(
    ("has", "said"),
    [([math.nan], "it is not a number (NaN)"), ([1.0, 2.0], "it has 2 series; needed one")],
)
def test_what_is_no_measurement(has: list[float], said: str) -> None:
    """Broken: nothing divided by nothing, or one series of several, would promote a release or condemn it."""
    story = Measuring()
    story.has = has
    assert story.looks(200, 1).phase == ("Progressing", 10)
    assert story.state.message == f"errors: {said}"
    assert story.state.failed == 0
    story.has = [0.0]
    assert story.looks(11, 1).phase == ("Progressing", 50)


@pytest.mark.parametrize("has", [[], "it answers 503"])
def test_a_prometheus_that_is_gone(has: list[float] | str) -> None:
    """Broken: a release would stay half done with nobody knowing how it does, or go back for one lost answer."""
    story = Measuring()
    story.has = has
    assert story.looks(35, 1).phase == ("Progressing", 10)
    story.has = [0.0]
    assert story.looks(11, 1).phase == ("Progressing", 50)
    story.has = has
    assert story.looks(60, 1).phase == ("Failed", 0)
    assert "telemetry has vanished: errors: " in story.state.message


def test_it_is_asked_at_the_end_of_an_interval_and_not_all_the_time() -> None:
    """Broken: two hundred rollouts would ask Prometheus twice a second each."""
    story, asked = Measuring(), 0
    story.has = [math.nan]
    for _ in range(200):
        asked += len(story.look(0.5).queries)
    assert asked == 9  # of 100 seconds each ten


def test_templates() -> None:
    """Broken: a query would ask for `{{ target }}`, or for another version."""
    text = 'rate(x{app="{{ target }}",ns="{{namespace}}",version="{{ candidate }}"}[{{ interval }}])'
    metric = {**QUERY, "query": text, "interval": "1m30s"}
    spec = RolloutSpec.model_validate({**SPEC, "analysis": {**SPEC["analysis"], "metrics": [metric]}})
    assert queries_of(spec, "shop", "x")[0].text == 'rate(x{app="reviews",ns="shop",version="v3"}[90s])'
    assert list(unsupported(spec, prometheus=True)) == []
    assert msgspec.structs.asdict(plan(spec, "shop").queries[0])["most"] == 1


def test_what_cannot_be_asked_is_refused() -> None:
    """Broken: a rollout would begin whose metric can never be measured, and be taken for one that is fine."""
    metric = {**QUERY, "query": "x{{ ingress }}", "compare": {}}
    spec = RolloutSpec.model_validate({**SPEC, "analysis": {**SPEC["analysis"], "metrics": [metric]}})
    at = "spec.analysis.metrics[0]"
    assert list(unsupported(spec)) == [
        f"{at}.query: found it; needed a control plane that runs with --prometheus-url",
        f"{at}.query: found {{{{ ingress }}}}; needed one of {', '.join(NAMES)}",
        f"{at}.compare: found it with a query; needed thresholdRange alone, for only built-in metrics are compared",
    ]
