"""Metrics as Prometheus reads them: the text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tulle.node.metrics.families import Family, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def written(found: Iterable[Family]) -> str:
    """All of them, each with its type."""
    return "".join(line for family in found for line in _family(family))


def _family(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.kind}\n"
    for sample in family.samples:
        labels = _labels(sample.labels)
        if not isinstance(sample.value, Histogram):
            yield f"{family.name}{{{labels}}} {_number(sample.value)}\n"
            continue
        comma = "," if labels else ""
        for bound, count in sample.value.buckets:
            yield f'{family.name}_bucket{{{labels}{comma}le="{_bound(bound)}"}} {_number(count)}\n'
        if not sample.value.buckets or sample.value.buckets[-1][0] != float("inf"):
            yield f'{family.name}_bucket{{{labels}{comma}le="+Inf"}} {_number(sample.value.count)}\n'
        yield f"{family.name}_sum{{{labels}}} {_number(sample.value.sum)}\n"
        yield f"{family.name}_count{{{labels}}} {_number(sample.value.count)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else f"{bound:g}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
