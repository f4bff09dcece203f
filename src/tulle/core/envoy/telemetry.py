"""What each proxy counts of the calls that pass it: Envoy's `stats` access logger, so that no request costs a line of Python.

A call is counted under what only the proxy knows of it: its other end, the code, the flags. Everything else (who this proxy is,
the parts of a service's name, what follows from these) is the same for all that a proxy counts, or can be told from it, and is
added by the node where metrics are read: `node/metrics/` makes Istio's names and labels of this.

| name                                        | kind      | of                                            |
|---------------------------------------------|-----------|-----------------------------------------------|
| `mesh.{source,destination}.duration`        | histogram | microseconds, first byte in to last byte out  |
| `mesh.....request_bytes`, `.response_bytes` | histogram | bytes of bodies                               |
| `cluster.....grpc.request_message_count`... | counter   | messages of gRPC, by cluster: no logger can   |
| `mesh.....opened`, `.closed`                | counter   | connections whose bytes are not looked into   |
| `mesh.....sent`, `.received`                | counter   | bytes of those that ended                     |
| `mesh.destination.plaintext`                | counter   | calls without mutual TLS, by the address      |

`source` is what the caller's proxy counts (gateways, too), `destination` what that of the called does. There is no count of
requests beside that of their durations, and what is said of a call is in as few labels as can be (`who` and `how`, words apart by
spaces): each count and each label is a part of a microsecond of every request, and both together were as much as all the rest.

A Telemetry may part them: `duration_alone` is of durations only, `requests` of requests that nobody times, `requests_apart` of
those that are timed under other labels. Labels that it adds may have values that callers choose. So what has such labels is
counted once more (`..._own`), of few values, and what does not fit there is still in the count without them: the node says it
under `other`. A count tells itself how its labels differ from Istio's: by `WITH` (names of labels that are added) and `WITHOUT`
(of those that are not wanted).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, cast

from tulle.core.envoy.source import NAMESPACE, uint32
from tulle.core.model.telemetry import EVERYTHING, Counting, Labels, Metric
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.data.accesslog.v3 import accesslog_pb2 as data
from tulle.pb.envoy.extensions.access_loggers.stats.v3 import stats_pb2
from tulle.pb.envoy.type.v3 import scope_pb2
from tulle.pb.google.protobuf import wrappers_pb2

PREFIX = NAMESPACE
# The metadata of an endpoint under which is who answers there, as `canonical.peer` says it.
PEER = "peer"
SIDES = ("source", "destination")
WITH, WITHOUT, ADDED = "with", "without", "label_"
OWN = "_own"
# Histograms have these upper bounds: Istio's for durations (in microseconds here), and for sizes.
_SECONDS = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
DURATIONS = tuple(round(value * 1_000_000) for value in _SECONDS)
SIZES = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

_Config = stats_pb2.Config
_Tag = _Config.Tag
LOGGER = "envoy.access_loggers.stats"
_MOST = 2000
_MOST_OWN = 500
_MOST_ADDRESSES = 500
_LONGEST = 128  # characters of a label that a Telemetry adds
_FIXED = wrappers_pb2.UInt64Value(value=1)

Pairs = tuple[tuple[str, str], ...]
Measure = _Config.Counter | _Config.Histogram

# The words of the labels; the last of `who` is the subject of a certificate, in which a stranger may have spaces, and the last of
# `how` (which only who makes a call knows) the name of a route, in which its author may.
WHO = ("service", "principal", "peer")
HOW = ("flags", "code", "grpc", "route")
_REQUEST = (("how", "%RESPONSE_FLAGS% %RESPONSE_CODE% %GRPC_STATUS_NUMBER%"),)
_ROUTED = (("how", f"{_REQUEST[0][1]} %ROUTE_NAME%"),)
_CONNECTION = (("how", "%RESPONSE_FLAGS%"),)
_SOURCE = ("who", f"%UPSTREAM_CLUSTER_RAW% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_METADATA({PREFIX}:{PEER})%")

# Envoy ends the name of a cluster at its first dot. Of messages all of it is wanted: nothing else tells where they went.
TO = {"tag_name": f"{PREFIX}.to", "regex": r"^cluster\.((outbound\|.+)\.)grpc\.(?:request|response)_message_count$"}
TO_LABEL = f"{PREFIX}_to"
GRPC_STATS = "envoy.filters.http.grpc_stats"
_OF_GRPC = (Metric.GRPC_REQUEST_MESSAGES, Metric.GRPC_RESPONSE_MESSAGES)
# What is counted: a histogram of a unit or (None) a counter, and of which values; "": one for each call.
_MEASURES: dict[str, tuple[int | None, str]] = {
    "duration": (_Config.Histogram.Microseconds, "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"),
    "duration_alone": (_Config.Histogram.Microseconds, "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"),
    "requests": (None, ""),
    "requests_apart": (None, ""),
    "request_bytes": (_Config.Histogram.Bytes, "%BYTES_RECEIVED%"),
    "response_bytes": (_Config.Histogram.Bytes, "%BYTES_SENT%"),
    "opened": (None, ""),
    "closed": (None, ""),
    "sent": (None, "%BYTES_SENT%"),
    "received": (None, "%BYTES_RECEIVED%"),
}


class Called(NamedTuple):
    """What a proxy that gets calls gets them for: the host of a service ("": of none). `plaintext`: mutual TLS is not spoken."""

    service: str = ""
    plaintext: bool = False


def counts_messages(counting: Counting) -> bool:
    """Whether the messages of gRPC are counted: those of requests and of answers together."""
    return not set(_OF_GRPC) <= set(counting.off)


@lru_cache(maxsize=4096)
def of_requests(called: Called | None = None, counting: Counting = EVERYTHING) -> tuple[accesslog_pb2.AccessLog, ...]:
    """The loggers of a proxy of requests: of one that makes them (None), or of one that gets them."""
    ended = (data.DownstreamEnd,)
    usual = {
        **_timed(counting),
        "request_bytes": Metric.REQUEST_SIZE,
        "response_bytes": Metric.RESPONSE_SIZE,
    }
    return (
        *_loggers(called, counting, usual, ended, _ROUTED if called is None else _REQUEST),
        *_in_plaintext(called, "http", data.DownstreamEnd),
    )


@lru_cache(maxsize=4096)
def of_connections(called: Called | None = None, counting: Counting = EVERYTHING) -> tuple[accesslog_pb2.AccessLog, ...]:
    """The same for a proxy of connections."""
    ended = {
        "closed": Metric.TCP_CLOSED_CONNECTIONS,
        "sent": Metric.TCP_SENT_BYTES,
        "received": Metric.TCP_RECEIVED_BYTES,
    }
    return (
        *_loggers(called, counting, {"opened": Metric.TCP_OPENED_CONNECTIONS}, (data.TcpUpstreamConnected,), ()),
        *_loggers(called, counting, ended, (data.TcpConnectionEnd,), _CONNECTION),
        *_in_plaintext(called, "tcp", data.TcpConnectionEnd),
    )


def _timed(counting: Counting) -> dict[str, Metric]:
    """Requests and their durations: by one count where both are wanted under the same labels."""
    count, duration = Metric.REQUEST_COUNT, Metric.REQUEST_DURATION
    labels = dict(counting.labels)
    if duration in counting.off:
        return {"requests": count}
    if count not in counting.off and labels.get(count) == labels.get(duration):
        return {"duration": duration}
    return {"duration_alone": duration, "requests_apart": count}


def _loggers(
    called: Called | None,
    counting: Counting,
    metrics: Mapping[str, Metric],
    when: Iterable[data.AccessLogType],
    how: Pairs,
) -> Iterator[accesslog_pb2.AccessLog]:
    """The loggers of some metrics, by what is counted for them: all that are on, and once more those with labels of their own."""
    side = "source" if called is None else "destination"
    who = _SOURCE if called is None else ("who", f"{called.service or '-'} %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT%")
    labels = dict(counting.labels)
    usual: list[Measure] = []
    own: list[Measure] = []
    for name, metric in metrics.items():
        if metric in counting.off:
            continue
        differs = labels.get(metric, Labels())
        added = tuple(label for label, _value in differs.added)
        told: Pairs = ((WITH, ",".join(added)),) if added else ()
        told += ((WITHOUT, ",".join(differs.removed)),) if differs.removed else ()
        usual.append(_measure(name, "", (who, *how, *told)))
        if added:
            values = tuple((f"{ADDED}{label}", f"%CEL({value}):{_LONGEST}%") for label, value in differs.added)
            own.append(_measure(name, OWN, (who, *how, *told, *values)))
    if usual:
        yield _logger(_config(side, usual, _MOST), when)
    if own:
        yield _logger(_config(side, own, _MOST_OWN), when)


def _measure(name: str, after: str, tags: Pairs) -> Measure:
    """What is counted of a call, and under which name."""
    stat = _Config.Stat(name=f"{name}{after}", tags=_tags(tags))
    unit, value = _MEASURES[name]
    if unit is not None:
        return _Config.Histogram(stat=stat, unit=cast("stats_pb2.Config.Histogram.Unit", unit), value_format=value)
    return _Config.Counter(stat=stat, value_format=value) if value else _Config.Counter(stat=stat, value_fixed=_FIXED)


def _in_plaintext(called: Called | None, kind: str, when: data.AccessLogType) -> tuple[accesslog_pb2.AccessLog, ...]:
    """Who still calls without mutual TLS, by address: for those who want it to end. No label of Prometheus."""
    if called is None or not called.plaintext:
        return ()
    tags = _tags(
        (("service", called.service or "-"), ("kind", kind), ("address", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"))
    )
    counter = _Config.Counter(stat=_Config.Stat(name="plaintext", tags=tags), value_fixed=_FIXED)
    return (_logger(_config("destination", [counter], _MOST_ADDRESSES), (when,)),)


def _config(side: str, measures: Iterable[Measure], most: int) -> stats_pb2.Config:
    """What a logger counts, at most so many rows of a kind. (Envoy crashes in `--mode validate` where two share a scope.)"""
    measures = tuple(measures)
    return _Config(
        stats_scope=scope_pb2.Scope(prefix=f"{PREFIX}.{side}", max_counters=uint32(most), max_histograms=uint32(most)),
        counters=[one for one in measures if isinstance(one, _Config.Counter)],
        histograms=[one for one in measures if isinstance(one, _Config.Histogram)],
    )


def _tags(pairs: Iterable[tuple[str, str]]) -> list[stats_pb2.Config.Tag]:
    return [_Tag(name=name, value_format=value) for name, value in pairs]


def _logger(config: stats_pb2.Config, when: Iterable[data.AccessLogType]) -> accesslog_pb2.AccessLog:
    told = accesslog_pb2.AccessLogFilter(log_type_filter=accesslog_pb2.LogTypeFilter(types=when))
    return accesslog_pb2.AccessLog(name=LOGGER, filter=told, typed_config=pack(config))
