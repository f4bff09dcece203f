"""Parts that several of Istio's kinds have: text matches, selectors, ports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tulle.api.object import Fault, Ruled, Schema
from tulle.api.regex import regex_fault
from tulle.api.rules import at_most_one
from tulle.api.values import Double, Map, UInt32


class StringMatch(Ruled):
    """A comparison of a text: one of the three."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None  # RE2, of the whole text

    def faults(self) -> Iterator[Fault]:
        """One of the three; an RE2 expression."""
        yield from at_most_one(self, "exact", "prefix", "regex")
        if self.regex is not None:
            yield from regex_fault(self.regex, "regex")


class Percent(Ruled):
    """A share of requests in percent."""

    value: Double = 0.0

    def faults(self) -> Iterator[Fault]:
        """Between 0 and 100."""
        if not 0 <= self.value <= 100:
            yield Fault(("value",), f"found {self.value:g}; needed a percentage from 0 to 100")


class PortSelector(Ruled):
    """A port of a service by number."""

    number: UInt32 = 0

    def faults(self) -> Iterator[Fault]:
        """A port number."""
        if not 1 <= self.number <= 65535:
            yield Fault(("number",), f"found {self.number}; needed a port from 1 to 65535")


class WorkloadSelector(Ruled):
    """Workloads by their labels."""

    match_labels: Annotated[Map[Annotated[str, Field(max_length=63)]], Field(max_length=4096)] = Field(default_factory=dict)

    def faults(self) -> Iterator[Fault]:
        """Labels are compared as they stand."""
        for key, value in self.match_labels.items():
            if not key:
                yield Fault(("matchLabels",), "found an empty key; needed a label's name")
            if "*" in key or "*" in value:
                yield Fault(("matchLabels", key), f'found "{key}: {value}"; needed a label without wildcards')


class Labels(Schema):
    """Nothing but labels."""

    labels: Map[str] = Field(default_factory=dict)
