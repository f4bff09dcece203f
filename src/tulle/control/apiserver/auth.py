"""Who asks (from the verified client certificate) and what they may do (a fixed table, until RBAC kinds are served)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MASTERS = "system:masters"
NODES = "system:nodes"

_READ = frozenset({"get", "list", "watch"})
_WRITE = _READ | {"create", "update", "patch", "delete"}
_NODE_RULES: Mapping[str, frozenset[str]] = {
    "services": _WRITE,
    "serviceaccounts": _WRITE,
    "workloadentries.networking.istio.io": _WRITE,
    "namespaces": _READ,
}


@dataclass(frozen=True, slots=True)
class User:
    """A caller: `name` and `groups` as Kubernetes has them; `identity` is the certificate's SPIFFE URI, or ""."""

    name: str
    groups: tuple[str, ...] = ()
    identity: str = ""


def identify(certificate: Mapping[str, Any] | None, trust_domain: str) -> User | None:
    """The user of a certificate that TLS has verified (`getpeercert()`), or None where there is none.

    A SPIFFE identity decides alone: names and groups in the same certificate's subject are not looked at.
    """
    if not certificate:
        return None
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI" and value.startswith("spiffe://")]
    if uris:
        return _spiffe_user(uris[0], trust_domain) if len(uris) == 1 else None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    name = next((value for field, value in subject if field == "commonName"), "")
    if not name:
        return None
    return User(name, (*(value for field, value in subject if field == "organizationName"), "system:authenticated"))


def _spiffe_user(uri: str, trust_domain: str) -> User | None:
    path = uri.removeprefix(f"spiffe://{trust_domain}/")
    if path == uri:
        return None
    match path.split("/"):
        case ["node", name] if name:
            return User(f"system:node:{name}", (NODES, "system:authenticated"), uri)
        case ["ns", namespace, "sa", account] if namespace and account:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            return User(f"system:serviceaccount:{namespace}:{account}", groups, uri)
    return None


def allowed(user: User, verb: str, resource: str, subresource: str = "") -> bool:
    """Whether the user may do `verb` to a `resource` (`plural.group`)."""
    if MASTERS in user.groups:
        return True
    if NODES in user.groups and not subresource:
        return verb in _NODE_RULES.get(resource, frozenset())
    return False
