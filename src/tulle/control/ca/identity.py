"""SPIFFE IDs of this mesh: which texts are one, and which globs of a join token allow one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from tulle.kit.errors import Refused

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_LONGEST = 2048  # bytes, by the SPIFFE standard
_NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def check_trust_domain(name: str) -> None:
    """Raises `Refused` where this is no SPIFFE trust domain."""
    if not _TRUST_DOMAIN.fullmatch(name):
        raise Refused(f"trust domain: found {name!r}, needed lower-case letters, digits, '.', '-' and '_', at most 255")


def check_identity(identity: str, trust_domain: str) -> None:
    """Raises `Refused` where this is no SPIFFE ID of a workload, a node or the control plane in the trust domain."""
    prefix = f"spiffe://{trust_domain}/"
    segments = identity.removeprefix(prefix).split("/")
    if not identity.startswith(prefix) or len(identity) > _LONGEST:
        raise Refused(f"identity: found {identity[:200]!r}, needed a SPIFFE ID that starts with {prefix!r}")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise Refused(f"identity: found {identity!r}, needed path segments of letters, digits, '.', '-' and '_'")


def node_identity(trust_domain: str, node: str) -> str:
    """The SPIFFE ID of a node agent; raises `Refused` where the name cannot be one."""
    if not _NODE_NAME.fullmatch(node):
        raise Refused(f"node: found {node[:200]!r}, needed a host name: letters, digits, '.', '-' and '_', at most 253")
    return f"spiffe://{trust_domain}/node/{node}"


def node_of(identity: str, trust_domain: str) -> str:
    """The name of the node that this identity belongs to, "" where it is no node's."""
    prefix = f"spiffe://{trust_domain}/node/"
    return identity.removeprefix(prefix) if identity.startswith(prefix) else ""


def allowed(identity: str, trust_domain: str, globs: Iterable[str]) -> bool:
    """Whether a workload's identity (`spiffe://TD/ns/NS/sa/SA`) is among globs over `NS/SA`. `*` does not cross the `/`."""
    match identity.removeprefix(f"spiffe://{trust_domain}/").split("/"):
        case ["ns", namespace, "sa", account]:
            pairs = (glob.split("/") for glob in globs)
            return any(len(pair) == 2 and fnmatchcase(namespace, pair[0]) and fnmatchcase(account, pair[1]) for pair in pairs)
    return False
