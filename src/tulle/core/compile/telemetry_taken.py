"""What Telemetry objects take away of the metrics that figures are read from where a Prometheus is asked for these. Pure.

The control plane's own window lacks nothing of it: nodes report what Envoy has counted before anything is taken away.
"""

from __future__ import annotations

from tulle.api.istio import Telemetry
from tulle.core.compile.objects import telemetries
from tulle.core.compile.telemetry_metrics import metrics_of
from tulle.core.flow import Fetch, table
from tulle.core.model.calls import LABELS
from tulle.core.model.telemetry import Metric

_READ = (Metric.REQUEST_COUNT, Metric.REQUEST_DURATION, Metric.TCP_CLOSED_CONNECTIONS)
_MOST = 3  # objects that are named


@table
def taken_away(fetch: Fetch, _key: None) -> str:
    """The objects, and what each takes away: `Telemetry shop/all takes away source_app of REQUEST_COUNT`; "" where none does."""
    rows = sorted((row for key in fetch.keys(telemetries) if (row := fetch(telemetries, key))), key=lambda row: str(row.ref))
    said = [f"{row.ref} takes away {', '.join(names)}" for row in rows if (names := _names(row))]
    more = len(said) - _MOST
    return "; ".join(said[:_MOST]) + (f"; and {more} more Telemetry objects" if more > 0 else "")


def _names(row: Telemetry) -> list[str]:
    off: dict[str, None] = {}
    labels: dict[str, list[str]] = {}
    for override in (one for entry in row.spec.metrics for one in entry.overrides):
        for metric in (one for one in metrics_of(override) if one in _READ):
            if override.disabled:
                off[metric] = None
            for name, tag in override.tag_overrides.items():
                if tag.operation == "REMOVE" and name in LABELS and metric not in labels.setdefault(name, []):
                    labels[name].append(metric)
    return [*off, *(f"{name} of {' and '.join(metrics)}" for name, metrics in labels.items() if set(metrics) - set(off))]
