"""Kubernetes' Lease: who holds something, and until when; for clients that elect a leader. The mesh reads none of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tulle.api.object import Fault, Object, Ruled
from tulle.api.times import MicroTime
from tulle.api.values import Int32


class LeaseSpec(Ruled):
    """A holder, and how long it counts as alive after it last renewed the lease."""

    holder_identity: str | None = None
    lease_duration_seconds: Int32 | None = None
    acquire_time: MicroTime | None = None
    renew_time: MicroTime | None = None
    lease_transitions: Int32 | None = None
    strategy: str | None = None
    preferred_holder: str | None = None

    def faults(self) -> Iterator[Fault]:
        """Numbers that can be; a strategy where a holder is preferred."""
        if self.lease_duration_seconds is not None and self.lease_duration_seconds <= 0:
            yield Fault(("leaseDurationSeconds",), f"found {self.lease_duration_seconds}; needed a number above 0", "OutOfRange")
        if self.lease_transitions is not None and self.lease_transitions < 0:
            yield Fault(("leaseTransitions",), f"found {self.lease_transitions}; needed 0 or more", "OutOfRange")
        if self.preferred_holder and not self.strategy:
            yield Fault(("strategy",), "found nothing; needed it, for there is a preferredHolder", "Required")


class Lease(Object):
    """A lease."""

    kind: Literal["Lease"] = "Lease"
    spec: LeaseSpec = Field(default_factory=LeaseSpec)
