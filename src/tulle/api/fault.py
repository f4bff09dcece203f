"""A broken rule, before it is a `Problem` of an object."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A broken rule: where (`at`: JSON names and list indices below the schema that has the rule), and found and needed."""

    at: tuple[str | int, ...]
    message: str
    reason: str = "Invalid"
