"""Who asks, and the contract of who may: `User`, `Attributes`, `Decision`, `Authorizer`.

    certificate or token ──▶ User ──┐
    method and path ──▶ Attributes ─┴─▶ Authorizer.allowed ──▶ Decision

`guard.py` asks for a request; the routes only know the guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MASTERS = "system:masters"
NODES = "system:nodes"
AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True, slots=True)
class User:
    """A caller: `name`, `groups`, `uid` and `extra` as Kubernetes has them.

    `identity` is the SPIFFE URI of the certificate that was shown, or "". `actor` is the name of the user who acts as this one
    (impersonation), or "".
    """

    name: str
    groups: tuple[str, ...] = ()
    identity: str = ""
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    actor: str = ""

    @property
    def author(self) -> str:
        """The name for the history: of an impersonated user, with the name of the one who really wrote."""
        return f"{self.name} (by {self.actor})" if self.actor else self.name


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked for: a `verb` on a resource (`group`, `resource` as its plural, ...), or, without a resource, on a `path`.

    `name` "" is the collection; `namespace` "" is the cluster scope, or all namespaces.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and why (for people who review access)."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Decides from what it knows already; quick enough to ask for every request and every object of one."""

    async def allowed(self, user: User, request: Attributes) -> Decision:
        """Says no to a user or a request that it does not know. Raises `Unavailable` where it cannot say (yet)."""
        ...


def identify(certificate: Mapping[str, Any] | None, trust_domain: str) -> User | None:
    """The user of a certificate that TLS has verified (`getpeercert()`), or None where there is none.

    A SPIFFE identity (any URI at all) decides alone: names and groups in the same certificate's subject are not looked at. A
    subject with several names, or with something in it that a log would not show, is nobody's.
    """
    if not certificate:
        return None
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if uris:
        return _spiffe_user(uris[0], trust_domain) if len(uris) == 1 else None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    names = [value for field, value in subject if field == "commonName"]
    groups = [value for field, value in subject if field == "organizationName"]
    if len(names) != 1 or not all(value and value.isprintable() for value in (*names, *groups)):
        return None
    return User(names[0], (*groups, AUTHENTICATED))


def _spiffe_user(uri: str, trust_domain: str) -> User | None:
    path = uri.removeprefix(f"spiffe://{trust_domain}/")
    if path == uri:
        return None
    match path.split("/"):
        case ["node", name] if name:
            return User(f"system:node:{name}", (NODES, AUTHENTICATED), uri)
        case ["ns", namespace, "sa", account] if namespace and account:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
            return User(f"system:serviceaccount:{namespace}:{account}", groups, uri)
    return None
