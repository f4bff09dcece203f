"""What a status says: conditions and upstream's other fields, without the times and generations that the writer adds."""

from __future__ import annotations

from typing import Any

import msgspec

from tulle.core.compile.listeners import Fault

# The reason of a condition that is not decided yet. It never takes the place of one that is True for the same generation.
PENDING = "Pending"


class Condition(msgspec.Struct, frozen=True):
    """A condition as upstream's `metav1.Condition` has it; `status` is `True`, `False` or `Unknown`.

    `waits`: it holds once these proxies (by id; empty: all of them) have acknowledged; None: it holds now. `kept`: while it is
    True for one generation its message stays as it was first written, for it counts what comes and goes.
    """

    type: str
    status: str
    reason: str
    message: str = ""
    waits: tuple[str, ...] | None = None
    kept: bool = False


class Part(msgspec.Struct, frozen=True):
    """An item of a list with conditions of its own: a listener, a parent, an ancestor. `fields` are the others, as JSON."""

    fields: dict[str, Any]
    conditions: tuple[Condition, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """The status of an object: top-level `conditions`, `parts` by the name of their list, and other `fields` as JSON.

    `numbered`: the kind has an `observedGeneration` of its own at the top (Istio's).
    """

    conditions: tuple[Condition, ...] = ()
    parts: dict[str, tuple[Part, ...]] = {}
    fields: dict[str, Any] = {}
    numbered: bool = False


def true(type_: str, reason: str = "", message: str = "", waits: tuple[str, ...] | None = None) -> Condition:
    """A condition that holds; its reason is its type unless said otherwise."""
    return Condition(type_, "True", reason or type_, message, waits)


def false(type_: str, reason: str, message: str) -> Condition:
    """A condition that does not hold."""
    return Condition(type_, "False", reason, message)


def refused(type_: str, fault: Fault) -> Condition:
    """A condition that does not hold because of a fault: the field, found and needed."""
    return false(type_, fault.reason, f"{fault.path}: {fault.message}" if fault.path else fault.message)
