"""What is spoken on a connection, read off its first bytes: Envoy's TLS and HTTP inspectors, and how long they wait.

A client of a server-first protocol (SMTP, MySQL) says nothing until it hears the server, and the server hears of nobody until the
inspectors let go. So they wait a short time only, and then take the connection for bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from tulle.core.envoy.source import seconds, uint32
from tulle.pb import pack
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from tulle.pb.envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from tulle.pb.envoy.type.v3 import range_pb2

Predicate = listener_components_pb2.ListenerFilterChainMatchPredicate

# What the HTTP inspector calls what it finds.
HTTP1 = ("http/1.0", "http/1.1")
HTTP2 = ("h2c",)

# The two waits of a connection from sidecar to sidecar in plaintext are together below the 100 ms that a person does not notice.
# Outbound: the application is on this host, and its first bytes follow its connect at once. Taken for bytes by mistake, a
# connection still arrives: it has no HTTP routes.
_OUTBOUND = 0.03
# Inbound: time for a TLS client's first message to arrive behind the connection itself. One that comes later is taken for
# plaintext and fails; between sidecars HTTP is then tried again.
_INBOUND = 0.06
# Where clients always speak first (HTTP): nobody is kept waiting by patience, and a late TLS client is understood.
_PATIENT = 5.0

# Room for a client's first message (a longer one makes room as it comes): by default, a connection that says nothing costs 16 KB.
_FIRST_MESSAGE = 2048
INSPECT_TLS = listener_components_pb2.ListenerFilter(
    name="envoy.filters.listener.tls_inspector",
    typed_config=pack(tls_inspector_pb2.TlsInspector(initial_read_buffer_size=uint32(_FIRST_MESSAGE))),
)
_HTTP = listener_components_pb2.ListenerFilter(
    name="envoy.filters.listener.http_inspector", typed_config=pack(http_inspector_pb2.HttpInspector())
)


def look_for_tls(listener: listener_pb2.Listener, *, except_on: Predicate | None = None) -> None:
    """Learn whether a connection is TLS, and for which server name; the listener waits for the client to speak."""
    _add(listener, INSPECT_TLS, except_on)


def look_for_http(listener: listener_pb2.Listener, *, except_on: Predicate | None = None) -> None:
    """Learn whether a connection is HTTP in plaintext."""
    _add(listener, _HTTP, except_on)


def end_wait_outbound(listener: listener_pb2.Listener) -> None:
    """Let an application that waits for its server's first word have it."""
    _wait(listener, _OUTBOUND)


def end_wait_inbound(listener: listener_pb2.Listener, *, server_first: bool) -> None:
    """Let a plaintext client that waits for the server's first word have it, where there may be one."""
    _wait(listener, _INBOUND if server_first else _PATIENT)


def at(ports: Sequence[int]) -> Predicate:
    """Where a connection was going to one of these ports."""
    ranges = [Predicate(destination_port_range=range_pb2.Int32Range(start=port, end=port + 1)) for port in ports]
    return ranges[0] if len(ranges) == 1 else Predicate(or_match=Predicate.MatchSet(rules=ranges))


def not_at(ports: Sequence[int]) -> Predicate:
    """Where it was going to none of them."""
    return Predicate(not_match=at(ports))


def _add(listener: listener_pb2.Listener, inspector: listener_components_pb2.ListenerFilter, except_on: Predicate | None) -> None:
    added = listener.listener_filters.add()
    added.CopyFrom(inspector)
    if except_on is not None:
        added.filter_disabled.CopyFrom(except_on)


def _wait(listener: listener_pb2.Listener, patience: float) -> None:
    listener.listener_filters_timeout.CopyFrom(seconds(patience))
    listener.continue_on_listener_filters_timeout = True
