"""TCP routes: which connections go where, by what is known before a byte is passed on. The first that matches decides."""

from __future__ import annotations

import msgspec

from tulle.core.model.route import Origin, WeightedDestination

# A server name of this kind stands for every TLS connection, also for one without a name.
ANY_TLS = "*"


class TcpMatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of what is named must hold; an empty match holds for every connection.

    `names` are TLS server names, in small letters: whole, with one leading wildcard (`*.example.com`), or `*` for any TLS at all.
    `networks` are where the connection was going, `sources` where it comes from, as CIDRs or addresses.
    """

    names: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Tunnel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Connections go through an HTTP proxy, which is asked (by CONNECT, or by POST) for `host` and `port`."""

    host: str
    port: int
    post: bool = False


class Carriage(msgspec.Struct, frozen=True, omit_defaults=True):
    """How connections are carried to where they go.

    `told`: a destination takes HTTP too, and its sidecar is told (by ALPN) that these are bytes. `idle_timeout` (0: never; None:
    Envoy's hour) is how long nothing may be said, `max_duration` (0: for ever) how long a connection lasts; in seconds.
    """

    told: bool = False
    idle_timeout: float | None = None
    max_duration: float = 0.0
    tunnel: Tunnel | None = None


PLAIN = Carriage()


class TcpRoute(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule: the first route whose `match` holds decides; one without `destinations` closes the connection."""

    name: str = ""
    match: TcpMatch = TcpMatch()
    destinations: tuple[WeightedDestination, ...] = ()
    carriage: Carriage = PLAIN
    origin: Origin | None = None
