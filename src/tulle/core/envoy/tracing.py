"""Which requests are traced, what is told of them, and where to → the `tracing` of an HTTP connection manager.

A trace goes on as its first proxy decided, also where another share is said. So the sampler decides, by the parent and else by
the trace's id, and the connection manager's own shares are 100: what these leave out no parent brings back. Spans go over OTLP,
straight from Envoy to a collector, or to the node agent, on the connection that Envoy has to it anyway. Envoy keeps `_WAITING`
spans of each worker thread while nobody takes them, and no request waits.

Nothing of a query is told: credentials stand there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.envoy import b3
from tulle.core.envoy.source import FALSE, TRUE, percent, seconds, uint32
from tulle.core.model.telemetry import SpanTag, Tracing
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import extension_pb2, grpc_service_pb2, http_service_pb2, http_uri_pb2
from tulle.pb.envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.extensions.request_id.uuid.v3 import uuid_pb2
from tulle.pb.envoy.extensions.tracers.opentelemetry.resource_detectors.v3 import environment_resource_detector_pb2
from tulle.pb.envoy.extensions.tracers.opentelemetry.samplers.v3 import parent_based_sampler_pb2, trace_id_ratio_based_sampler_pb2
from tulle.pb.envoy.type.tracing.v3 import custom_tag_pb2
from tulle.pb.envoy.type.v3 import percent_pb2

USUAL_SAMPLING = 1.0  # percent, where nobody says one: Istio's
# The bootstrap's cluster for ADS: the node agent's socket, where it takes spans too.
_NODE = "xds"
_WAITING = 1024
_PATIENCE = 5.0  # seconds that a collector may take
_LONGEST = 256  # characters of a path
# What Envoy starts with says who it is; the name is the one that every OpenTelemetry SDK reads.
RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
_DETECTOR = extension_pb2.TypedExtensionConfig(
    name="envoy.tracers.opentelemetry.resource_detectors.environment",
    typed_config=pack(environment_resource_detector_pb2.EnvironmentResourceDetectorConfig()),
)
# Variables that Envoy is started with, and Istio's tags of spans of which each is the value.
ISTIO_TAGS = {
    "CANONICAL_SERVICE": "istio.canonical_service",
    "CANONICAL_REVISION": "istio.canonical_revision",
    "POD_NAMESPACE": "istio.namespace",
}
_SAMPLERS = "envoy.tracers.opentelemetry.samplers"
_ALL, _NOBODY = percent_pb2.Percent(value=100), percent_pb2.Percent(value=0)
# Names are to be few: paths are in `http.url`.
_OPERATION = "%REQ(:METHOD)% %REQ(:AUTHORITY)%"
# A request's id stays as its caller wrote it: by itself Envoy notes in it why a request is traced.
_IDS = {
    sampling: pack(uuid_pb2.UuidRequestIdConfig(pack_trace_reason=FALSE, use_request_id_for_trace_sampling=value))
    for sampling, value in ((False, FALSE), (True, TRUE))
}

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Tag = custom_tag_pb2.CustomTag


def is_traced(said: Tracing) -> bool:
    """Whether proxies have anything to do with traces: somebody has said so, and spans are wanted."""
    return said.reported and bool(said.provider or said.tags or said.sampling is not None)


def trace(manager: http_connection_manager_pb2.HttpConnectionManager, said: Tracing, *, inbound: bool) -> None:
    """Have the requests of a connection manager traced. Where nobody says so it stays as it is, and costs nothing."""
    if not is_traced(said):
        return
    longest = said.longest or _LONGEST
    manager.tracing.CopyFrom(
        _Manager.Tracing(
            # A header that anybody may send is no reason.
            client_sampling=_NOBODY,
            random_sampling=_ALL,
            overall_sampling=_ALL,
            max_path_tag_length=uint32(longest),
            custom_tags=[*_own(said, longest), *(_tag(one) for one in said.tags)],
            provider=http_tracer_pb2.Tracing.Http(name="envoy.tracers.opentelemetry", typed_config=pack(_provider(said))),
            operation=_OPERATION,
            no_context_propagation=not said.propagated,
        )
    )
    manager.request_id_extension.typed_config.CopyFrom(_IDS[said.by_request_id])
    if said.b3 and not inbound:
        manager.early_header_mutation_extensions.append(b3.TAKEN)


def gives_b3(said: Tracing) -> bool:
    """Whether the router of what goes to an application is `b3.GIVEN`."""
    return said.b3 and is_traced(said) and said.propagated


def _provider(said: Tracing) -> opentelemetry_pb2.OpenTelemetryConfig:
    config = opentelemetry_pb2.OpenTelemetryConfig(max_cache_size=uint32(_WAITING))
    config.sampler.CopyFrom(_sampler(USUAL_SAMPLING if said.sampling is None else said.sampling))
    patience = seconds(said.timeout or _PATIENCE)
    where = said.collector
    if where is None:
        config.grpc_service.envoy_grpc.cluster_name = _NODE
        config.grpc_service.timeout.CopyFrom(patience)
        return config
    config.resource_detectors.append(_DETECTOR)
    if said.http_path:
        uri = f"http://{where.hostname}:{where.port}{said.http_path}"
        config.http_service.CopyFrom(
            http_service_pb2.HttpService(http_uri=http_uri_pb2.HttpUri(uri=uri, cluster=where.cluster, timeout=patience))
        )
    else:
        service = grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=where.cluster, authority=where.hostname)
        config.grpc_service.CopyFrom(grpc_service_pb2.GrpcService(envoy_grpc=service, timeout=patience))
    return config


def _sampler(share: float) -> extension_pb2.TypedExtensionConfig:
    by_id = trace_id_ratio_based_sampler_pb2.TraceIdRatioBasedSamplerConfig(sampling_percentage=percent(share))
    config = parent_based_sampler_pb2.ParentBasedSamplerConfig(
        wrapped_sampler=extension_pb2.TypedExtensionConfig(name=f"{_SAMPLERS}.trace_id_ratio_based", typed_config=pack(by_id))
    )
    return extension_pb2.TypedExtensionConfig(name=f"{_SAMPLERS}.parent_based", typed_config=pack(config))


def _own(said: Tracing, longest: int) -> Iterator[custom_tag_pb2.CustomTag]:
    """An address without its query, in the place of what Envoy tells by itself; and who it is, in the tags that Kiali reads."""
    yield _Tag(tag="http.url", value=f"%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ:PATH:{longest})%")
    if said.istio_tags and said.collector is not None:
        for variable, tag in ISTIO_TAGS.items():
            yield _Tag(tag=tag, environment=_Tag.Environment(name=variable))


def _tag(one: SpanTag) -> custom_tag_pb2.CustomTag:
    if one.source == "literal":
        return _Tag(tag=one.name, literal=_Tag.Literal(value=one.value))
    if one.source == "environment":
        return _Tag(tag=one.name, environment=_Tag.Environment(name=one.value, default_value=one.default))
    if one.source == "header":
        return _Tag(tag=one.name, request_header=_Tag.Header(name=one.value, default_value=one.default))
    return _Tag(tag=one.name, value=one.value)
