"""Where Envoys tell of calls: OpenTelemetry's logs service on the Unix socket of each workload, beside ADS.

Of what comes in a second no more than the budget is looked at, failures first; the rest is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tulle.pb import message_class

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
_MESSAGE = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest"
_TAKEN = b""  # an `ExportLogsServiceResponse`: all of it was taken

Said = tuple[dict[str, str], float]


def handler(take: Callable[[bytes], None]) -> grpc.GenericRpcHandler:
    """The service, for a server of one workload."""

    async def export(request: bytes, _context: Any) -> bytes:
        take(request)
        return _TAKEN

    methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def read(data: bytes) -> list[Any]:
    """The log records of a request; none of one that is garbage."""
    try:
        found: Any = message_class(_MESSAGE).FromString(data)
    except DecodeError:
        return []
    return [record for one in found.resource_logs for scope in one.scope_logs for record in scope.log_records]


def said(record: Any) -> Said:
    """What a record says, and when that began (seconds since the epoch)."""
    return {pair.key: pair.value.string_value for pair in record.attributes}, record.time_unix_nano / 1e9


class Bucket:
    """So many a second, and at most those of two seconds at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = 2 * rate, clock()

    def take(self, wanted: int) -> int:
        """How many of them there is room for."""
        now = self._clock()
        self._left = min(2 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        given = min(wanted, int(self._left))
        self._left -= given
        return given


def chosen(entries: Iterable[tuple[bool, Said]], room: int) -> list[tuple[bool, Said]]:
    """So many of the calls, of those that failed (True) as many as there are."""
    return sorted(entries, key=lambda one: not one[0])[:room]
