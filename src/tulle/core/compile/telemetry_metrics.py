"""Telemetry's `metrics` → what is counted, and with which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tulle.api.istio import Telemetry as Rule
from tulle.api.istio.telemetry import Metrics, MetricsOverride, TelemetrySpec
from tulle.core.compile.cel import expression
from tulle.core.compile.collectors import default_providers, is_prometheus
from tulle.core.compile.mistakes import error, not_yet, warning
from tulle.core.flow import Fetch
from tulle.core.model.telemetry import EVERYTHING, Counting, Labels, Metric
from tulle.kit.problem import Problem

ALL = tuple(Metric)
MESSAGES = (Metric.GRPC_REQUEST_MESSAGES, Metric.GRPC_RESPONSE_MESSAGES)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"\s*string\((.*)\)\s*")
_LONGEST = 100  # characters of a label's name
_RESERVED = ("le", "quantile", "reporter")  # without these two counts would become one
# Of a call, what is another value for nearly every one of them: no label is made of that.
UNBOUNDED = frozenset(
    f"{root}.{name}"
    for root, names in (
        ("request", "path url_path id time query duration size total_size useragent referer"),
        ("response", "size total_size backend_latency"),
        ("source", "address port"),
        ("connection", "id"),
        ("upstream", "address port local_address cx_pool_ready_duration"),
    )
    for name in names.split()
)


def counting(fetch: Fetch, rules: Sequence[TelemetrySpec], side: str) -> Counting:
    """What is counted on a side."""
    entries = [entry for rule in rules for entry in rule.metrics]
    defaults = fetch(default_providers, None)
    inherited = scope = defaults.metrics if defaults else ()
    for entry in entries:
        scope = _names(entry) or scope
    read = {name for name in (*scope, *(name for entry in entries for name in _names(entry))) if fetch(is_prometheus, name)}
    if not read.intersection(scope):
        return Counting(off=ALL)
    off: dict[Metric, bool] = {}
    labels: dict[Metric, dict[str, str]] = {}
    for entry in entries:
        inherited = _names(entry) or inherited
        if read.intersection(scope, inherited):
            for override in entry.overrides:
                if _is_for(override, side):
                    _take(override, off, labels)
    made = Counting(
        off=tuple(metric for metric in ALL if off.get(metric)),
        labels=tuple(
            (metric, _labels(labels[metric])) for metric in ALL if not off.get(metric) and any(labels.get(metric, {}).values())
        ),
    )
    return EVERYTHING if made == EVERYTHING else made


def _names(entry: Metrics) -> tuple[str, ...]:
    return tuple(one.name for one in entry.providers)


def _is_for(override: MetricsOverride, side: str) -> bool:
    return override.match is None or override.match.mode in ("CLIENT_AND_SERVER", side)


def metrics_of(override: MetricsOverride) -> tuple[Metric, ...]:
    """The metrics that an override is for."""
    if override.match is None:
        return ALL
    if override.match.custom_metric:
        return ()
    said = override.match.metric
    return ALL if said in (None, "ALL_METRICS") else (Metric(said),)


_REMOVE = "-"


def _take(override: MetricsOverride, off: dict[Metric, bool], labels: dict[Metric, dict[str, str]]) -> None:
    for metric in metrics_of(override):
        if override.disabled is not None:
            off[metric] = override.disabled
        for name, tag in override.tag_overrides.items() if metric not in MESSAGES else ():
            if tag.operation == "REMOVE" and not _bad_name(name):
                labels.setdefault(metric, {})[name] = _REMOVE
            elif tag.value and not _bad_name(name) and not _bad_value(tag.value):
                labels.setdefault(metric, {})[name] = f"={_plain(tag.value)}"


def _plain(value: str) -> str:
    """An expression without `string(...)` around it, which Istio's users write: here everything becomes a text."""
    inside = _TEXT.fullmatch(value)
    return inside[1] if inside and not expression(inside[1]).wrong else value


def _labels(said: dict[str, str]) -> Labels:
    return Labels(
        removed=tuple(sorted(name for name, value in said.items() if value == _REMOVE)),
        added=tuple(sorted((name, value[1:]) for name, value in said.items() if value != _REMOVE)),
    )


def _bad_name(name: str) -> str:
    if name in _RESERVED:
        return f"found {name}; needed another label: two things would be counted as one"
    if not _LABEL.fullmatch(name) or name.startswith("__") or len(name) > _LONGEST:
        return f"found {name}; needed the name of a label: letters, digits and _, {_LONGEST} at most"
    return ""


def _bad_value(value: str) -> tuple[str, ...]:
    """Why an expression makes no label: its mistake, or what of it is not bounded."""
    found = expression(_plain(value))
    if found.wrong:
        return (found.wrong,)
    return tuple(one for one in found.attributes if one in UNBOUNDED or "." not in one)


def metrics_problems(fetch: Fetch, row: Rule) -> Iterator[Problem]:
    """What of a Telemetry's metrics has no effect."""
    ref = row.ref
    for index, entry in enumerate(row.spec.metrics):
        path = f"spec.metrics[{index}]"
        for at, provider in enumerate(entry.providers):
            if not fetch(is_prometheus, provider.name):
                message = f"found {provider.name}; needed a provider with prometheus: metrics are read, and sent to nobody"
                yield warning(ref, f"{path}.providers[{at}].name", "NotHonoured", message)
        if entry.reporting_interval is not None:
            yield not_yet(ref, f"{path}.reportingInterval")
        for at, override in enumerate(entry.overrides):
            place = f"{path}.overrides[{at}]"
            if override.match and override.match.custom_metric:
                message = f"found {override.match.custom_metric}; needed one of Istio's metrics, in `metric`"
                yield warning(ref, f"{place}.match.customMetric", "NotHonoured", message)
            if override.match and override.match.metric in MESSAGES:
                yield from _of_messages(row, place, override, entry)
            for name, tag in override.tag_overrides.items():
                yield from _tag_problems(row, f'{place}.tagOverrides["{name}"]', name, tag.operation, tag.value or "")


def _of_messages(row: Rule, path: str, override: MetricsOverride, entry: Metrics) -> Iterator[Problem]:
    """Messages of gRPC are counted by cluster: with no labels of a Telemetry, and both kinds or neither."""
    if override.tag_overrides:
        message = "found labels; needed none: messages are counted by service, and have no others"
        yield warning(row.ref, f"{path}.tagOverrides", "NotHonoured", message)
    named = {one.match.metric for one in entry.overrides if one.match and one.disabled == override.disabled}
    if override.disabled is not None and not named.issuperset(MESSAGES):
        message = f"found {override.match.metric if override.match else ''} alone; needed both of {', '.join(MESSAGES)}"
        yield warning(row.ref, f"{path}.disabled", "NotHonoured", f"{message}: they are counted together")


def _tag_problems(row: Rule, path: str, name: str, operation: str | None, value: str) -> Iterator[Problem]:
    if why := _bad_name(name):
        yield warning(row.ref, path, "NotHonoured", why)
    if operation == "REMOVE":
        return
    if not value:
        yield warning(row.ref, path, "NotHonoured", "found nothing; needed a value, or the operation REMOVE")
    elif wrong := expression(_plain(value)).wrong:
        yield error(row.ref, f"{path}.value", "BadExpression", wrong)
    elif unbounded := _bad_value(value):
        message = f"found {', '.join(unbounded)}, which may be another for every call; needed something with few values"
        yield warning(row.ref, f"{path}.value", "Unbounded", f"{message}: the label is not made")
