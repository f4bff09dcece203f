"""Dashboards for Grafana, on Istio's metrics and the mesh's own: the mesh, a service, a workload, the control planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulle.cli.prometheus_config import PLANES

Board = dict[str, Any]
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 24, 8
_OK = 'response_code!~"0|5.."'
_CALLS = "istio_requests_total"
_TIMES = "istio_request_duration_milliseconds_bucket"


def dashboards() -> dict[str, Board]:
    """All of them, by name."""
    return {"mesh": _mesh(), "service": _service(), "workload": _workload(), "control-plane": _control_plane()}


def _board(name: str, title: str, description: str, panels: Sequence[Board], variables: Sequence[Board] = ()) -> Board:
    placed = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        width = panel["gridPos"]["w"]
        if x + width > _WIDTH:
            x, y = 0, y + _HEIGHT
        placed.append({**panel, "id": number, "gridPos": {**panel["gridPos"], "x": x, "y": y}})
        x += width
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}
    return {
        "uid": f"tulle-{name}",
        "title": f"tulle: {title}",
        "description": description,
        "tags": ["tulle"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "links": [{"type": "dashboards", "tags": ["tulle"], "title": "tulle", "asDropdown": True, "includeVars": True}],
        "panels": placed,
    }


def _panel(title: str, unit: str, *queries: tuple[str, str], kind: str = "timeseries", width: int = 12) -> Board:
    """`queries`: an expression, and what its rows are called (with labels in `{{ }}`)."""
    targets = [
        {
            "refId": chr(ord("A") + at),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend,
            **({"instant": True, "format": "table"} if kind == "table" else {}),
        }
        for at, (expression, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": targets,
    }


def _variable(name: str, query: str) -> Board:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _rate(metric: str, labels: str, by: str = "") -> str:
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{labels}}}[$__rate_interval]))"


def _by(labels: str, *by: str) -> tuple[str, str]:
    """Requests a second, apart by these labels, called by them."""
    return _rate(_CALLS, labels, ", ".join(by)), " ".join(f"{{{{{one}}}}}" for one in by)


def _quantiles(labels: str) -> tuple[tuple[str, str], ...]:
    times = _rate(_TIMES, labels, "le")
    return tuple((f"histogram_quantile({share}, {times})", name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")))


def _success(labels: str, by: str = "") -> str:
    return f"{_rate(_CALLS, f'{labels},{_OK}', by)} / {_rate(_CALLS, labels, by)}"


def _secured(labels: str) -> str:
    mutual = 'connection_security_policy="mutual_tls"'
    return f"{_rate(_CALLS, f'{labels},{mutual}')} / {_rate(_CALLS, labels)}"


def _figures(labels: str) -> list[Board]:
    return [
        _panel("Requests a second", "reqps", (_rate(_CALLS, labels), ""), kind="stat", width=6),
        _panel("Success", "percentunit", (_success(labels), ""), kind="stat", width=6),
        _panel("p99", "ms", _quantiles(labels)[2], kind="stat", width=6),
        _panel("Mutual TLS", "percentunit", (_secured(labels.replace('"source"', '"destination"', 1)), ""), kind="stat", width=6),
    ]


def _mesh() -> Board:
    labels = 'reporter="source"'
    by = "destination_service"
    tcp = 'reporter="source"'
    return _board(
        "mesh",
        "mesh",
        "All services: traffic, errors, latency",
        [
            *_figures(labels),
            _panel("Requests a second, by service", "reqps", _by(labels, by)),
            _panel("Success, by service", "percentunit", (_success(labels, by), "{{destination_service}}")),
            _panel("Latency", "ms", *_quantiles(labels)),
            _panel("Answers, by code", "reqps", _by(labels, "response_code")),
            _panel(
                "Bytes of connections",
                "Bps",
                (_rate("istio_tcp_sent_bytes_total", tcp, by), "sent {{destination_service}}"),
                (_rate("istio_tcp_received_bytes_total", tcp, by), "received {{destination_service}}"),
            ),
            _panel("Versions", "short", ("sum by (component, tag) (istio_build)", "{{component}} {{tag}}")),
        ],
    )


def _service() -> Board:
    here = 'destination_service=~"$service"'
    labels = f'reporter="source",{here}'
    return _board(
        "service",
        "service",
        "One service: who calls it, and how that goes",
        [
            *_figures(labels),
            _panel("Latency", "ms", *_quantiles(labels)),
            _panel(
                "Answers, by code and flags",
                "reqps",
                _by(labels, "response_code", "response_flags"),
            ),
            _panel(
                "Callers",
                "reqps",
                (
                    _rate(_CALLS, labels, "source_workload, source_workload_namespace"),
                    "{{source_workload}} {{source_workload_namespace}}",
                ),
            ),
            _panel(
                "Versions",
                "reqps",
                (
                    _rate(_CALLS, labels, "destination_workload, destination_version"),
                    "{{destination_workload}} {{destination_version}}",
                ),
            ),
            _panel("Success, by version", "percentunit", (_success(labels, "destination_version"), "{{destination_version}}")),
            _panel(
                "Size of answers, p95",
                "bytes",
                (f"histogram_quantile(0.95, {_rate('istio_response_bytes_bucket', labels, 'le')})", "answers"),
                (f"histogram_quantile(0.95, {_rate('istio_request_bytes_bucket', labels, 'le')})", "requests"),
            ),
            _panel(
                "Connections that are not HTTP",
                "cps",
                (_rate("istio_tcp_connections_opened_total", labels), "opened"),
                (_rate("istio_tcp_connections_closed_total", labels), "closed"),
            ),
        ],
        [_variable("service", "label_values(istio_requests_total, destination_service)")],
    )


def _workload() -> Board:
    own = 'namespace="$namespace",workload="$workload"'
    came = 'reporter="destination",destination_workload_namespace="$namespace",destination_workload="$workload"'
    went = 'reporter="source",source_workload_namespace="$namespace",source_workload="$workload"'
    return _board(
        "workload",
        "workload",
        "One workload: what comes in, what goes out, and its proxy",
        [
            _panel("In: requests a second", "reqps", _by(came, "source_workload")),
            _panel("In: success", "percentunit", (_success(came), "")),
            _panel("In: latency", "ms", *_quantiles(came)),
            _panel("Out: requests a second", "reqps", _by(went, "destination_service")),
            _panel("Out: success", "percentunit", (_success(went, "destination_service"), "{{destination_service}}")),
            _panel("Out: latency", "ms", *_quantiles(went)),
            _panel(
                "In: messages of gRPC",
                "cps",
                (_rate("istio_request_messages_total", came), "requests"),
                (_rate("istio_response_messages_total", came), "answers"),
                width=24,
            ),
            _panel(
                "Proxy: CPU", "percentunit", (f"rate(tulle_proxy_cpu_seconds_total{{{own}}}[$__rate_interval])", "CPU"), width=8
            ),
            _panel("Proxy: memory", "bytes", (f"tulle_proxy_resident_memory_bytes{{{own}}}", "memory"), width=8),
            _panel("Proxy: starts", "short", (f"tulle_proxy_restarts_total{{{own}}}", "restarts"), width=8),
        ],
        [
            _variable("namespace", "label_values(tulle_proxy_up, namespace)"),
            _variable("workload", 'label_values(tulle_proxy_up{namespace="$namespace"}, workload)'),
        ],
    )


def _control_plane() -> Board:
    job = f'job="{PLANES}"'
    refused = f"sum(increase(pilot_total_xds_rejects{{{job}}}[1h]))"
    convergence = _rate("pilot_proxy_convergence_time_bucket", job, "le")
    store = _rate("tulle_store_seconds_bucket", job, "operation, le")
    return _board(
        "control-plane",
        "control planes",
        "Pushes, convergence, refusals, queues, certificates, the store",
        [
            _panel("Control planes", "short", (f"up{{{job}}}", "{{instance}}"), kind="stat", width=6),
            _panel("Connected proxies", "short", (f"sum(pilot_xds{{{job}}})", ""), kind="stat", width=6),
            _panel("Refused by proxies (NACK), last hour", "short", (refused, ""), kind="stat", width=6),
            _panel("Certificates that are late", "short", (f"sum(tulle_certificates_late{{{job}}})", ""), kind="stat", width=6),
            _panel("Pushes, by type", "cps", (_rate("pilot_xds_pushes", job, "type"), "{{type}}")),
            _panel(
                "From a change to its acknowledgement",
                "s",
                *((f"histogram_quantile({share}, {convergence})", name) for share, name in ((0.5, "p50"), (0.99, "p99"))),
            ),
            _panel(
                "Queues",
                "short",
                (f"tulle_xds_queue{{{job}}}", "answers to proxies, {{instance}}"),
                (f"tulle_feed_queue{{{job}}}", "events to compile, {{instance}}"),
                (f"tulle_xds_waiting{{{job}}}", "proxies that are behind, {{instance}}"),
            ),
            _panel("The store: p99", "s", (f"histogram_quantile(0.99, {store})", "{{operation}}")),
            _panel("Certificates signed", "cps", (_rate("tulle_ca_signed_total", job, "operation"), "{{operation}}")),
            _panel("CPU", "percentunit", (f"rate(process_cpu_seconds_total{{{job}}}[$__rate_interval])", "{{instance}}")),
            _panel("Memory", "bytes", (f"process_resident_memory_bytes{{{job}}}", "{{instance}}")),
        ],
    )
