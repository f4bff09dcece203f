"""Alert rules for Prometheus, on the metrics that the mesh has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tulle.cli.prometheus_config import PLANES

_BY = "destination_service_namespace, destination_service_name"
_CALLED = 'istio_requests_total{reporter="source"}'
_WHO = "{{ $labels.destination_service_name }} in {{ $labels.destination_service_namespace }}"


def rules() -> str:
    """YAML, for `rule_files`."""
    groups = [
        {"name": name, "rules": list(made())}
        for name, made in (("services", _services), ("mesh", _mesh), ("certificates", _certificates))
    ]
    return "# Made by `tulle observability alerts`.\n" + yaml.safe_dump({"groups": groups}, sort_keys=False, width=120)


def _rule(name: str, when: str, for_: str, severity: str, summary: str, description: str) -> dict[str, Any]:
    annotations = {"summary": summary, "description": description}
    return {"alert": name, "expr": when, "for": for_, "labels": {"severity": severity}, "annotations": annotations}


def _services() -> Iterator[dict[str, Any]]:
    failed = f'sum by ({_BY}) (rate(istio_requests_total{{reporter="source",response_code=~"0|5.."}}[5m]))'
    yield _rule(
        "TulleErrorRate",
        f"{failed} / sum by ({_BY}) (rate({_CALLED}[5m])) > 0.05",
        "5m",
        "critical",
        f"{_WHO} fails",
        "{{ $value | humanizePercentage }} of the requests of the last five minutes failed. See `tulle stat` and `tulle edges`.",
    )
    times = f'sum by ({_BY}, le) (rate(istio_request_duration_milliseconds_bucket{{reporter="source"}}[5m]))'
    yield _rule(
        "TulleLatency",
        f"histogram_quantile(0.99, {times}) > 1000",
        "10m",
        "warning",
        f"{_WHO} is slow",
        "The 99th percentile is {{ $value }} ms.",
    )


def _mesh() -> Iterator[dict[str, Any]]:
    yield _rule(
        "TulleControlPlaneDown",
        f'up{{job="{PLANES}"}} == 0 or absent(up{{job="{PLANES}"}})',
        "1m",
        "critical",
        "A control plane does not answer",
        "Proxies go on with what they have; nothing that is written arrives, and certificates are not renewed.",
    )
    yield _rule(
        "TulleConfigurationRefused",
        "increase(pilot_total_xds_rejects[5m]) > 0",
        "0m",
        "critical",
        "A proxy refuses its configuration (NACK)",
        "It keeps what it had. `tulle proxy status` names it, and what it refuses.",
    )
    yield _rule(
        "TullePushLatency",
        "histogram_quantile(0.99, sum by (instance, le) (rate(pilot_proxy_convergence_time_bucket[5m]))) > 5",
        "5m",
        "warning",
        "Changes arrive late at proxies",
        "The 99th percentile from a change to its acknowledgement is {{ $value }} s.",
    )
    yield _rule(
        "TulleProxyDown",
        "tulle_proxy_up == 0",
        "2m",
        "critical",
        "The proxy of {{ $labels.workload }} in {{ $labels.namespace }} does not answer",
        "Its workload is cut off. Its log is on node {{ $labels.node }}.",
    )
    yield _rule(
        "TulleProxyRestarts",
        "increase(tulle_proxy_restarts_total[15m]) > 2",
        "0m",
        "warning",
        "The proxy of {{ $labels.workload }} in {{ $labels.namespace }} starts again and again",
        "{{ $value }} times in a quarter of an hour.",
    )
    yield _rule(
        "TulleMetricsFolded",
        "increase(tulle_metrics_folded_total[15m]) > 0 or increase(envoy_server_stats_overflow_counter[15m]) > 0",
        "0m",
        "info",
        "{{ $labels.workload }} in {{ $labels.namespace }} has more label values than are kept",
        "What is too much is counted under the label `other`, or not at all. A label of a Telemetry has too many values.",
    )


def _certificates() -> Iterator[dict[str, Any]]:
    yield _rule(
        "TulleCertificateExpiry",
        "tulle_certificate_not_after_seconds - time() < 3600 and tulle_certificate_not_after_seconds > time()",
        "5m",
        "critical",
        "The certificate of {{ $labels.holder }} ends within an hour",
        "Node {{ $labels.node }} should have renewed it long ago. See `tulle certs`.",
    )
    yield _rule(
        "TulleAuthorityExpiry",
        "tulle_ca_not_after_seconds - time() < 30 * 24 * 3600",
        "1h",
        "critical",
        "What signs the mesh's certificates ends within 30 days",
        "Rotate it: `tulle ca rotate`.",
    )
    yield _rule(
        "TulleRotationLate",
        "tulle_certificates_late > 0",
        "10m",
        "warning",
        "{{ $value }} certificates should have been renewed",
        "See `tulle certs` for whose they are.",
    )
