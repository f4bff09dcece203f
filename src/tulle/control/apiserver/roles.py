"""The roles that tulle ships, kept as they should be at every start, and ClusterRoles that are added together from others.

A shipped role or binding gets back what it lacks, as on Kubernetes; what a person added stays. Where its annotation
`rbac.authorization.kubernetes.io/autoupdate` says `false` it is left alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

import structlog

from tulle.api.object import Kind
from tulle.control.apiserver.auth import AUTHENTICATED, MASTERS, NODES
from tulle.control.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    EVERYTHING,
    GROUP,
    Rule,
    rule_of,
    rules_of,
    uncovered,
)
from tulle.control.apiserver.selectors import labels_match
from tulle.control.apiserver.table import timestamp
from tulle.kit.errors import TulleError
from tulle.ports import Conflict, Key, Put, Store, Stored

log = structlog.get_logger("tulle.apiserver")

Raw = dict[str, Any]

AUTOUPDATE = f"{GROUP.replace('k8s.io', 'kubernetes.io')}/autoupdate"
_BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch", "delete", "deletecollection")
_PAUSE = 1.0  # seconds before a store that failed is asked again

# Groups of people (and of what reads metrics for them), for the kubeconfigs, tokens and OIDC claims that name them.
PEOPLE = ("admin", "operator", "viewer", "auditor", "metrics-reader")

# What steers traffic, by API group. Who is who (service accounts, workload entries, `security.istio.io`), what may refer to
# another namespace (ReferenceGrants) and what holds for the whole mesh (MeshConfig) is not part of it.
_TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "": ("services", "configmaps"),
    "discovery.k8s.io": ("endpointslices",),
    "networking.istio.io": (
        "virtualservices",
        "destinationrules",
        "gateways",
        "serviceentries",
        "sidecars",
        "proxyconfigs",
    ),
    "telemetry.istio.io": ("telemetries",),
    "gateway.networking.k8s.io": (
        "gatewayclasses",
        "gateways",
        "listenersets",
        "httproutes",
        "grpcroutes",
        "tlsroutes",
        "tcproutes",
        "udproutes",
        "backendtlspolicies",
    ),
    "tulle.dev": ("ratelimits", "rollouts"),
}
_SECRETS = "secrets"
# Paths of the mesh's own API. `/tulle/v1/backup` is in no role but cluster-admin: it gives the authority's key and every Secret.
_MEASURED = ("/metrics", "/tulle/v1/prometheus/*")
_SEE = (
    *_MEASURED,
    "/tulle/v1/status",
    "/tulle/v1/proxies",
    "/tulle/v1/synced",
    "/tulle/v1/describe/*",
    "/tulle/v1/telemetry/*",
    "/tulle/v1/explain",
)
_LOGS = ("/tulle/v1/logs/*", "/tulle/v1/config/*")  # what a workload's proxy writes, and what it runs with
_TAP = "/tulle/v1/tap/*"  # makes proxies and nodes work while it lasts
_FINDINGS = "/tulle/v1/findings"  # a question that writes nothing, asked with POST for the objects that it has
_ROLLBACK = "/tulle/v1/rollback"  # object by object, only what the user may write


def _rule(verbs: Sequence[str], groups: Sequence[str], resources: Sequence[str], names: Sequence[str] = ()) -> Rule:
    return Rule(frozenset(verbs), frozenset(groups), frozenset(resources), frozenset(names))


def _paths(verbs: Sequence[str], *paths: str) -> Rule:
    return Rule(frozenset(verbs), paths=tuple(sorted(paths)))


def _reading(kinds: Sequence[Kind], *, rbac: bool) -> Iterator[Rule]:
    """Everything that is served but Secrets: also status, and also kinds that a later version adds to a group."""
    for group in sorted({kind.group for kind in kinds if rbac or kind.group != GROUP}):
        served = sorted({kind.plural for kind in kinds if kind.group == group and kind.plural != _SECRETS})
        yield _rule(_READ, (group,), [name for plural in served for name in (plural, f"{plural}/status")])


def cluster_roles(kinds: Sequence[Kind]) -> dict[str, list[Rule]]:
    """The shipped ClusterRoles by name."""
    groups = sorted({kind.group for kind in kinds} - {GROUP})
    traffic = [_rule(_WRITE, (group,), resources) for group, resources in _TRAFFIC.items()]
    judge = _paths(("get", "post"), _FINDINGS)
    viewer = [*_reading(kinds, rbac=False), _paths(("get",), *_SEE, *_LOGS), judge]
    review = _rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews", "subjectaccessreviews"))
    return {
        "cluster-admin": list(EVERYTHING),
        "admin": [
            _rule((*_READ, *_WRITE), groups, ("*",)),
            _rule((*_READ, *_WRITE), (GROUP,), ("roles", "rolebindings", "clusterroles", "clusterrolebindings")),
            review,
            _paths(("get",), "/metrics", "/tulle/v1/*"),
            _paths(("post",), "/tulle/v1/tokens", "/tulle/v1/apitokens", _ROLLBACK),
            judge,
            _paths(("delete",), "/tulle/v1/apitokens/*"),
        ],
        "operator": [*viewer, *traffic, _paths(("get",), "/tulle/v1/history", _TAP), _paths(("post",), _ROLLBACK)],
        "viewer": viewer,
        "metrics-reader": [_paths(("get",), *_MEASURED)],
        "auditor": [*_reading(kinds, rbac=True), review, _paths(("get",), "/metrics", "/tulle/v1/*"), judge],
        "system:discovery": [
            _paths(("get",), "/", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/readyz"),
            _paths(("get",), "/openapi", "/openapi/*", "/version", "/version/"),
        ],
        "system:public-info-viewer": [_paths(("get",), "/healthz", "/livez", "/readyz", "/version", "/version/")],
        "system:basic-user": [
            _rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
            _rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
        ],
        "system:auth-delegator": [
            _rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
            _rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
        ],
        # `node_limits.py` narrows it to what is a node's own.
        "system:node": [
            _rule(_READ, ("",), ("namespaces",)),
            _rule(("get", "list", "create", "update", "delete"), ("",), ("services",)),
            _rule(("get", "create"), ("",), ("serviceaccounts",)),
            _rule(("get", "list", "create", "update", "patch", "delete"), ("networking.istio.io",), ("workloadentries",)),
            _rule(("get",), ("networking.istio.io",), ("workloadgroups",)),
            _rule((*_READ, "update"), ("coordination.k8s.io",), ("leases",)),
            _paths(("get",), "/tulle/v1/status", "/tulle/v1/synced", "/tulle/v1/looks"),
            _paths(
                ("post",),
                "/tulle/v1/telemetry/report",
                "/tulle/v1/telemetry/spans",
                "/tulle/v1/telemetry/recorded",
                "/tulle/v1/telemetry/limits",
                "/tulle/v1/looks/*",
            ),
        ],
    }


def _bindings() -> dict[str, tuple[str, list[str]]]:
    """The shipped ClusterRoleBindings by name: the ClusterRole, and the groups that get it."""
    people = {f"tulle:{role}s": (role, [f"tulle:{role}s"]) for role in PEOPLE}
    return people | {
        "cluster-admin": ("cluster-admin", [MASTERS]),
        "system:discovery": ("system:discovery", [AUTHENTICATED]),
        "system:basic-user": ("system:basic-user", [AUTHENTICATED]),
        "system:public-info-viewer": ("system:public-info-viewer", [AUTHENTICATED, "system:unauthenticated"]),
        "system:node": ("system:node", [NODES]),
    }


def shipped(kinds: Sequence[Kind]) -> dict[Key, Raw]:
    """Every shipped object by its place, without what the server adds."""

    def body(kind: str, name: str, rest: Raw) -> Raw:
        metadata = {"name": name, "labels": dict(_BOOTSTRAPPING), "annotations": {AUTOUPDATE: "true"}}
        return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata} | rest

    made = {
        Key(CLUSTER_ROLES, "", name): body("ClusterRole", name, {"rules": [rule.raw() for rule in rules]})
        for name, rules in cluster_roles(kinds).items()
    }
    for name, (role, groups) in _bindings().items():
        subjects = [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups]
        rest = {"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": subjects}
        made[Key(CLUSTER_ROLE_BINDINGS, "", name)] = body("ClusterRoleBinding", name, rest)
    return made


async def reconcile(store: Store, kinds: Sequence[Kind], now: float) -> None:
    """Make the shipped roles and bindings that are absent, and give the others back what they lack."""
    wanted = shipped(kinds)
    while True:
        found = {one.key: one for resource in (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS) for one in (await store.list(resource))[0]}
        puts = [put for key, body in wanted.items() if (put := _mended(key, body, found.get(key), now)) is not None]
        try:
            if puts:
                await store.write(puts)
            return
        except Conflict:  # another control plane of the same store does the same
            continue


def _mended(key: Key, wanted: Raw, stored: Stored | None, now: float) -> Put | None:
    metadata = wanted["metadata"]
    if stored is None:
        made = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now), "generation": 1}
        return Put(key, wanted | {"metadata": metadata | made}, expect=0)
    body = stored.body
    if (body["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    new = {**body, "metadata": dict(body["metadata"])}
    for field in ("labels", "annotations"):
        new["metadata"][field] = {**(body["metadata"].get(field) or {}), **metadata[field]}
    if key.resource == CLUSTER_ROLES:
        had = [rule for rule in body.get("rules") or [] if isinstance(rule, dict)]
        lacking = uncovered([rule_of(rule) for rule in wanted["rules"]], [rule_of(rule) for rule in had])
        new["rules"] = [*had, *(rule.raw() for rule in _joined(lacking))]
    else:
        if body.get("roleRef") != wanted["roleRef"]:
            made = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now), "generation": 1}
            return Put(key, wanted | {"metadata": metadata | made}, expect=stored.revision)
        subjects = [one for one in body.get("subjects") or [] if isinstance(one, dict)]
        names = {(one.get("kind"), one.get("name")) for one in subjects}
        new["subjects"] = [*subjects, *(one for one in wanted["subjects"] if (one["kind"], one["name"]) not in names)]
    return None if new == body else Put(key, new, expect=stored.revision)


def _joined(parts: Sequence[Rule]) -> Iterator[Rule]:
    """Parts of the same verbs and groups in one rule, for readers."""
    by_group: dict[tuple[frozenset[str], frozenset[str], frozenset[str], bool], list[Rule]] = {}
    for part in parts:
        by_group.setdefault((part.verbs, part.groups, part.names, bool(part.paths)), []).append(part)
    for (verbs, groups, names, _), same in by_group.items():
        resources = frozenset[str]().union(*(part.resources for part in same))
        yield Rule(verbs, groups, resources, names, tuple(path for part in same for path in part.paths))


class Aggregation:
    """The controller that writes the rules of ClusterRoles with an `aggregationRule`: those of all that it selects."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def run(self) -> None:
        """Until cancelled: once for what is there, and again after every change of a ClusterRole."""
        while True:
            try:
                since = await self.settle()
                events = self.store.watch(since, CLUSTER_ROLES)
                try:
                    async for _ in events:
                        await self.settle()
                finally:
                    if isinstance(events, AsyncGenerator):
                        await events.aclose()
            except TulleError as error:  # compacted, or a store that is away
                log.debug("aggregated roles cannot be followed", error=error.message)
            await asyncio.sleep(_PAUSE)

    async def settle(self) -> int:
        """Bring every aggregated role up to date, also those that are made of such; the revision that was read."""
        for _ in range(10):  # roles of roles of roles; a ring of them settles too, for rules are only added
            roles, revision = await self.store.list(CLUSTER_ROLES)
            puts = [put for role in roles if (put := _aggregated(role, roles)) is not None]
            if not puts:
                return revision
            for put in puts:
                try:
                    await self.store.write([put])
                except Conflict:  # changed meanwhile: the next turn sees it
                    continue
        return revision


def _aggregated(role: Stored, roles: Sequence[Stored]) -> Put | None:
    rule = role.body.get("aggregationRule")
    if not isinstance(rule, dict):
        return None
    selectors = [one for one in rule.get("clusterRoleSelectors") or [] if isinstance(one, dict)]
    rules: list[Raw] = []
    for other in roles:
        labels = other.body["metadata"].get("labels") or {}
        if other.key != role.key and any(labels_match(selector, labels) for selector in selectors):
            rules += [one for one in other.body.get("rules") or [] if one not in rules]
    if rules == (role.body.get("rules") or []):
        return None
    return Put(role.key, {**role.body, "rules": rules}, expect=role.revision)


__all__ = ["Aggregation", "cluster_roles", "reconcile", "rules_of", "shipped"]
