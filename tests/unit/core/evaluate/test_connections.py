"""Where a connection goes, by what is known before a byte of it is passed on."""

from __future__ import annotations

import msgspec
import pytest

from tulle.core.evaluate.connections import Carried, Connection, Way, carry
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey, WeightedDestination
from tulle.core.model.tcp_route import TcpMatch, TcpRoute
from tulle.core.model.workload import Outbound, OutboundTcp

DB, V1, V2, NET, WILD = (DestinationKey(name, 3306) for name in ("db", "v1", "v2", "net", "*.a.example"))
TABLE = RouteTableKey(80, "default")


def to(*shares: tuple[DestinationKey, int]) -> tuple[WeightedDestination, ...]:
    return tuple(WeightedDestination(key, weight) for key, weight in shares)


ROUTES = (
    TcpRoute("tls", TcpMatch(("*.a.example",)), to((V1, 1))),
    TcpRoute("near", TcpMatch(sources=("10.0.0.0/8",)), to((V1, 3), (V2, 1), (NET, 0))),
    TcpRoute("shut", TcpMatch(sources=("10.0.0.0/8", "192.0.2.0/24"))),
)
ROW = Outbound(
    "default",
    http=(TABLE,),
    tcp=(
        OutboundTcp("240.240.0.1", 3306, DB, routes=ROUTES),
        OutboundTcp("240.240.0.2", 3306, DB, sniffed=True),
        OutboundTcp("198.51.100.0/24", 3306, NET),
        OutboundTcp("", 3306, WILD, names=("*.a.example",)),
        OutboundTcp("", 80, WILD, names=("*.a.example",)),
    ),
)


def carried(address: str, port: int = 3306, **more: str | bool | None) -> Carried:
    return carry(ROW, msgspec.convert({"address": address, "port": port, **more}, Connection))


def goes(found: Carried) -> dict[str, float]:
    return {one.destination.hostname: one.part for one in found.shares}


def test_the_first_rule_that_holds_decides() -> None:
    """Broken: a description would name another rule than that which Envoy follows."""
    assert goes(carried("240.240.0.1", source="10.0.0.9")) == {"v1": 0.75, "v2": 0.25}
    assert goes(carried("240.240.0.1", sni="b.a.example", source="10.0.0.9")) == {"v1": 1.0}
    assert carried("240.240.0.1", source="192.0.2.9").way is Way.CLOSED
    found = carried("240.240.0.1", source="203.0.113.9")
    assert (goes(found), found.route) == ({"db": 1.0}, None)


@pytest.mark.parametrize(
    ("address", "port", "more", "way", "to_whom"),
    [
        ("240.240.0.2", 3306, {"http": True}, Way.HTTP, {}),
        ("240.240.0.2", 3306, {}, Way.FORWARD, {"db": 1.0}),
        ("198.51.100.7", 3306, {}, Way.FORWARD, {"net": 1.0}),
        ("203.0.113.7", 3306, {"sni": "b.a.example"}, Way.FORWARD, {"*.a.example": 1.0}),
        ("203.0.113.7", 3306, {"sni": "a.example"}, Way.PASSTHROUGH, {}),
        ("203.0.113.7", 3306, {}, Way.PASSTHROUGH, {}),
        ("203.0.113.7", 80, {}, Way.HTTP, {}),
        ("203.0.113.7", 80, {"sni": "b.a.example"}, Way.FORWARD, {"*.a.example": 1.0}),
        ("203.0.113.7", 80, {"sni": "other.example"}, Way.PASSTHROUGH, {}),
        ("203.0.113.7", 443, {}, Way.PASSTHROUGH, {}),
    ],
)
def test_whose_it_is(address: str, port: int, more: dict[str, str | bool], way: Way, to_whom: dict[str, float]) -> None:
    """Broken: of several services at one port the wrong one would be said to be called."""
    found = carried(address, port, **more)
    assert (found.way, goes(found)) == (way, to_whom)


def test_what_the_mesh_does_not_know() -> None:
    """Broken: a mesh that lets nothing out would be described as one that does."""
    unknown = Connection("203.0.113.7", 9)
    assert carry(msgspec.structs.replace(ROW, registry_only=True), unknown).way is Way.CLOSED
    assert goes(carry(msgspec.structs.replace(ROW, unknown=NET), unknown)) == {"net": 1.0}
