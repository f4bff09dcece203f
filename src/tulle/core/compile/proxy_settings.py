"""MeshConfig's `defaultConfig`, and the annotation `proxy.istio.io/config` of a WorkloadEntry over it → what proxies take.

The annotation is YAML of the same form, as in Istio. Of each group of settings (`gatewayTopology`, `requestLimits`) the fields
that it writes count, and MeshConfig's for the others. An annotation with a mistake counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.api.istio import WorkloadEntry
from tulle.api.own import MeshConfig
from tulle.api.own.mesh_config import NAME, ProxySettings
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import error, not_yet, unsaid
from tulle.core.compile.objects import mesh_configs, workload_entries
from tulle.core.compile.workload_notes import is_gateway
from tulle.core.flow import Fetch, table
from tulle.core.model.edge import ENVOYS_LIMITS, NOBODY_IN_FRONT, Edge, Limits, Paths
from tulle.kit.problem import Problem, Ref, Severity

ANNOTATION = "proxy.istio.io/config"
# What is acted on, of a proxy's settings.
SAID = ("gateway_topology", "request_limits")
_PATH = f'metadata.annotations["{ANNOTATION}"]'
_INSIDE = "spec.defaultConfig"


class Own(msgspec.Struct, frozen=True):
    """What a workload says of its own proxy, and what is wrong with that."""

    settings: ProxySettings = ProxySettings()
    problems: tuple[Problem, ...] = ()


@table
def own_settings(fetch: Fetch, key: Key) -> Own:
    """Of a WorkloadEntry, what its annotation says."""
    entry = fetch(workload_entries, key)
    text = entry.metadata.annotations.get(ANNOTATION) if entry else None
    return _read(entry, text) if entry and text else Own()


def _read(entry: WorkloadEntry, text: str) -> Own:
    documents, problems = read_documents(text, ANNOTATION)
    if problems or len(documents) != 1:
        why = problems[0].message if problems else f"found {len(documents)} documents"
        return Own(problems=(error(entry.ref, _PATH, "BadAnnotation", f"{why}; needed the settings of a proxy in YAML"),))
    written = documents[0].raw
    known = {field.alias or name for name, field in ProxySettings.model_fields.items()}
    others = [not_yet(entry.ref, f"{_PATH}.{name}") for name in written if name not in known]
    settings, wrong = _decoded(entry.ref, {name: value for name, value in written.items() if name in known})
    said = [*others, *wrong, *unsaid(entry.ref, settings, _PATH, SAID)]
    if settings.request_limits.max_request_bytes and not is_gateway(entry):
        said.append(not_yet(entry.ref, f"{_PATH}.requestLimits.maxRequestBytes", "maxRequestBytes of a sidecar"))
    if not is_gateway(entry):
        said += unsaid(entry.ref, settings, _PATH, ("request_limits",))
    return Own(settings, tuple(dict.fromkeys(said)))


def _decoded(ref: Ref, written: dict[str, Any]) -> tuple[ProxySettings, list[Problem]]:
    """The settings, read as those of a MeshConfig are."""
    kind = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": NAME}}
    config, problems = decode({**kind, "spec": {"defaultConfig": written}})
    settings = config.spec.default_config if isinstance(config, MeshConfig) else ProxySettings()
    errors = (one for one in problems if one.severity is Severity.ERROR)
    return settings, [error(ref, f"{_PATH}{one.path.removeprefix(_INSIDE)}", one.reason, one.message) for one in errors]


@table
def mesh_settings(fetch: Fetch, _key: None) -> ProxySettings:
    """What holds for every proxy."""
    return next((row.spec.default_config for row in fetch.rows(mesh_configs)), ProxySettings())


@table
def mesh_limits(fetch: Fetch, _key: None) -> Limits:
    """How large the requests may be that workloads send through their sidecars."""
    return _limits(fetch(mesh_paths, None) or Paths.BASE, fetch(mesh_settings, None) or ProxySettings())


@table
def limits(fetch: Fetch, key: Key) -> Limits:
    """How large the requests may be that a workload's proxy takes."""
    return _limits(fetch(mesh_paths, None) or Paths.BASE, *_settings(fetch, key))


@table
def edge(fetch: Fetch, key: Key) -> Edge:
    """Who stands in front of a gateway workload."""
    said = [one.gateway_topology for one in _settings(fetch, key)]
    trusted = next((one.num_trusted_proxies for one in said if "num_trusted_proxies" in one.model_fields_set), 0)
    details = (one.forward_client_cert_details for one in said)
    found = Edge(
        trusted=trusted,
        client_certificate=next((one for one in details if one != "UNDEFINED"), NOBODY_IN_FRONT.client_certificate),
        announced=any(one.proxy_protocol is not None for one in said),
    )
    return NOBODY_IN_FRONT if found == NOBODY_IN_FRONT else found


def _settings(fetch: Fetch, key: Key) -> Iterator[ProxySettings]:
    """The settings for a workload's proxy, its own first."""
    yield (fetch(own_settings, key) or Own()).settings
    yield fetch(mesh_settings, None) or ProxySettings()


@table
def mesh_paths(fetch: Fetch, _key: None) -> Paths:
    """The form of paths in the mesh."""
    said = (config.spec.path_normalization.normalization for config in fetch.rows(mesh_configs))
    return next((Paths(one) for one in said if one != "DEFAULT"), Paths.BASE)


def _limits(paths: Paths, *settings: ProxySettings) -> Limits:
    said = [one.request_limits for one in settings]
    found = Limits(
        header_kb=next((one.max_request_headers_kb for one in said if one.max_request_headers_kb), 0),
        headers=next((one.max_headers_count for one in said if one.max_headers_count), 0),
        body=next((one.max_request_bytes for one in said if one.max_request_bytes), 0),
        paths=paths,
    )
    return ENVOYS_LIMITS if found == ENVOYS_LIMITS else found
