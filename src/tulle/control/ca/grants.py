"""Who may have which identity signed: one answer for certificates and for tokens."""

from __future__ import annotations

from tulle.control.ca.identity import allowed, node_of
from tulle.control.ca.nodes import NodeRecord, Nodes
from tulle.kit.errors import Refused


async def check_granted(nodes: Nodes, trust_domain: str, caller: str, identity: str) -> NodeRecord | None:
    """The record of the node that asks, None where it is none.

    Raises `Refused` where `caller`, the SPIFFE ID of a verified client certificate, may not have `identity` signed.

    A node may have what its join token named, and its own; any other certificate of the mesh its own alone.
    """
    if not caller:
        raise Refused("a client certificate of this mesh is needed")
    for one in dict.fromkeys((caller, identity)):
        await nodes.check(one)
    node = node_of(caller, trust_domain)
    record = await nodes.get(node) if node else None
    if node and record is None:
        raise Refused(f"node {node!r} has not joined, or was taken out")
    if identity == caller:
        return record
    if record is None:
        raise Refused(f"{caller} may renew its own certificate only")
    if not allowed(identity, trust_domain, record.identities):
        globs = ", ".join(record.identities) or "none"
        raise Refused(f"identity: found {identity!r}, but the node's join token allows {globs}")
    return record
