"""The listeners of a Gateway of the Gateway API, with those that ListenerSets add, and which of them cannot share a port.

A Gateway's own listeners stand first, as it has them; then those of each ListenerSet that it allows, the oldest set first. An
index into these `places` is what the rest of compile knows a listener by.

Of a Gateway's own listeners that are in each other's way none is served: the API forbids to pick a winner among them. A
ListenerSet gives way to the Gateway and to older sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tulle.api.gateway import Gateway, ListenerSet
from tulle.api.gateway.gateway import Listener
from tulle.core.compile.grants import from_namespace
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import age, gateways, listener_sets
from tulle.core.flow import Fetch, table

# Protocols of the Gateway API by what is first spoken on the port; those of one word can share one.
SPOKEN = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}


class Place(msgspec.Struct, frozen=True):
    """A listener, of the Gateway itself or of a ListenerSet (`set`), by its index there. Of two `rank`s the lower goes first."""

    listener: Listener
    index: int
    owner: Key
    set: Key | None = None
    rank: int = 0

    @property
    def kind(self) -> str:
        """The kind of the object that has the listener."""
        return "Gateway" if self.set is None else "ListenerSet"

    @property
    def path(self) -> str:
        """The field below that object."""
        return f"spec.listeners[{self.index}]"

    @property
    def name(self) -> str:
        """The listener in words that tell it from all others of the Gateway."""
        return self.listener.name if self.set is None else f"{self.listener.name} of ListenerSet {self.set[0]}/{self.set[1]}"


class Clash(msgspec.Struct, frozen=True):
    """Why a listener cannot share its port: `reason` is the Gateway API's. `mutual`: the other one is not served either."""

    reason: str
    message: str
    mutual: bool = True


@table
def places(fetch: Fetch, key: Key) -> tuple[Place, ...]:
    """All listeners of a Gateway."""
    row = fetch(gateways, key)
    if row is None:
        return ()
    found = [Place(listener, index, key) for index, listener in enumerate(row.spec.listeners)]
    for rank, added in enumerate(sorted(_sets(fetch, key, row), key=age), 1):
        owner = (added.metadata.namespace, added.metadata.name)
        found += (Place(one, index, owner, owner, rank) for index, one in enumerate(added.spec.listeners))
    return tuple(found)


def _sets(fetch: Fetch, key: Key, row: Gateway) -> list[ListenerSet]:
    return [one for one in fetch.rows(listener_sets, "gateway", key) if takes_set(fetch, row, one)]


def takes_set(fetch: Fetch, row: Gateway, added: ListenerSet) -> bool:
    """Whether a Gateway lets a ListenerSet add to it."""
    takes = row.spec.allowed_listeners.namespaces if row.spec.allowed_listeners else None
    if takes is None:
        return False
    return from_namespace(fetch, takes.from_, takes.selector, row.metadata.namespace, added.metadata.namespace)


@table
def clashes(fetch: Fetch, key: Key) -> dict[int, Clash]:
    """The listeners of a Gateway (by their place) that cannot share their port with another."""
    all_places = fetch(places, key) or ()
    found: dict[int, Clash] = {}
    taken: list[Place] = []
    for rank in sorted({one.rank for one in all_places}):
        mine = [(index, one) for index, one in enumerate(all_places) if one.rank == rank]
        for index, one in mine:
            if clash := _clash(one, taken):
                found[index] = msgspec.structs.replace(clash, mutual=False)
        left = [(index, one) for index, one in mine if index not in found]
        found |= {index: clash for index, one in left if (clash := _clash(one, [other for _index, other in left]))}
        taken += (one for index, one in left if index not in found)
    return found


def _clash(place: Place, among: Sequence[Place]) -> Clash | None:
    this = place.listener
    others = [other for other in among if other is not place and other.listener.port == this.port]
    others = [other for other in others if (this.protocol == "UDP") is (other.listener.protocol == "UDP")]
    unlike = [other for other in others if spoken(other.listener) != spoken(this)]
    alike = [other for other in others if spoken(other.listener) == spoken(this) and other.listener.hostname == this.hostname]
    if unlike:
        other = unlike[0]
        message = f"{this.protocol} cannot share port {this.port} with {other.listener.protocol} (listener {other.name})"
        return Clash("ProtocolConflict", message)
    if alike:
        host = f"hostname {this.hostname}" if this.hostname else "the same hostnames"
        return Clash("HostnameConflict", f"listener {alike[0].name} has port {this.port} and {host} too")
    return None


def spoken(listener: Listener) -> str:
    """What is first spoken on a listener's port."""
    return SPOKEN.get(listener.protocol, listener.protocol)
