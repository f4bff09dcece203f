"""What does not change once an object is there: rules that compare an object with what it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tulle.api.fault import Fault
from tulle.api.kind import Kind
from tulle.api.sentences import found

# By resource, the fields that keep their first value.
_IMMUTABLE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "gatewayclasses.gateway.networking.k8s.io": (("spec", "controllerName"),),
    "endpointslices.discovery.k8s.io": (("addressType",),),
}


def transition_faults(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fault]:
    """What an update changes and must not; both objects as JSON, with their defaults, and right in themselves."""
    for path in _IMMUTABLE.get(kind.resource, ()):
        before, after = _at(old, path), _at(new, path)
        if before is not None and before != after:
            shown = "nothing" if after is None else found(after)
            yield Fault(path, f"found {shown}; needed {found(before)}, for it does not change: make another object")


def _at(body: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        body = body.get(step) if isinstance(body, Mapping) else None
    return body
