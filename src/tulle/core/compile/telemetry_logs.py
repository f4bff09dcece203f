"""Telemetry's `accessLogging` → which logs are written, of which calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tulle.api.istio import Telemetry as Rule
from tulle.api.istio.telemetry import AccessLogging, TelemetrySpec
from tulle.core.compile.cel import expression
from tulle.core.compile.collectors import access_log, default_providers
from tulle.core.compile.mistakes import error, warning
from tulle.core.flow import Fetch
from tulle.core.model.telemetry import AccessLog
from tulle.kit.problem import Problem


def logs(fetch: Fetch, rules: Sequence[TelemetrySpec], side: str) -> tuple[AccessLog, ...]:
    """The logs of a side, by the providers' names. Of what a filter cannot tell everything is logged."""
    defaults = fetch(default_providers, None)
    inherited = scope = defaults.access_logging if defaults else ()
    levels = [[entry for entry in rule.access_logging if _is_for(entry, side)] for rule in rules]
    for level in levels:
        # Several entries of one Telemetry add to each other; those of a narrower one take the place of a wider one's.
        scope = tuple(dict.fromkeys(name for entry in level for name in _names(entry))) or scope
    found = dict.fromkeys((name for name in inherited if name in scope), "")
    for entry in (entry for level in levels for entry in level):
        inherited = _names(entry) or inherited
        for name in inherited:
            if name not in scope:
                continue
            if entry.disabled:
                found.pop(name, None)
            else:
                found[name] = entry.filter.expression if entry.filter else ""
    return tuple(one for name in sorted(found) if (one := _log(fetch, name, found[name])))


def _log(fetch: Fetch, name: str, wanted: str) -> AccessLog | None:
    found = fetch(access_log, name)
    if not isinstance(found, AccessLog):
        return None
    return msgspec.structs.replace(found, filter="" if not wanted or expression(wanted).wrong else wanted)


def _is_for(entry: AccessLogging, side: str) -> bool:
    return entry.match is None or entry.match.mode in ("CLIENT_AND_SERVER", side)


def _names(entry: AccessLogging) -> tuple[str, ...]:
    return tuple(one.name for one in entry.providers)


def logs_problems(fetch: Fetch, row: Rule) -> Iterator[Problem]:
    """What of a Telemetry's logs has no effect."""
    for index, entry in enumerate(row.spec.access_logging):
        path = f"spec.accessLogging[{index}]"
        for at, provider in enumerate(entry.providers):
            found = fetch(access_log, provider.name)
            if not isinstance(found, AccessLog):
                why = f"found {provider.name}; needed a provider with envoyFileAccessLog or envoyOtelAls"
                message = f"nothing can be sent to {provider.name} ({found.message})" if isinstance(found, Problem) else why
                yield warning(row.ref, f"{path}.providers[{at}].name", "NotHonoured", message)
        if entry.filter and entry.filter.expression and (wrong := expression(entry.filter.expression).wrong):
            yield error(row.ref, f"{path}.filter.expression", "BadExpression", f"{wrong}: everything is logged")
