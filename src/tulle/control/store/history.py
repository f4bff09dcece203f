"""What of the past is kept: for how long, how much, and of which objects. The stores keep it; this says what.

The history is not the log of `state.py`: that one is short and serves watches; this one is long, has authors, and serves people.
"""

from __future__ import annotations

from tulle.ports import Key

AGE = 30 * 24 * 3600.0  # seconds that a change is kept, unless a setting says otherwise
COUNT = 50_000  # changes that are kept at most
_PASSING = frozenset({"events", "events.events.k8s.io", "leases.coordination.k8s.io"})


def kept(key: Key) -> bool:
    """Whether changes of this key belong into the history: not what the mesh notes for itself, nor what passes by itself."""
    return not key.resource.startswith("_") and key.resource not in _PASSING


def among(key: Key, resource: str | None, namespace: str | None, name: str | None) -> bool:
    """Whether a history of these (None: any) has the key in it."""
    return resource in (None, key.resource) and namespace in (None, key.namespace) and name in (None, key.name)
