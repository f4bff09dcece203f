"""Leases for gateways that nodes start: who has taken one, and who could not. When one was renewed is no row's business."""

from __future__ import annotations

import msgspec

from tulle.api.lease import Lease

# Before a node's name, in an annotation: why that node could not start the gateway.
REFUSED = "refused.tulle.dev/"


class Claim(msgspec.Struct, frozen=True):
    """The node that has taken a Lease ("": none), and of which nodes what kept them from it."""

    holder: str = ""
    refused: tuple[tuple[str, str], ...] = ()


def claim(lease: Lease) -> Claim:
    """What a Lease says. Of other people's Leases this means nothing, and nobody asks."""
    notes = sorted(lease.metadata.annotations.items())
    refused = tuple((key.removeprefix(REFUSED), why) for key, why in notes if key.startswith(REFUSED))
    return Claim(lease.spec.holder_identity or "", refused)
