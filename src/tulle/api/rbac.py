"""Kubernetes' kinds of role-based access control; the API server itself reads them to decide who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tulle.api.labels import LabelSelector
from tulle.api.object import Fault, Object, Ruled
from tulle.api.values import DNS_SUBDOMAIN, WORDS, Defaulted, Many

GROUP_NAME = "rbac.authorization.k8s.io"
_SUBDOMAIN = re.compile(DNS_SUBDOMAIN)


class PolicyRule(Ruled):
    """Verbs that are allowed on resources of API groups, or on paths of the server that are no resources. `*` is any."""

    verbs: Many[str]
    api_groups: Many[str] = ()
    resources: Many[str] = ()
    resource_names: Many[str] = ()
    non_resource_urls: Many[str] = Field(default=(), alias="nonResourceURLs")

    def faults(self) -> Iterator[Fault]:
        """Verbs; resources of groups, or paths, and not both."""
        if not self.verbs:
            yield Fault(("verbs",), "found none; needed at least one verb", "Required")
        if self.non_resource_urls:
            for name, values in (
                ("apiGroups", self.api_groups),
                ("resources", self.resources),
                ("resourceNames", self.resource_names),
            ):
                if values:
                    yield Fault((name,), "found it beside nonResourceURLs; needed a rule of its own for each of the two", "OneOf")
            return
        if not self.api_groups:
            yield Fault(("apiGroups",), 'found none; needed at least one API group ("" is the core group)', "Required")
        if not self.resources:
            yield Fault(("resources",), "found none; needed at least one resource", "Required")


class Role(Object, Ruled):
    """What is allowed in the namespace of the Role, to those to whom a RoleBinding gives it."""

    kind: Literal["Role"] = "Role"
    rules: Many[PolicyRule] = ()

    def faults(self) -> Iterator[Fault]:
        """No paths, which are in no namespace."""
        for index, rule in enumerate(self.rules):
            if rule.non_resource_urls:
                message = "found paths in a Role; needed them in a ClusterRole, for paths are in no namespace"
                yield Fault(("rules", index, "nonResourceURLs"), message)


class AggregationRule(Ruled):
    """ClusterRoles whose rules are added together."""

    cluster_role_selectors: Many[LabelSelector] = ()

    def faults(self) -> Iterator[Fault]:
        """At least one selector."""
        if not self.cluster_role_selectors:
            yield Fault(("clusterRoleSelectors",), "found none; needed at least one selector", "Required")


class ClusterRole(Object):
    """What is allowed everywhere (by a ClusterRoleBinding) or in a namespace (by a RoleBinding there)."""

    kind: Literal["ClusterRole"] = "ClusterRole"
    rules: Many[PolicyRule] = ()
    aggregation_rule: AggregationRule | None = None


class RoleRef(Ruled):
    """The role that is given. It does not change: make another binding instead."""

    api_group: Defaulted[str] = GROUP_NAME
    kind: str
    name: str

    def faults(self) -> Iterator[Fault]:
        """A role by its name."""
        if self.api_group not in ("", GROUP_NAME):
            yield Fault(("apiGroup",), f'found "{self.api_group}"; needed {GROUP_NAME}', "BadEnum")
        yield from path_segment_faults(self.name, "name")


class Subject(Ruled):
    """Who gets the role. A service account is in a namespace; users and groups are in none."""

    kind: Literal["User", "Group", "ServiceAccount"]
    api_group: str | None = None
    name: str
    namespace: str = ""

    def faults(self) -> Iterator[Fault]:
        """A name, and the API group of the kind (which may be left out)."""
        group = "" if self.kind == "ServiceAccount" else GROUP_NAME
        if self.api_group and self.api_group != group:
            needed = group or 'none ("" is the group of service accounts)'
            yield Fault(("apiGroup",), f'found "{self.api_group}" with {self.kind}; needed {needed}', "BadEnum")
        if not self.name:
            yield Fault(("name",), "found nothing; needed a name", "Required")
        elif self.kind == "ServiceAccount" and (len(self.name) > 253 or not _SUBDOMAIN.fullmatch(self.name)):
            yield Fault(("name",), f'found "{self.name}"; needed {WORDS[DNS_SUBDOMAIN]}', "BadName")


class RoleBinding(Object, Ruled):
    """Gives a Role of its namespace, or a ClusterRole for its namespace alone."""

    kind: Literal["RoleBinding"] = "RoleBinding"
    subjects: Many[Subject] = ()
    role_ref: RoleRef

    def faults(self) -> Iterator[Fault]:
        """A kind of role."""
        yield from _role_faults(self.role_ref, "Role", "ClusterRole")


class ClusterRoleBinding(Object, Ruled):
    """Gives a ClusterRole everywhere."""

    kind: Literal["ClusterRoleBinding"] = "ClusterRoleBinding"
    subjects: Many[Subject] = ()
    role_ref: RoleRef

    def faults(self) -> Iterator[Fault]:
        """A ClusterRole, and service accounts with their namespaces."""
        yield from _role_faults(self.role_ref, "ClusterRole")
        for index, subject in enumerate(self.subjects):
            if subject.kind == "ServiceAccount" and not subject.namespace:
                message = "found nothing; needed the namespace of the service account"
                yield Fault(("subjects", index, "namespace"), message, "Required")


def _role_faults(ref: RoleRef, *kinds: str) -> Iterator[Fault]:
    if ref.kind not in kinds:
        yield Fault(("roleRef", "kind"), f'found "{ref.kind}"; needed {" or ".join(kinds)}', "BadEnum")


def path_segment_faults(name: str, *at: str | int) -> Iterator[Fault]:
    """A name that can be one part of a URL's path, as those of roles: `system:node` is one."""
    if not name:
        yield Fault(at, "found nothing; needed a name", "Required")
    elif name in (".", "..") or "/" in name or "%" in name:
        yield Fault(at, f'found "{name}"; needed a name without "/" and "%", and not "." or ".."', "BadName")
