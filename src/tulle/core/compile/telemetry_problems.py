"""What of a Telemetry has no effect, and why."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio import Telemetry
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems, unsaid
from tulle.core.compile.objects import telemetries
from tulle.core.compile.policy_targets import target_problems
from tulle.core.compile.telemetry_logs import logs_problems
from tulle.core.compile.telemetry_metrics import metrics_problems
from tulle.core.compile.telemetry_tracing import tracing_problems
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem

# What proxies act on. A part that is added here is one that `core/envoy` makes something of.
_DONE = ("selector", "target_ref", "target_refs", "metrics", "access_logging", "tracing")


@table
def telemetry_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a Telemetry."""
    row = fetch(telemetries, key)
    return sorted_problems(_problems(fetch, row)) if row else ()


def _problems(fetch: Fetch, row: Telemetry) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", _DONE)
    yield from target_problems(fetch, row)
    yield from metrics_problems(fetch, row)
    yield from logs_problems(fetch, row)
    yield from tracing_problems(fetch, row)
