"""What one user may do, as a thing to ask: for the request as it comes, and for the objects that it really writes.

    routes ──▶ Guard.require(verb, target)            before anything is read
    Objects ──▶ Guard.check(verb, target, body, old)   with the object as it will be stored, after patches and defaults

`request[GUARD]` has it in sub-applications. Nobody grants what he does not have: a role is compared with its writer's own
rules, and a binding's role too, unless the writer has the verb `escalate` or `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from aiohttp import web

from tulle.control.apiserver import errors, node_limits
from tulle.control.apiserver.auth import Attributes, Authorizer, Decision, User
from tulle.control.apiserver.node_limits import Identities
from tulle.control.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    EVERYTHING,
    GROUP,
    ROLE_BINDINGS,
    ROLES,
    Granted,
    Rule,
    rules_of,
    uncovered,
)
from tulle.control.apiserver.target import Target

Raw = dict[str, Any]

_SAID = 10  # rules of a refusal that are named


class Roles(Protocol):
    """The rules behind the decisions (`rbac.Policy`)."""

    def role(self, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """Of a Role, or with namespace "" of a ClusterRole; None where there is none."""
        ...

    def rules(self, user: User, namespace: str) -> tuple[Granted, ...]:
        """What the user has there."""
        ...


class Guard:
    """The permissions of one user, for one request. `identities`: what the join tokens of nodes named."""

    def __init__(self, authorizer: Authorizer, user: User, roles: Roles, identities: Identities | None = None) -> None:
        self.authorizer, self.user, self.roles, self.identities = authorizer, user, roles, identities
        self._required: set[tuple[str, str, str]] = set()  # verb, resource, namespace

    async def allowed(self, asked: Attributes) -> Decision:
        """The plain question."""
        return await self.authorizer.allowed(self.user, asked)

    async def require(self, verb: str, target: Target, name: str = "") -> None:
        """Raises a `Denial` (403) where the user may not do `verb` to the target.

        `name` is for a list or watch that is about one object only.
        """
        kind = target.kind
        asked = Attributes(verb, kind.group, kind.plural, target.subresource, target.namespace, target.name or name)
        if not (await self.allowed(asked)).allowed:
            raise errors.forbidden(
                f'{kind.resource} "{target.name or name}" is forbidden: {_cannot(self.user, asked)}', kind, target.name
            )
        self._required.add((verb, kind.resource, target.namespace))

    async def require_path(self, verb: str, path: str) -> None:
        """Raises a `Denial` (403) where the user may not do `verb` (a method in lower case) to a path that is no resource."""
        if not (await self.allowed(Attributes(verb, path=path))).allowed:
            raise errors.forbidden(f'User "{self.user.name}" cannot {verb} path "{path}"')

    async def check(self, verb: str, target: Target, body: Raw | None, old: Raw | None) -> None:
        """The last word before a write: `verb` is `create`, `update` or `delete`; `body` None for a delete, `old` for a create.

        Raises a `Denial` (403) where this user may not write this content, and for a patch or an update that creates and whose
        user may not create; (422) where a binding's role changes.
        """
        if verb == "create" and (verb, target.kind.resource, target.namespace) not in self._required:
            await self.require(verb, target)
        if why := await node_limits.fault(self.user, target, body, old, self.identities):
            raise self._forbidden(target, why)
        if body is None or target.kind.group != GROUP or _only_garbage(body, old):
            return
        if target.kind.resource in (ROLES, CLUSTER_ROLES):
            await self._no_escalation(target, body, old)
        elif target.kind.resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            await self._no_foreign_role(target, body, old)

    async def _no_escalation(self, target: Target, body: Raw, old: Raw | None) -> None:
        name = "" if old is None else target.name  # of what is to be made, as Kubernetes has it, names are not known yet
        if await self._may("escalate", target.kind.plural, target.namespace, name):
            return
        wanted: Sequence[Rule] = rules_of(body)
        if body.get("aggregationRule") or (old or {}).get("aggregationRule"):
            wanted = EVERYTHING  # it may gather anything
        self._compare(target, wanted, "is attempting to grant RBAC permissions not currently held")

    async def _no_foreign_role(self, target: Target, body: Raw, old: Raw | None) -> None:
        ref = body["roleRef"]
        if old is not None and ref != old.get("roleRef"):
            was = old.get("roleRef") or {}
            wrong = f'found {ref["kind"]} "{ref["name"]}"; needed {was.get("kind")} "{was.get("name")}": a binding keeps its role'
            raise errors.bad_field(target.kind, target.name, "roleRef", f"cannot change roleRef: {wrong}")
        cluster = ref["kind"] == "ClusterRole"
        resource = "clusterroles" if cluster else "roles"
        if await self._may("bind", resource, target.namespace, ref["name"]):
            return
        wanted = self.roles.role("" if cluster else target.namespace, ref["name"])
        if wanted is None:
            message = f'{resource}.{GROUP} "{ref["name"]}" not found'
            raise errors.Denial(404, "NotFound", message, {"name": ref["name"], "kind": resource, "group": GROUP})
        self._compare(target, wanted, f'is attempting to grant the permissions of {ref["kind"]} "{ref["name"]}" and lacks some')

    async def _may(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        return (await self.allowed(Attributes(verb, GROUP, resource, "", namespace, name))).allowed

    def _compare(self, target: Target, wanted: Sequence[Rule], why: str) -> None:
        lacking = uncovered(wanted, [rule for rule, _ in self.roles.rules(self.user, target.namespace)])
        if lacking:
            groups = ", ".join(f'"{group}"' for group in self.user.groups)
            named = "\n".join(_sentence(rule) for rule in lacking[:_SAID])
            more = f"\nand {len(lacking) - _SAID} more" if len(lacking) > _SAID else ""
            raise self._forbidden(target, f'user "{self.user.name}" (groups=[{groups}]) {why}:\n{named}{more}')

    def _forbidden(self, target: Target, why: str) -> errors.Denial:
        return errors.forbidden(f'{target.kind.resource} "{target.name}" is forbidden: {why}', target.kind, target.name)


def _cannot(user: User, asked: Attributes) -> str:
    where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
    what = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    return f'User "{user.name}" cannot {asked.verb} resource "{what}" in API group "{asked.group}"{where}'


def _only_garbage(body: Raw, old: Raw | None) -> bool:
    """Whether only finalizers and owners change: what a garbage collector does without any of the rights in a role."""
    return old is not None and _without(body) == _without(old)


def _without(body: Raw) -> Raw:
    noise = ("finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation")
    metadata = {name: value for name, value in body["metadata"].items() if name not in noise}
    return {**{name: value for name, value in body.items() if name != "apiVersion"}, "metadata": metadata}


def _sentence(rule: Rule) -> str:
    """As kubectl's users know it: `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`."""
    names = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "resourceNames": "ResourceNames",
        "nonResourceURLs": "NonResourceURLs",
        "verbs": "Verbs",
    }
    raw = rule.raw()
    parts = (f"{word}:[{', '.join(f'{one!r}' for one in raw[field])}]" for field, word in names.items() if field in raw)
    return "{" + ", ".join(parts).replace("'", '"') + "}"


# What a request that the gate let in has; neither is there where nobody has said who he is.
USER = web.RequestKey("user", User)
GUARD = web.RequestKey("guard", Guard)
