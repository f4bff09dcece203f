"""What people ask to see of a workload where it runs (`tulle logs`, `tulle tap`, Envoy's configuration), and how it travels.

person ──GET, held open──▶ control plane ──Looks, by long poll──▶ node ──Told, batch by batch──▶ control plane ──▶ person
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

# The most lines that a person may ask for from before, and the longest time (s) that a tap lasts.
MOST_TAIL = 100_000
LONGEST_TAP = 3600.0

_STATUS = re.compile(r"([1-5])xx|([1-5]\d\d)(?:-([1-5]\d\d))?")
_SHAPE = "5xx, 404 or 400-499, or several of these by commas"


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which requests: those for which all that is said holds. `statuses` are ranges, both ends included.

    `caller` is `NAMESPACE/SERVICEACCOUNT`; `addresses` are those of its workloads, for lines that do not name who called.
    `path` is how a path begins. `slower`: requests that took so many seconds and more.
    """

    statuses: tuple[tuple[int, int], ...] = ()
    caller: str = ""
    addresses: tuple[str, ...] = ()
    method: str = ""
    path: str = ""
    authority: str = ""
    slower: float = 0.0

    def status(self, code: int) -> bool:
        """Whether a status is one of them; 0 is no answer at all."""
        return not self.statuses or any(low <= code <= high for low, high in self.statuses)


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody looks. `kind` `logs`: the workload's access log, its last `tail` lines, and with `follow` those that come.
    `tap`: its requests, for at most `seconds`. `config`: its Envoy's `/config_dump`, whose text is in the `lines` end to end.
    """

    id: str
    workload: str
    kind: Literal["logs", "tap", "config"]
    wanted: Wanted = Wanted()
    tail: int = 0
    follow: bool = False
    seconds: float = 0.0


class Looks(msgspec.Struct, frozen=True):
    """What a node is to show now; `tag` is another when this is."""

    tag: str
    looks: tuple[Look, ...] = ()


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node has to show since the last time: lines of a log, or requests of a tap; `notes` are for the person.

    `ended`: there will be no more. `error` is why there is nothing.
    """

    lines: tuple[str, ...] = ()
    requests: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    ended: bool = False
    error: str = ""


def statuses(text: str) -> tuple[tuple[int, int], ...]:
    """The ranges of a person's words. Raises ValueError with the sentence that says what is needed."""
    found = []
    for word in filter(None, (one.strip() for one in text.split(","))):
        match = _STATUS.fullmatch(word.lower())
        if match is None:
            raise ValueError(f"found {word!r}; needed {_SHAPE}")
        hundreds, low, high = match.groups()
        one = (int(hundreds) * 100, int(hundreds) * 100 + 99) if hundreds else (int(low), int(high or low))
        if one[0] > one[1]:
            raise ValueError(f"found {word!r}; needed {_SHAPE}")
        found.append(one)
    return tuple(found)


def least_status(looks: Sequence[Look]) -> int:
    """The lowest status that any of them wants; 0 where one wants all."""
    return min((min((low for low, _high in one.wanted.statuses), default=0) for one in looks), default=0)
