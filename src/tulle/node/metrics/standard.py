"""What a proxy counted (`core/envoy/telemetry.py`) → Istio's standard metrics, with all their labels. Pure.

Labels as `istio.io/latest/docs/reference/config/metrics` has them; what is not known is `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.core.envoy.telemetry import ADDED, HOW, OWN, PREFIX, SIDES, TO_LABEL, WHO, WITH, WITHOUT
from tulle.node.metrics.families import Family, Histogram, Sample

UNKNOWN = "unknown"
# The cluster that the mesh's workloads are in, as long as there is one.
CLUSTER = "tulle"
_SUBJECT = "UID="
_NONE = ("", "-")


class Who(msgspec.Struct, frozen=True):
    """A workload: what labels say of it. `principal` is its SPIFFE ID."""

    workload: str = UNKNOWN
    namespace: str = UNKNOWN
    app: str = UNKNOWN
    version: str = UNKNOWN
    principal: str = UNKNOWN


class Metric(msgspec.Struct, frozen=True):
    """How a count becomes a metric of Istio; values are divided by `unit`."""

    name: str
    unit: float = 1


_REQUESTS = "istio_requests_total"  # as many as have a duration
_METRICS = {
    "requests": Metric(_REQUESTS),
    "requests_apart": Metric(_REQUESTS),
    "duration": Metric("istio_request_duration_milliseconds", 1000),
    "duration_alone": Metric("istio_request_duration_milliseconds", 1000),
    "request_bytes": Metric("istio_request_bytes"),
    "response_bytes": Metric("istio_response_bytes"),
    "opened": Metric("istio_tcp_connections_opened_total"),
    "closed": Metric("istio_tcp_connections_closed_total"),
    "sent": Metric("istio_tcp_sent_bytes_total"),
    "received": Metric("istio_tcp_received_bytes_total"),
}
_MESSAGES = {
    "envoy_cluster_grpc_request_message_count": "istio_request_messages_total",
    "envoy_cluster_grpc_response_message_count": "istio_response_messages_total",
}
# Of messages Envoy says only to which cluster, or for the application, they went.
_NOT_OF_MESSAGES = ("response_code", "grpc_response_status", "response_flags")
# Ours: what `tulle routes` shows of a Prometheus.
_ROUTED, _ROUTED_DURATION = "tulle_route_requests_total", "tulle_route_request_duration_milliseconds"
_BY_ROUTE = ("duration", "duration_alone", "requests")
_OF_ROUTES = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "destination_service",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
)
_OF_CONNECTIONS = frozenset(("opened", "closed", "sent", "received"))


def counted(name: str) -> tuple[str, str] | None:
    """The side and the count that a metric of Envoy is; None for others."""
    side, _underscore, what = name.removeprefix(f"envoy_{PREFIX}_").partition("_")
    return (side, what) if name.startswith(f"envoy_{PREFIX}_") and side in SIDES else None


def standard(found: Iterable[Family], own: Who) -> Iterator[Family]:
    """Istio's metrics of what the proxy of `own` counted; one family a metric. Rows that differ in no label are one.

    With them, how much of each was folded into the label `other`.
    """
    found = tuple(found)
    overflown = any(one.name.startswith(_OVERFLOW) and any(row.value for row in one.samples) for one in found)
    apart = _apart(found)
    made: dict[str, _Rows] = {}
    kinds: dict[str, str] = {_REQUESTS: "counter"}
    folded: dict[tuple[str, str], float] = {}
    routed: dict[str, _Rows] = {}
    for family in found:
        if (named := counted(family.name)) is None:
            continue
        side, what = named[0], named[1].removesuffix(OWN)
        if (metric := _METRICS.get(what)) is None:
            continue
        into = made.setdefault(metric.name, {})
        kinds[metric.name] = family.kind
        for sample in family.samples:
            said, value = words(sample.labels), sample.value
            if named[1] in _BY_ROUTE and said.get("route", "-") != "-":
                _by_route(routed, what, said, own, value)
            labels = _labels(side, what, said, own)
            more = {name: _OTHER for name in said.get(WITH, "").split(",") if name}
            if named[1].endswith(OWN):
                more = {name: known(said.get(f"{ADDED}{name}", "")) for name in more}
            elif more:
                left = _less(value, apart.get((side, what, _key(sample.labels)), ())) if overflown else None
                if left is None:
                    continue
                value = left
                folded[metric.name, side] = folded.get((metric.name, side), 0.0) + _size(value)
            labels |= more
            for name in said.get(WITHOUT, "").split(","):
                labels.pop(name, None)
            row = tuple(labels.items())
            _add(into, row, _scaled(value, metric.unit))
            if what == "duration":
                _add(made.setdefault(_REQUESTS, {}), row, _size(value))
    yield from _messages(found, own)
    for name, rows in (*made.items(), *routed.items()):
        kinds.setdefault(name, "counter" if name == _ROUTED else "histogram")
        yield Family(name, kinds[name], [Sample(dict(labels), value) for labels, value in rows.items()])
    if folded:
        yield Family(
            "tulle_metrics_folded_total",
            "counter",
            [Sample({"metric": name, "reporter": side}, size) for (name, side), size in sorted(folded.items())],
        )


def words(labels: dict[str, str]) -> dict[str, str]:
    """What Envoy's labels say of a call, each word by its name (`telemetry.WHO`, `HOW`) and other labels as they are."""
    found = dict(labels)
    for label, names in (("who", WHO), ("how", HOW)):
        if said := found.pop(label, None):
            found |= zip(names, said.split(" ", len(names) - 1), strict=False)
    return found


