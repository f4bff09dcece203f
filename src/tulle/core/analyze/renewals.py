"""Certificates of what runs that should have been renewed by now: nothing that a text says, so that only a live mesh has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.kit.problem import Problem, Ref, Severity


class Renewal(msgspec.Struct, frozen=True):
    """A certificate that `holder` (`namespace/name` of a workload, or `node/NAME`) has. Times are seconds since the epoch."""

    holder: str
    node: str
    due: float
    not_after: float


def late(renewals: Iterable[Renewal], now: float) -> Iterator[Problem]:
    """Those whose holders are late."""
    for one in renewals:
        if one.due > now:
            continue
        space, _, name = one.holder.partition("/")
        ref = Ref("Node", "", name) if space == "node" else Ref("WorkloadEntry", space, name, "networking.istio.io")
        left = one.not_after - now
        when = f"ends in {left / 60:.0f} minutes" if left > 0 else "has ended"
        message = f"its certificate should have been renewed {(now - one.due) / 60:.0f} minutes ago and {when} (node {one.node})"
        yield Problem(ref, "", "CertificateNotRenewed", message, severity=Severity.WARNING)
