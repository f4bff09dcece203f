"""MeshConfig's providers of telemetry → where logs and traces go, and which providers count where no Telemetry names any.

`prometheus` is there without being said, and so is `envoy`, the log on the proxy's own output, as in Istio; and `tulle`, the
control plane, to which traces go where no provider is said.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.own import MeshConfig
from tulle.api.own.providers import DefaultProviders, ExtensionProvider, LogFormat, OTelLog, OTelTraces
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.authorizers import provider_destination
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import mesh_configs
from tulle.core.flow import Fetch, table
from tulle.core.model.telemetry import AccessLog, Tracing
from tulle.kit.problem import Problem

PROMETHEUS = "prometheus"
STDOUT = "envoy"
EMBEDDED = "tulle"
_USUAL_LOG = "otel_envoy_accesslog"


def provider_of(fetch: Fetch, name: str) -> tuple[MeshConfig, int] | None:
    """The MeshConfig that has a provider, and the provider's index there."""
    for row in fetch.rows(mesh_configs):
        for index, one in enumerate(row.spec.extension_providers):
            if one.name == name:
                return row, index
    return None


@table
def default_providers(fetch: Fetch, _key: None) -> DefaultProviders:
    """Those that count where no Telemetry names others."""
    said = next((row.spec.default_providers for row in fetch.rows(mesh_configs)), DefaultProviders())
    return said if said.metrics else said.model_copy(update={"metrics": (PROMETHEUS,)})


@table
def is_prometheus(fetch: Fetch, name: str) -> bool:
    """Whether a provider is Prometheus: metrics are read where they are counted, and go nowhere else."""
    found = provider_of(fetch, name)
    return name == PROMETHEUS if found is None else _one(found).prometheus is not None


@table
def access_log(fetch: Fetch, name: str) -> AccessLog | Problem | None:
    """The log that a provider is, or why nothing can be sent there; None where it is no log."""
    found = provider_of(fetch, name)
    if found is None:
        return AccessLog(STDOUT, path="/dev/stdout") if name == STDOUT else None
    one = _one(found)
    if one.envoy_file_access_log is not None:
        return _formatted(AccessLog(name, path=one.envoy_file_access_log.path), one.envoy_file_access_log.log_format)
    if one.envoy_otel_als is None:
        return None
    where = _destination(fetch, found, one.envoy_otel_als, "envoyOtelAls")
    if isinstance(where, Problem):
        return where
    made = AccessLog(name, collector=where, name=one.envoy_otel_als.log_name or _USUAL_LOG)
    return _formatted(made, one.envoy_otel_als.log_format)


def _formatted(made: AccessLog, said: LogFormat | None) -> AccessLog:
    if said is None:
        return made
    labels = said.labels
    return msgspec.structs.replace(made, text=said.text, fields=tuple(sorted((labels or {}).items())), json=labels is not None)


@table
def traces(fetch: Fetch, name: str) -> Tracing | Problem | None:
    """The collector of traces that a provider is, or why nothing can be sent there; None where it is none."""
    found = provider_of(fetch, name)
    if found is None:
        return Tracing(provider=EMBEDDED) if name == EMBEDDED else None
    said = _one(found).opentelemetry
    if said is None:
        return None
    where = _destination(fetch, found, said, "opentelemetry")
    if isinstance(where, Problem):
        return where
    by_http = said.http
    patience = (by_http.timeout if by_http else None) or said.timeout
    return Tracing(
        provider=name,
        collector=where,
        http_path=by_http.path if by_http else "",
        timeout=seconds(patience) if patience else 0.0,
        longest=said.max_tag_length or 0,
    )


def _one(found: tuple[MeshConfig, int]) -> ExtensionProvider:
    return found[0].spec.extension_providers[found[1]]


def _destination(fetch: Fetch, found: tuple[MeshConfig, int], said: OTelLog | OTelTraces, field: str) -> backends.Found:
    row, index = found
    grpc = isinstance(said, OTelLog) or said.http is None
    return provider_destination(fetch, row, said, f"spec.extensionProviders[{index}].{field}", grpc=grpc)


def collector_problems(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The collectors of a MeshConfig to which nothing can be sent."""
    row = fetch(mesh_configs, key)
    for one in row.spec.extension_providers if row else ():
        for found in (fetch(access_log, one.name), fetch(traces, one.name)):
            if isinstance(found, Problem) and row and found.ref == row.ref:
                yield found
