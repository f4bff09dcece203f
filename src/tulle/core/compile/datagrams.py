"""Where datagrams go: the endpoints of the backends of a UDPRoute, each with what it has of its backend's share.

All datagrams of a client that come close together go to one endpoint, so weights are shares of clients. The share of a backend
that is not there, may not be named, or has no endpoint goes nowhere, as the Gateway API has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tulle.core.compile.endpoints import datagram_endpoints
from tulle.core.compile.services import called
from tulle.core.flow import Fetch
from tulle.core.model.destination import Endpoint, Locality
from tulle.core.model.route import WeightedDestination

_WHOLE = 1_000_000  # what the weights of all endpoints add up to
_NOWHERE = Endpoint(address="127.0.0.1", port=0)  # nothing can be sent to port 0


def weighed(fetch: Fetch, backends: Sequence[WeightedDestination]) -> tuple[Endpoint, ...]:
    """The endpoints of UDP ports of services, by these weights."""
    total = sum(share.weight for share in backends)
    # An instance may be behind several backends, and Envoy would know it by the first only.
    found: dict[tuple[str, int], Endpoint] = {}
    weights: dict[tuple[str, int], float] = {}
    for share in backends:
        named = called(fetch, share.destination.hostname, "")
        known = (fetch(datagram_endpoints, (named, share.destination.port)) or ()) if named else ()
        there = [it for it in known if it.healthy] or [_NOWHERE]
        whole = sum(it.weight for it in there)
        for it in there:
            place = (it.address, it.port)
            found[place] = it
            weights[place] = weights.get(place, 0) + share.weight / total * it.weight / whole
    made = (
        msgspec.structs.replace(it, weight=max(1, round(_WHOLE * weights[place])), locality=Locality())
        for place, it in found.items()
    )
    return tuple(sorted(made))
