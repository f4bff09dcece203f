"""What of a Secret may be shown: which keys it has and which of them change, never a value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Raw = dict[str, Any]

REDACTED, CHANGED = "[redacted]", "[redacted, changed]"
_VALUES = ("data", "stringData")
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # kubectl's copy of the whole object, values included


def redacted(before: Raw | None, after: Raw | None) -> tuple[Raw | None, Raw | None]:
    """Both sides of a change (None: absent); of a Secret without its values, where which of them differ is still to be seen."""
    if not any(_is_secret(body) for body in (before, after)):
        return before, after
    return _without_values(before, None), _without_values(after, before)


def _is_secret(body: Mapping[str, Any] | None) -> bool:
    return body is not None and body.get("kind") == "Secret" and body.get("apiVersion") == "v1"


def _without_values(body: Raw | None, other: Raw | None) -> Raw | None:
    if body is None:
        return None
    result = {**body, "metadata": dict(body.get("metadata") or {})}
    for name in _VALUES:
        if isinstance(values := body.get(name), dict):
            others = (other or {}).get(name) or {}
            differs = {key for key, value in values.items() if key in others and others[key] != value}
            result[name] = {key: CHANGED if key in differs else REDACTED for key in values}
    if _APPLIED in (annotations := result["metadata"].get("annotations") or {}):
        result["metadata"]["annotations"] = {**annotations, _APPLIED: REDACTED}
    return result
