"""An entry of Envoy's gRPC access log → what is shown of the request: no query, and no header that is not on the list. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

# Field of Envoy's ResponseFlags → the short word that its lines of text have.
_FLAGS = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One that has ended. `time` is when it began (seconds since the epoch), `caller` the SPIFFE ID that mutual TLS has shown,
    `address` the caller's; `cluster` and `upstream` where it went. Sizes are bytes of bodies."""

    time: float
    method: str = ""
    authority: str = ""
    path: str = ""
    protocol: str = ""
    status: int = 0
    details: str = ""
    flags: tuple[str, ...] = ()
    milliseconds: float = 0.0
    received: int = 0
    sent: int = 0
    caller: str = ""
    address: str = ""
    cluster: str = ""
    upstream: str = ""
    route: str = ""
    attempts: int = 0
    request_id: str = ""
    headers: dict[str, str] = {}
    answer: dict[str, str] = {}


_PROTOCOLS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}


def read(entry: Any) -> Request:
    """An `envoy.data.accesslog.v3.HTTPAccessLogEntry`."""
    common, request, response = entry.common_properties, entry.request, entry.response
    sans = common.tls_properties.peer_certificate_properties.subject_alt_name
    method = request.DESCRIPTOR.fields_by_name["request_method"].enum_type.values_by_number.get(request.request_method)
    took = common.duration if common.HasField("duration") else common.time_to_last_downstream_tx_byte
    return Request(
        time=common.start_time.seconds + common.start_time.nanos / 1e9,
        method="" if method is None or method.number == 0 else method.name,
        authority=request.authority,
        path=(request.original_path or request.path).partition("?")[0],
        protocol=_PROTOCOLS.get(entry.protocol_version, ""),
        status=response.response_code.value,
        details=response.response_code_details,
        flags=flags(common.response_flags),
        milliseconds=round(took.seconds * 1e3 + took.nanos / 1e6, 3),
        received=request.request_body_bytes,
        sent=response.response_body_bytes,
        caller=next((one.uri for one in sans if one.uri), ""),
        address=common.downstream_direct_remote_address.socket_address.address,
        cluster=common.upstream_cluster,
        upstream=_address(common.upstream_remote_address),
        route=common.route_name,
        attempts=common.upstream_request_attempt_count,
        request_id=request.request_id,
        headers=dict(request.request_headers),
        answer=dict(response.response_headers),
    )


def flags(found: Any) -> tuple[str, ...]:
    """The short words of the flags that are set."""
    words = []
    for field, value in found.ListFields():
        if field.name == "unauthorized_details":
            words.append("UAEX")
        elif value:
            words.append(_FLAGS.get(field.name, field.name))
    return tuple(words)


def _address(found: Any) -> str:
    if found.HasField("pipe"):
        return str(found.pipe.path)
    said = found.socket_address
    return f"{said.address}:{said.port_value}" if said.address else ""
