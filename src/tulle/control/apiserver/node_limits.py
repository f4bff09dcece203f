"""What a node may write of what its role grants: its own. Another node's workloads, what a person wrote, and namespaces that its
join token does not name it may not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tulle.control.apiserver.auth import NODES, User
from tulle.control.apiserver.target import Target

Raw = dict[str, Any]
# The globs over `namespace/serviceaccount` that a node's join token named; None where no node of that name joined.
Identities = Callable[[str], Awaitable[Sequence[str] | None]]

_NODE = "tulle.dev/node"  # on a WorkloadEntry: the node that runs the workload
_MADE = "tulle.dev/made-by-node"  # on a Service that no person wrote
_PREFIX = "system:node:"
_FOR = "tulle.dev/gateway"  # a label, on a Lease: the Gateway that some node is to start a workload for
_ENTRIES, _SERVICES, _ACCOUNTS = "workloadentries.networking.istio.io", "services", "serviceaccounts"
_LEASES = "leases.coordination.k8s.io"


async def fault(user: User, target: Target, body: Raw | None, old: Raw | None, identities: Identities | None) -> str:
    """Why a user that is a node may not write this; "" where it may. `body` None: a delete; `old` None: a create."""
    if NODES not in user.groups:
        return ""
    if not user.name.startswith(_PREFIX):
        return f"{user.name} is in the group {NODES} and is no node"
    node, resource = user.name.removeprefix(_PREFIX), target.kind.resource
    for what in (body, old):
        if what is None:
            continue
        if resource == _ENTRIES and (owner := _annotation(what, _NODE)) != node:
            of = f"node {owner}" if owner else "no node"
            return f"node {node} may write its own WorkloadEntries only, and this one is of {of} (annotation {_NODE})"
        if resource == _SERVICES and _annotation(what, _MADE) != "true":
            return f"node {node} may write only Services that nodes made (annotation {_MADE})"
        if resource == _LEASES and (why := _lease(node, what, old or what)):
            return why
    if body is None or identities is None or resource not in (_ENTRIES, _SERVICES, _ACCOUNTS, _LEASES):
        return ""
    globs = [glob.split("/") for glob in await identities(node) or ()]
    account = _account(resource, target, body)
    if any(fnmatchcase(target.namespace, namespace) and (not account or fnmatchcase(account, name)) for namespace, name in globs):
        return ""
    place = f"service account {target.namespace}/{account}" if account else f"namespace {target.namespace}"
    return f"the join token of node {node} does not name {place}"


def _lease(node: str, what: Raw, old: Raw) -> str:
    """Why a node may not write a Lease: it takes and gives back what is for it, and no more."""
    if not all((one["metadata"].get("labels") or {}).get(_FOR) for one in (what, old)):
        return f"node {node} may write Leases for Gateways only (label {_FOR})"
    if _annotation(old, _NODE) not in ("", node):
        return f"this Lease is for node {_annotation(old, _NODE)} (annotation {_NODE})"
    if what is not old and (what.get("spec") or {}).get("holderIdentity") not in (None, "", node):
        return f"node {node} may take a Lease for itself only"
    return ""


def _account(resource: str, target: Target, body: Raw) -> str:
    """The service account that a written object is about; "" for a Service, which is about a namespace. A Lease has its name."""
    if resource == _ENTRIES:
        return str(body["spec"].get("serviceAccount") or "default")
    return target.name if resource in (_ACCOUNTS, _LEASES) else ""


def _annotation(body: Raw, name: str) -> str:
    return str((body["metadata"].get("annotations") or {}).get(name, ""))
