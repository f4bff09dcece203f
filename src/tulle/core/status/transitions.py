"""Two statuses of an object → the conditions that turned, for the Events that tell people of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tulle.core.status.merge import OURS
from tulle.core.status.rows import PENDING

# Conditions that are bad news where they are True.
_INVERSE = frozenset({"Conflicted", "PartiallyInvalid"})


class Turn(msgspec.Struct, frozen=True):
    """A condition that turned: `bad` is a Warning; with the condition's own reason and message."""

    bad: bool
    reason: str
    message: str


def turns(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[Turn]:
    """What went wrong, and what is right again. What was never wrong and what is not decided yet is no news."""
    before, found = dict(_conditions(old or {})), []
    for place, one in _conditions(new):
        was, is_ = _bad(before.get(place)), _bad(one)
        if is_ and not was:
            found.append(_turn(place, one, bad=True))
        elif was and is_ is False:
            found.append(_turn(place, one, bad=False))
    return list(dict.fromkeys(found))


def _turn(place: tuple[str, str], one: Mapping[str, Any], *, bad: bool) -> Turn:
    where = f"{place[0]}: " if place[0] else ""
    return Turn(bad, str(one.get("reason", "")), f"{where}{place[1]}: {one.get('message', '')}")


def _bad(one: Mapping[str, Any] | None) -> bool | None:
    """Whether a condition is bad news; None where it is not decided."""
    if one is None or one.get("reason") == PENDING or one.get("status") == "Unknown":
        return None
    return bool(one.get("status") == ("True" if one.get("type") in _INVERSE else "False"))


def _conditions(status: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """Every condition of ours by (where, type)."""
    places = [("", status), *((f"listener {one.get('name')}", one) for one in _items(status, "listeners"))]
    for field, reference in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
        for one in _items(status, field):
            ref = one.get(reference)
            places.append((f"{ref.get('kind')} {ref.get('name')}" if isinstance(ref, dict) else "", one))
    for where, place in places:
        for one in _items(place, "conditions"):
            if one.get("type") in OURS:
                yield (where, str(one["type"])), one


def _items(status: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    value = status.get(field)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
