"""Gateways for which a node is to start a gateway workload: those that nothing serves, and those that name a node.

Each has a Lease in its namespace (`control/gateway_starts.py` keeps them), which a node takes before it starts anything, so that
two never do. Who holds it, and what kept others from it, is read there for the Gateway's status.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from tulle.core.compile.gateway_workloads import is_ours, standing_workloads
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.objects import gateways, leases
from tulle.core.compile.places import places
from tulle.core.compile.workload_notes import NODE
from tulle.core.flow import Fetch, table

# On a Lease: the Gateway that it is for (a label), the TCP ports of its listeners, and the addresses that it wants.
FOR = "tulle.dev/gateway"
PORTS = "tulle.dev/ports"
ADDRESSES = "tulle.dev/addresses"
_LABEL = 63  # characters of a label's value


class Start(msgspec.Struct, frozen=True):
    """A workload that is to be started: its name, the node that alone may ("": any), its ports, and one of which addresses."""

    workload: str
    node: str = ""
    ports: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()


def started_name(gateway: str) -> str:
    """The name of the workload for a Gateway, and of its Lease; with a hash where the Gateway's has what a workload's may not."""
    made = f"{gateway}-tulle"
    if len(made) <= _LABEL and re.fullmatch("[a-z0-9-]+", made):
        return made
    digest = hashlib.sha256(gateway.encode()).hexdigest()[:8]
    return f"{gateway.replace('.', '-')[: _LABEL - 15].strip('-')}-{digest}-tulle"


@table
def gateway_start(fetch: Fetch, key: Key) -> Start | None:
    """What is to be started for a Gateway."""
    row = fetch(gateways, key)
    own, shared = fetch(standing_workloads, key) or ((), ())
    ours = row is not None and fetch(is_ours, row.spec.gateway_class_name)
    if row is None or not ours or own or shared or len(key[1]) > _LABEL:
        return None
    if fetch(gateway_fault, key) is not None:
        return None
    node = row.metadata.annotations.get(NODE, "")
    there, verdicts = fetch(places, key) or (), fetch(verdicts_of, key) or ()
    served = [place.listener for place, verdict in zip(there, verdicts, strict=True) if verdict.served]
    ports = {one.port for one in served if one.protocol != "UDP"}
    wanted = tuple(sorted(address.value for address in row.spec.addresses if address.value))
    return Start(started_name(key[1]), node, tuple(sorted(ports)), wanted) if served else None


@table
def gateway_starts(fetch: Fetch, _key: None) -> dict[Key, Start]:
    """All that is to be started, by Gateway."""
    return {key: one for key in fetch.keys(gateways) if (one := fetch(gateway_start, key))}


def start_said(fetch: Fetch, key: Key) -> str:
    """How far a Gateway's start is, for people; "" where nothing is to be started."""
    start = fetch(gateway_start, key)
    if start is None:
        return ""
    lease = fetch(leases, (key[0], start.workload))
    if lease and lease.holder:
        return f"node {lease.holder} is starting one"
    if lease and lease.refused:
        return "; ".join(f"node {node} cannot start one: {why}" for node, why in lease.refused)
    who = f"node {start.node} (annotation {NODE})" if start.node else "a node that runs with --gateways"
    return f"waiting for {who} to start one; `tulle gateway` does too"
