"""What only the leader does."""

from __future__ import annotations

from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.garbage import GarbageCollector
from tulle.control.gateway_starts import GatewayStarter
from tulle.control.infrastructure import InfrastructureWriter
from tulle.control.leader import Controllers
from tulle.control.rollouts.controller import Rollouts
from tulle.control.status import StatusWriter
from tulle.control.store.history import HistoryKeeper
from tulle.ports import Store


def controllers(
    store: Store,
    objects: Objects,
    events: Events,
    status: StatusWriter,
    infrastructure: InfrastructureWriter,
    starter: GatewayStarter,
    rollouts: Rollouts,
    history: float,
) -> Controllers:
    """The mesh's controllers, by name. `history`: seconds that changes are kept."""
    return {
        "events": events.run,
        "garbage": GarbageCollector(store, objects, events).run,
        "status": status.run,
        "infrastructure": infrastructure.run,
        "gateways": starter.run,
        "rollouts": rollouts.run,
        "history": HistoryKeeper(store, history).run,
    }
