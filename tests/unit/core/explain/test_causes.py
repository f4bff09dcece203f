"""Each of Envoy's response flags and response-code details has its sentence."""

from __future__ import annotations

import mmap
import string

import pytest

from tulle.core.explain import explain
from tulle.core.explain.causes import DETAILS, FLAGS, RESETS, By, cause
from tulle.core.explain.known import Known
from tulle.core.model.recorded import Example, Shape
from tulle.pb.binary import envoy_path
from tulle.pb.envoy.data.accesslog.v3 import accesslog_pb2

# How Envoy abbreviates the fields of its own message of all flags, and the two that this message does not have.
ABBREVIATED = {
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
    "unauthorized_details": "UAEX",
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
BESIDE = ("DO", "UDO")

# What Envoy 1.40 itself, its router, its codecs and the filters that we configure write as details. Texts of more than 20
# characters are looked for in the binary: it keeps shorter ones in pieces.
_WRITTEN = """
absolute_path_rejected admin_filter_response cluster_not_found direct_response downstream_header_timeout
downstream_local_disconnect downstream_remote_disconnect drop_overload unconditional_drop_overload duration_timeout
early_connect_data filter_added_invalid_request_data filter_added_invalid_response_data filter_chain_not_found
filter_removed_required_request_headers filter_removed_required_response_headers internal_redirect invalid_path low_version
maintenance_mode max_duration_timeout missing_host_header missing_path_rejected no_healthy_upstream overload
path_normalization_failed rejecting_because_detection_failed request_header_timeout request_headers_failed_strict_check
request_overall_timeout request_payload_exceeded_retry_buffer_limit request_payload_too_large response_payload_too_large
response_timeout route_configuration_not_found route_not_found stream_idle_timeout upgrade_failed
upstream_max_stream_duration_reached upstream_per_try_idle_timeout upstream_per_try_timeout
upstream_reset_after_response_started upstream_reset_before_response_started via_upstream websocket_handshake_unsuccessful
http1.body_disallowed http1.codec_error http1.connection_header_rejected http1.content_length_and_chunked_not_allowed
http1.content_length_not_allowed http1.headers_too_large http1.invalid_characters http1.invalid_transfer_encoding
http1.invalid_url http1.too_many_headers http1.transfer_encoding_not_allowed http1.unexpected_underscore
http2.inbound_empty_frames_flood http2.invalid.header.field http2.outbound_frames_flood http2.too_many_headers
http2.unexpected_underscore http2.unknown.nghttp2.error http2.violation.of.messaging.rule http2.remote_reset
http2.remote_refuse
http3.headers_too_large http3.invalid_header_field http3.too_many_headers http3.unexpected_underscore
rbac_access_denied_matched_policy jwt_authn_access_denied ext_authz_denied ext_authz_error fault_filter_abort local_rate_limited
request_rate_limited rate_limiter_error cors_response
"""
WRITTEN = _WRITTEN.split()


def test_every_flag() -> None:
    """Broken: of a request with that flag `tulle explain` would have nothing to say."""
    fields = {field.name for field in accesslog_pb2.ResponseFlags.DESCRIPTOR.fields}
    assert fields == set(ABBREVIATED), "Envoy has other flags than before"
    for flag in (*ABBREVIATED.values(), *BESIDE):
        assert cause("", flag, "503") is FLAGS[flag]
    assert set(FLAGS) == {*ABBREVIATED.values(), *BESIDE}


@pytest.mark.parametrize("details", WRITTEN)
def test_every_detail(details: str) -> None:
    """Broken: of a request that ended so `tulle explain` would say something about the flag only, or nothing."""
    assert cause(details, "", "503") is not None


def test_details_are_envoys() -> None:
    """Broken: this list would be of another Envoy than ours, and say nothing of it."""
    with open(envoy_path(), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        missing = [one for one in WRITTEN if len(one) > 20 and binary.find(one.encode()) < 0]
    assert missing == []


@pytest.mark.parametrize("reason", RESETS)
def test_every_reset(reason: str) -> None:
    """Broken: all resets would be alike, whatever the endpoint did."""
    assert cause(f"upstream_reset_before_response_started{{{reason}}}", "UF", "503") is RESETS[reason]


def test_tls_is_told_from_connections() -> None:
    """Broken: people would look for a firewall where a certificate is wrong."""
    tls = cause("upstream_reset_before_response_started{remote_connection_failure|TLS_error:_CERTIFICATE}", "UF", "503")
    plain = cause("upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_111}", "UF", "503")
    assert tls is not plain
    assert tls is cause("upstream_reset_before_response_started{connection_failure}", "UF", "503", "TLS_error: unable to verify")


def test_what_went_well() -> None:
    """Broken: a request that the application answered would be somebody's fault."""
    assert cause("via_upstream", "", "200") is None
    assert cause("via_upstream", "", "500") is DETAILS["via_upstream"]
    assert cause("via_upstream", "URX", "503") is FLAGS["URX"]


@pytest.mark.parametrize("found", {id(one): one for table in (FLAGS, DETAILS, RESETS) for one in table.values()}.values())
def test_sentences(found: object) -> None:
    """Broken: a sentence would have a hole in it, or end twice."""
    from tulle.core.explain.causes import Cause

    assert isinstance(found, Cause)
    words = {"goal", "caller", "destination", "endpoint", "endpoints", "authority", "method", "path", "id", "attempts"}
    words |= {"milliseconds", "timeout", "principal", "why", "details", "allows", "problems", "per_try"}
    for text in (found.why, found.do):
        assert {name for _literal, name, _format, _how in string.Formatter().parse(text) if name} <= words
        assert not text.endswith(".")
    if found.by is By.ROUTE:
        assert found.field or found.gateway_field or "redirect" in found.why


@pytest.mark.parametrize("flag", FLAGS)
def test_a_paragraph_of_each(flag: str) -> None:
    """Broken: an explanation would fail for want of something that is not known."""
    shape = Shape("source", source="default/a", service="b.default.svc.cluster.local", port=80, code="503", flags=flag)
    text = explain([(shape, Example("x", 1.0, authority="b", path="/"))], Known(goal="b:80")).text
    assert text.endswith(".")
    assert "{" not in text
