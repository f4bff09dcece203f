"""What a node may write of what its role grants: its own. Another node's workloads, and what a person wrote, it may not."""

from __future__ import annotations

from typing import Any

from tulle.control.apiserver.auth import NODES, User

Raw = dict[str, Any]

_NODE = "tulle.dev/node"  # on a WorkloadEntry: the node that runs the workload
_MADE = "tulle.dev/made-by-node"  # on a Service that no person wrote
_PREFIX = "system:node:"


def fault(user: User, resource: str, body: Raw | None, old: Raw | None) -> str:
    """Why a user that is a node may not write this; "" where it may. `body` None: a delete; `old` None: a create."""
    if NODES not in user.groups:
        return ""
    if not user.name.startswith(_PREFIX):
        return f"{user.name} is in the group {NODES} and is no node"
    node = user.name.removeprefix(_PREFIX)
    if resource == "workloadentries.networking.istio.io":
        for what in (body, old):
            if what is not None and (owner := _annotation(what, _NODE)) != node:
                of = f"node {owner}" if owner else "no node"
                return f"node {node} may write its own WorkloadEntries only, and this one is of {of} (annotation {_NODE})"
    if resource == "services":
        for what in (body, old):
            if what is not None and _annotation(what, _MADE) != "true":
                return f"node {node} may write only Services that nodes made (annotation {_MADE})"
    return ""


def _annotation(body: Raw, name: str) -> str:
    return str((body["metadata"].get("annotations") or {}).get(name, ""))
