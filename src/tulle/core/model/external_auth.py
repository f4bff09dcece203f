"""Who else is asked whether a request, or a connection, may pass."""

from __future__ import annotations

import msgspec

from tulle.core.model.destination import DestinationKey

# Headers, all of them; a text that ends (or begins) with `*` is those that begin (or end) so.
EVERY = "*"


class ExternalAuth(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask `destination` first whether a request may pass: by a request of HTTP, or with `grpc` by Envoy's own protocol.

    `path` goes before the request's own, as it is asked for. `shown` are the request's headers that are told (none named: with
    `grpc` all; else those without which nobody can judge, and what is named is told beside these), `added` what is told besides.
    Of the answer's headers the request gets `copied`; who called gets `refused` of one that says no (none named: all) and
    `passed` of one that says yes. The body is told up to `most_body` bytes (0: it is not); of a longer one the beginning, if
    `partial`, else the request does not pass. `packed`: as bytes, not as text.

    Where nobody answers within `timeout` seconds the request is answered `status`, or passes with `fail_open`.
    """

    destination: DestinationKey
    grpc: bool = False
    path: str = ""
    shown: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    copied: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    most_body: int = 0
    partial: bool = False
    packed: bool = False
    timeout: float = 10.0
    fail_open: bool = False
    status: int = 403
    reroute: bool = False  # headers that it adds may choose another route