def _messages(found: Iterable[Family], own: Who) -> Iterator[Family]:
    """Messages of gRPC. Envoy says only for which port they came in, and to which cluster they went."""
    for family in found:
        if (name := _MESSAGES.get(family.name)) is None:
            continue
        rows: _Rows = {}
        for sample in family.samples:
            cluster = sample.labels.get(TO_LABEL) or sample.labels.get("envoy_cluster_name", "")
            side = "source" if cluster.startswith("outbound|") else "destination" if cluster.startswith("inbound|") else ""
            if side:
                labels = _labels(side, "", {"service": cluster if side == "source" else "", "grpc": "0"}, own)
                labels |= {f"{side}_principal": own.principal, "connection_security_policy": UNKNOWN}
                _add(rows, tuple(pair for pair in labels.items() if pair[0] not in _NOT_OF_MESSAGES), sample.value)
        yield Family(name, "counter", [Sample(dict(labels), value) for labels, value in rows.items()])


def _by_route(made: dict[str, _Rows], what: str, said: dict[str, str], own: Who, value: float | Histogram) -> None:
    """Requests by the route that a rule made for them, which Istio's labels do not have: few of the others beside it."""
    known_ = _labels("source", what, said, own)
    labels = {name: known_[name] for name in _OF_ROUTES} | {"route": said["route"]}
    labels["connection_security_policy"] = "none" if known_["destination_principal"] == UNKNOWN else "mutual_tls"
    row = tuple(labels.items())
    _add(made.setdefault(_ROUTED, {}), row, _size(value))
    if isinstance(value, Histogram):
        _add(made.setdefault(_ROUTED_DURATION, {}), row, _scaled(value, _METRICS["duration"].unit))


_Labels = tuple[tuple[str, str], ...]
_Rows = dict[_Labels, float | Histogram]
_OVERFLOW = "envoy_server_stats_overflow"
_OTHER = "other"


def _key(said: dict[str, str]) -> _Labels:
    """What a count has in common with those that are counted apart of it."""
    return tuple(sorted(pair for pair in said.items() if not pair[0].startswith(ADDED)))


def _apart(found: Iterable[Family]) -> dict[tuple[str, str, _Labels], list[float | Histogram]]:
    """What was counted once more with a Telemetry's own labels, by side, count and the other labels."""
    made: dict[tuple[str, str, _Labels], list[float | Histogram]] = {}
    for family in found:
        named = counted(family.name)
        if named is not None and named[1].endswith(OWN):
            for sample in family.samples:
                made.setdefault((named[0], named[1].removesuffix(OWN), _key(sample.labels)), []).append(sample.value)
    return made


