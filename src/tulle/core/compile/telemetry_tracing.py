"""Telemetry's `tracing` → which traces are made, and where they go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tulle.api.istio import Telemetry as Rule
from tulle.api.istio.telemetry import CustomTag, TelemetrySpec
from tulle.api.istio.telemetry import Tracing as Entry
from tulle.core.compile.collectors import default_providers, traces
from tulle.core.compile.mistakes import warning
from tulle.core.compile.objects import mesh_configs, settled
from tulle.core.flow import Fetch
from tulle.core.model.telemetry import UNTOLD, SpanTag, Tracing
from tulle.kit.problem import Problem


def tracing(fetch: Fetch, rules: Sequence[TelemetrySpec], side: str) -> Tracing:
    """The traces of a side. Of each Telemetry the first entry for the side counts, as in Istio."""
    defaults = fetch(default_providers, None)
    provider = next(iter(defaults.tracing if defaults else ()), "")
    usual = settled(fetch).trace_sampling
    said: dict[str, object] = {"sampling": usual} if usual else {}
    b3 = any("b3" in row.spec.trace_propagators for row in fetch.rows(mesh_configs))
    for rule in rules:
        entry = next((one for one in rule.tracing if _is_for(one, side)), None)
        if entry is None:
            continue
        provider = entry.providers[0].name if entry.providers else provider
        said |= {name: value for name, value in _said(entry).items() if value is not None}
    found = fetch(traces, provider)
    if provider and not isinstance(found, Tracing):
        said["reported"] = False  # what is for a collector is for nobody else
    made = msgspec.structs.replace(found if isinstance(found, Tracing) else UNTOLD, **said)
    return UNTOLD if made == UNTOLD else msgspec.structs.replace(made, b3=b3)


def _is_for(entry: Entry, side: str) -> bool:
    return entry.match is None or entry.match.mode in ("CLIENT_AND_SERVER", side)


def _said(entry: Entry) -> dict[str, object]:
    """The fields of the model that an entry says something of; None: it does not."""
    return {
        "sampling": entry.random_sampling_percentage,
        "reported": None if entry.disable_span_reporting is None else not entry.disable_span_reporting,
        "propagated": None if entry.disable_context_propagation is None else not entry.disable_context_propagation,
        "by_request_id": entry.use_request_id_for_trace_sampling,
        "istio_tags": entry.enable_istio_tags,
        "tags": tuple(_tags(entry.custom_tags)) or None,
    }


def _tags(said: dict[str, CustomTag]) -> Iterator[SpanTag]:
    for name, tag in sorted(said.items()):
        if tag.literal:
            yield SpanTag(name, "literal", tag.literal.value)
        elif tag.formatter:
            yield SpanTag(name, "formatter", tag.formatter.value)
        elif tag.environment:
            yield SpanTag(name, "environment", tag.environment.name, tag.environment.default_value)
        elif tag.header:
            yield SpanTag(name, "header", tag.header.name, tag.header.default_value)


def tracing_problems(fetch: Fetch, row: Rule) -> Iterator[Problem]:
    """What of a Telemetry's traces has no effect."""
    for index, entry in enumerate(row.spec.tracing):
        path = f"spec.tracing[{index}]"
        for at, provider in enumerate(entry.providers):
            found = fetch(traces, provider.name)
            why = ""
            if at:
                why = f"found {provider.name} beside {entry.providers[0].name}; needed one provider: the first counts"
            elif isinstance(found, Problem):
                why = f"nothing can be sent to {provider.name} ({found.message})"
            elif found is None:
                why = f"found {provider.name}; needed a provider with opentelemetry"
            if why:
                yield warning(row.ref, f"{path}.providers[{at}].name", "NotHonoured", why)
        if any(_same(entry, other) for other in row.spec.tracing[:index]):
            yield warning(row.ref, path, "NotHonoured", "an entry before it is for the same calls; needed one: the first counts")
        for name, tag in entry.custom_tags.items():
            if not any((tag.literal, tag.formatter, tag.environment, tag.header)):
                message = "found nothing; needed literal, environment, header or formatter"
                yield warning(row.ref, f'{path}.customTags["{name}"]', "NotHonoured", message)


def _same(one: Entry, other: Entry) -> bool:
    """Whether nothing is left of `one` behind `other`."""
    return all(not _is_for(one, side) or _is_for(other, side) for side in ("CLIENT", "SERVER"))
