"""What proxies have acknowledged → the conditions that wait for them, decided. Pure; runs without computing a row again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec

from tulle.core.status.rows import PENDING, Condition, Part, Status


class Progress(Protocol):
    """How far a connected proxy is, as `xds.status.Progress` tells it."""

    @property
    def proxy(self) -> str:
        """Its id."""
        ...

    @property
    def synced(self) -> int:
        """The latest revision with nothing outstanding."""
        ...

    @property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """What it refuses now, by (type URL, name), and why."""
        ...

    @property
    def count(self) -> int:
        """For how many proxies it stands."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """What a status is decided by.

    `proxies` are the connected ones by id. `since(proxy)` is the revision that a proxy has to have acknowledged for this object.
    `blame` is (proxy, sentence) where a proxy refuses what this object makes.
    """

    proxies: Mapping[str, Progress]
    since: Callable[[str], int]
    blame: tuple[str, str] | None = None


def decided(status: Status, asked: Asked) -> Status:
    """The status with every condition that waits for proxies decided."""
    return msgspec.structs.replace(
        status,
        conditions=_all(status.conditions, asked),
        parts={
            name: tuple(Part(one.fields, _all(one.conditions, asked)) for one in parts) for name, parts in status.parts.items()
        },
    )


def waits(status: Status) -> bool:
    """Whether any of it waits for proxies."""
    return any(one.waits is not None for one in _conditions(status))


def pending(status: Status) -> bool:
    """Whether any of a decided status is still to come."""
    return any(one.reason == PENDING for one in _conditions(status))


def _conditions(status: Status) -> Iterator[Condition]:
    yield from status.conditions
    yield from (one for parts in status.parts.values() for part in parts for one in part.conditions)


def _all(conditions: tuple[Condition, ...], asked: Asked) -> tuple[Condition, ...]:
    return tuple(_decided(one, asked) if one.waits is not None else one for one in conditions)


def _decided(condition: Condition, asked: Asked) -> Condition:
    everybody = not condition.waits
    names = sorted(asked.proxies) if everybody else condition.waits or ()
    connected = [asked.proxies[name] for name in names if name in asked.proxies]
    done = [one for one in connected if one.synced >= asked.since(one.proxy)]
    up_to_date, all_ = (sum(one.count for one in some) for some in (done, connected))
    count = f"{up_to_date}/{all_} proxies up to date to latest generation"

    def said(status: str, reason: str, message: str) -> Condition:
        return msgspec.structs.replace(condition, status=status, reason=reason, message=message, waits=None)

    if asked.blame is not None:
        proxy, why = asked.blame
        return said("False", "Refused" if everybody else "Invalid", f"{proxy} refuses it: {why}")
    if not connected:
        whom = "no proxy is" if everybody else f"the proxy of {', '.join(names)} is not"
        return said("Unknown", PENDING, f"{whom} connected")
    if len(done) < len(connected):
        behind = ", ".join(one.proxy for one in connected if one not in done)
        return said("False", PENDING, count if everybody else f"waiting for {behind} to acknowledge it")
    return said("True", condition.reason, count if everybody else condition.message)
