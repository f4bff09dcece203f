"""Kubernetes' role-based access control, as a table that answers at once. Pure: objects in, decisions out.

    Role, ClusterRole ──▶ rules        RoleBinding, ClusterRoleBinding ──▶ by subject
                             └──────── Policy.allowed(user, attributes) ────────┘

Roles and bindings come as the bodies that are stored (`authorizer.py` keeps them current); what cannot be read grants nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tulle.control.apiserver.auth import Attributes, Decision, User

Raw = Mapping[str, Any]

GROUP = "rbac.authorization.k8s.io"
ROLES, CLUSTER_ROLES = f"roles.{GROUP}", f"clusterroles.{GROUP}"
ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS = f"rolebindings.{GROUP}", f"clusterrolebindings.{GROUP}"
RESOURCES = frozenset((ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS))

ALL = "*"
_REMEMBERED = 4096  # users and namespaces whose rules are kept put together
_MOST_PARTS = 50_000  # of a role that is compared part by part with what its writer may


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule: on resources, or on `paths` of the server that are none."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()

    def allows(self, asked: Attributes) -> bool:
        """Whether the rule grants what is asked."""
        if asked.verb not in self.verbs and ALL not in self.verbs:
            return False
        if asked.path:
            return any(_path_matches(pattern, asked.path) for pattern in self.paths)
        if asked.group not in self.groups and ALL not in self.groups:
            return False
        whole = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        if whole not in self.resources and ALL not in self.resources and not self._any_with(asked.subresource):
            return False
        return not self.names or asked.name in self.names

    def _any_with(self, subresource: str) -> bool:
        """`*/status`: that subresource of every resource."""
        return bool(subresource) and f"*/{subresource}" in self.resources

    def covers(self, other: Rule) -> bool:
        """Whether this rule alone grants all that the other does."""
        return (
            _within(other.verbs, self.verbs)
            and _within(other.groups, self.groups)
            and all(self._covers_resource(resource) for resource in other.resources)
            and all(any(_path_covers(own, path) for own in self.paths) for path in other.paths)
            and (not self.names or (bool(other.names) and other.names <= self.names))
        )

    def _covers_resource(self, resource: str) -> bool:
        return resource in self.resources or ALL in self.resources or self._any_with(resource.partition("/")[2])

    def parts(self) -> Iterator[Rule]:
        """Rules of one verb on one thing each, which together grant the same."""
        for verb in self.verbs:
            for path in self.paths:
                yield Rule(frozenset((verb,)), paths=(path,))
            names: Iterable[frozenset[str]] = [frozenset((name,)) for name in self.names] or [frozenset()]
            for group, resource, name in product(self.groups, self.resources, names):
                yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), name)

    @property
    def count(self) -> int:
        """How many `parts` there are."""
        return len(self.verbs) * (len(self.paths) + math.prod((len(self.groups), len(self.resources), max(1, len(self.names)))))

    def raw(self) -> dict[str, Any]:
        """As documents have it."""
        made: dict[str, Any] = {"verbs": sorted(self.verbs)}
        if self.paths:
            return made | {"nonResourceURLs": sorted(self.paths)}
        made |= {"apiGroups": sorted(self.groups), "resources": sorted(self.resources)}
        return made | ({"resourceNames": sorted(self.names)} if self.names else {})


EVERYTHING = (
    Rule(frozenset((ALL,)), frozenset((ALL,)), frozenset((ALL,))),
    Rule(frozenset((ALL,)), paths=(ALL,)),
)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in (ALL, path) or (pattern.endswith(ALL) and path.startswith(pattern[:-1]))


def _path_covers(own: str, other: str) -> bool:
    return own == other or (own.endswith(ALL) and other.startswith(own[:-1]))


def _within(wanted: frozenset[str], had: frozenset[str]) -> bool:
    return ALL in had or wanted <= had


def rules_of(role: Raw) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole."""
    found = role.get("rules")
    return tuple(rule_of(rule) for rule in found if isinstance(rule, Mapping)) if isinstance(found, list) else ()


def rule_of(rule: Raw) -> Rule:
    """One PolicyRule."""
    return Rule(
        _texts(rule, "verbs"),
        _texts(rule, "apiGroups"),
        _texts(rule, "resources"),
        _texts(rule, "resourceNames"),
        tuple(sorted(_texts(rule, "nonResourceURLs"))),
    )


def _texts(rule: Raw, field: str) -> frozenset[str]:
    found = rule.get(field)
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()


