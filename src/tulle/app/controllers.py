"""What only the leader does, and what has to hear of proxies that move."""

from __future__ import annotations

from collections.abc import Callable

from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.garbage import GarbageCollector
from tulle.control.leader import Controllers
from tulle.control.status import StatusWriter
from tulle.control.store.history import HistoryKeeper
from tulle.ports import Store
from tulle.xds.server import Observer
from tulle.xds.status import Nack


def controllers(store: Store, objects: Objects, events: Events, status: StatusWriter, history: float) -> Controllers:
    """The mesh's controllers, by name. `history`: seconds that changes are kept."""
    return {
        "events": events.run,
        "garbage": GarbageCollector(store, objects, events).run,
        "status": status.run,
        "history": HistoryKeeper(store, history).run,
    }


class Moves(Observer):
    """Tells that a proxy moved: that is all that the status writer has to hear."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved

    def connected(self, proxy: str, stream: int) -> None:
        """It came."""
        self._moved()

    def disconnected(self, proxy: str, stream: int) -> None:
        """It went."""
        self._moved()

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        """It refused something."""
        self._moved()

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        """It has acknowledged everything."""
        self._moved()
