"""The kinds of routes of the Gateway API: those that become HTTP routes, with the rules of each, and those of connections."""

from __future__ import annotations

from collections.abc import Mapping

from tulle.core.compile.grpc_routes import grpc_route_rules
from tulle.core.compile.hostname import Key
from tulle.core.compile.http_routes import RankedRoutes, http_route_rules
from tulle.core.flow import Table

RULES: Mapping[str, Table[Key, RankedRoutes]] = {"HTTPRoute": http_route_rules, "GRPCRoute": grpc_route_rules}

L4 = ("TLSRoute", "TCPRoute")