def uncovered(wanted: Sequence[Rule], had: Sequence[Rule]) -> list[Rule]:
    """The parts of `wanted` that `had` does not grant. A role of too many parts is not taken apart: it is one of them whole."""
    lacking: list[Rule] = []
    left = _MOST_PARTS
    for rule in wanted:
        if any(own.covers(rule) for own in had):
            continue
        left -= rule.count
        if left < 0:
            lacking.append(rule)
        else:
            lacking += [part for part in rule.parts() if not any(own.covers(part) for own in had)]
    return lacking


@dataclass(frozen=True, slots=True)
class _Binding:
    """A binding: its words for people, the scope ("" everywhere), the role that it gives, and to whom."""

    said: str
    namespace: str
    role: tuple[str, str]  # (namespace, name); ("", name) is a ClusterRole
    subjects: frozenset[str]


Granted = tuple[Rule, str]  # a rule, and the words that say by which binding


class Policy:
    """All roles and bindings. `put` keeps it current; `allowed` and `rules` read."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._bindings: dict[tuple[str, str], _Binding] = {}
        self._of_subject: dict[str, dict[tuple[str, str], _Binding]] = {}
        self._granted: dict[tuple[str, tuple[str, ...], str], tuple[Granted, ...]] = {}

    def put(self, resource: str, namespace: str, name: str, body: Raw | None) -> None:
        """Take in an object of one of `RESOURCES`; None where it is gone."""
        key = (namespace, name)
        if resource in (ROLES, CLUSTER_ROLES):
            if body is None:
                self._roles.pop(key, None)
            else:
                self._roles[key] = rules_of(body)
        elif resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            self._unbind(key)
            binding = None if body is None else _binding(namespace, name, body)
            if binding is not None:
                self._bindings[key] = binding
                for subject in binding.subjects:
                    self._of_subject.setdefault(subject, {})[key] = binding
        self._granted.clear()

    def _unbind(self, key: tuple[str, str]) -> None:
        binding = self._bindings.pop(key, None)
        for subject in binding.subjects if binding else ():
            held = self._of_subject[subject]
            del held[key]
            if not held:
                del self._of_subject[subject]

    def role(self, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """The rules of a Role (of a ClusterRole, where `namespace` is ""), or None where there is none."""
        return self._roles.get((namespace, name))

    def rules(self, user: User, namespace: str) -> tuple[Granted, ...]:
        """What the user has in a namespace: what is bound there, and what is bound everywhere ("": that alone)."""
        key = (user.name, user.groups, namespace)
        found = self._granted.get(key)
        if found is None:
            if len(self._granted) >= _REMEMBERED:
                self._granted.clear()
            found = self._granted[key] = tuple(self._put_together(user, namespace))
        return found

    def _put_together(self, user: User, namespace: str) -> Iterator[Granted]:
        bindings: dict[tuple[str, str], tuple[_Binding, str]] = {}
        for subject in (_user(user.name), *(_group(group) for group in user.groups)):
            for key, binding in self._of_subject.get(subject, {}).items():
                if binding.namespace in ("", namespace):
                    bindings.setdefault(key, (binding, subject))
        for binding, subject in bindings.values():
            for rule in self._roles.get(binding.role, ()):
                yield rule, f"{binding.said} to {subject}"

    def allowed(self, user: User, asked: Attributes) -> Decision:
        """Whether a role of the user grants it. Paths are granted by what is bound everywhere only."""
        for rule, said in self.rules(user, asked.namespace):
            if rule.allows(asked):
                return Decision(True, f"RBAC: allowed by {said}")
        return Decision(False)


def _user(name: str) -> str:
    return f'User "{name}"'


def _group(name: str) -> str:
    return f'Group "{name}"'


def _binding(namespace: str, name: str, body: Raw) -> _Binding | None:
    ref = body.get("roleRef")
    if not isinstance(ref, Mapping) or ref.get("kind") not in ("Role", "ClusterRole") or not isinstance(ref.get("name"), str):
        return None
    if ref["kind"] == "Role" and not namespace:
        return None
    kind, whole = ("RoleBinding", f"{name}/{namespace}") if namespace else ("ClusterRoleBinding", name)
    return _Binding(
        f'{kind} "{whole}" of {ref["kind"]} "{ref["name"]}"',
        namespace,
        (namespace if ref["kind"] == "Role" else "", ref["name"]),
        frozenset(_subjects(namespace, body.get("subjects"))),
    )


def _subjects(namespace: str, found: Any) -> Iterator[str]:
    for subject in found if isinstance(found, list) else ():
        if not isinstance(subject, Mapping) or not isinstance(name := subject.get("name"), str) or not name:
            continue
        match subject.get("kind"):
            case "User":
                yield _user(name)
            case "Group":
                yield _group(name)
            case "ServiceAccount" if place := subject.get("namespace") or namespace:
                yield _user(f"system:serviceaccount:{place}:{name}")