def _less(value: float | Histogram, parts: Iterable[float | Histogram]) -> float | Histogram | None:
    """What is left of a count; None where nothing is."""
    for part in parts:
        if isinstance(value, Histogram) and isinstance(part, Histogram):
            had = dict(part.buckets)
            buckets = tuple((bound, max(0.0, count - had.get(bound, 0.0))) for bound, count in value.buckets)
            value = Histogram(buckets, max(0.0, value.count - part.count), max(0.0, value.sum - part.sum))
        elif not isinstance(value, Histogram) and not isinstance(part, Histogram):
            value = max(0.0, value - part)
    return value if _size(value) else None


def _size(value: float | Histogram) -> float:
    return value.count if isinstance(value, Histogram) else value


def _add(rows: _Rows, labels: _Labels, value: float | Histogram) -> None:
    before = rows.get(labels)
    if isinstance(before, Histogram) and isinstance(value, Histogram):
        had = dict(before.buckets)
        buckets = tuple((bound, count + had.get(bound, 0.0)) for bound, count in value.buckets)
        value = Histogram(buckets, before.count + value.count, before.sum + value.sum)
    elif before is not None and not isinstance(before, Histogram) and not isinstance(value, Histogram):
        value += before
    rows[labels] = value


def _scaled(value: float | Histogram, unit: float) -> float | Histogram:
    if unit == 1 or not isinstance(value, Histogram):
        return value
    return Histogram(tuple((bound / unit, count) for bound, count in value.buckets), value.count, value.sum / unit)


def _labels(side: str, what: str, said: dict[str, str], own: Who) -> dict[str, str]:
    principal = known(said.get("principal", ""))
    mutual = principal != UNKNOWN
    own = own if mutual else msgspec.structs.replace(own, principal=UNKNOWN)
    other = peer(said.get("peer", ""), principal)
    source, destination = (own, other) if side == "source" else (other, own)
    host, name, namespace = service(said.get("service", ""), destination)
    labels = {
        "reporter": side,
        **_who("source", source),
        **_who("destination", destination),
        "destination_service": host,
        "destination_service_name": name,
        "destination_service_namespace": namespace,
    }
    if what in _OF_CONNECTIONS:
        labels["request_protocol"] = "tcp"
    else:
        grpc = said.get("grpc", "")
        labels["request_protocol"] = "http" if grpc in _NONE else "grpc"
        labels["grpc_response_status"] = "" if grpc in _NONE else grpc
        labels["response_code"] = said.get("code", "") or "0"
    if what != "opened":
        labels["response_flags"] = said.get("flags", "") or "-"
    security = UNKNOWN if side == "source" else "mutual_tls" if mutual else "none"
    return {**labels, "connection_security_policy": security}


def _who(side: str, who: Who) -> dict[str, str]:
    return {
        f"{side}_workload": who.workload,
        f"{side}_workload_namespace": who.namespace,
        f"{side}_principal": who.principal,
        f"{side}_app": who.app,
        f"{side}_version": who.version,
        f"{side}_canonical_service": who.app,
        f"{side}_canonical_revision": who.version if who.version != UNKNOWN or who.app == UNKNOWN else "latest",
        f"{side}_cluster": CLUSTER if who.workload != UNKNOWN else UNKNOWN,
    }


def peer(said: str, principal: str = UNKNOWN) -> Who:
    """Who is at the other end: `namespace/name/app/version`, from an endpoint or from the subject of a certificate."""
    text = said.removeprefix(_SUBJECT)
    parts = text.split("/")
    if len(parts) != 4 or not all(parts[:2]):
        return Who(principal=principal)
    namespace, name, app, version = parts
    return Who(name, namespace, app or name, version or UNKNOWN, principal)


def service(said: str, destination: Who) -> tuple[str, str, str]:
    """The host, name and namespace of what was called: by its host, or by the name of the cluster that it went to."""
    host = said.rpartition("|")[2] if said.startswith("outbound|") else said
    if host in _NONE:
        return UNKNOWN, UNKNOWN, destination.namespace
    name, dot, rest = host.partition(".")
    namespace, _dot, suffix = rest.partition(".")
    if dot and suffix.startswith("svc."):
        return host, name, namespace
    return host, host, destination.namespace


def known(value: str) -> str:
    """What Envoy says, or `unknown`."""
    return UNKNOWN if value in _NONE else value
