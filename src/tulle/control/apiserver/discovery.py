"""Discovery: which groups, versions and kinds there are, in the old form (one document a version) and the aggregated one.

All of it is computed once from the registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from tulle.api.object import Kind
from tulle.api.registry import TOKEN_REQUEST
from tulle.control.apiserver import errors
from tulle.control.apiserver.negotiation import JSON, accepted, answer
from tulle.control.apiserver.negotiation import form as form_of

Raw = dict[str, Any]

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_AGGREGATED, _LIST, _AGGREGATES = "apidiscovery.k8s.io", "APIGroupDiscoveryList", ("v2", "v2beta1")
_STATUS_VERBS = ("get", "patch", "update")
# Further subresources by resource: their name, and the kind of what is sent there.
_SUBRESOURCES = {"serviceaccounts": ("token", TOKEN_REQUEST)}


def has_status(kind: Kind) -> bool:
    """Whether `status` is written through a path of its own: what is wished and what is observed have different writers."""
    return not kind.review and "status" in kind.model.model_fields


class Discovery:
    """The documents by path, and the aggregated lists by root."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        groups: dict[str, list[Kind]] = {}
        for kind in kinds:
            groups.setdefault(kind.group, []).append(kind)
        self.group_versions = [(group, version) for group, members in groups.items() for version in _versions(members)]
        named = {group: members for group, members in groups.items() if group}
        self.documents: dict[str, Raw] = {
            "/api": {
                "kind": "APIVersions",
                "versions": _versions(groups.get("", ())),
                "serverAddressByClientCIDRs": [],
            },
            "/apis": {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(group, members) for group, members in named.items()],
            },
        }
        for group, members in groups.items():
            if group:
                self.documents[f"/apis/{group}"] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, members)}
            for version in _versions(members):
                root = f"/apis/{group}/{version}" if group else f"/api/{version}"
                self.documents[root] = _resources(group, version, members)
        self.aggregated = {
            "/api": [_aggregated("", groups.get("", ()))],
            "/apis": [_aggregated(group, members) for group, members in named.items()],
        }

    def serve(self, request: web.Request, path: str) -> web.Response:
        """The answer to a GET of one of the documents; `/api` and `/apis` aggregated where the client prefers that."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed(request.method, ("GET", "HEAD"))
        if path in self.aggregated:
            for media, wanted in accepted(request.headers.get("Accept", "")):
                version = wanted.get("v", "")
                if (media, wanted.get("g"), wanted.get("as")) == (JSON, _AGGREGATED, _LIST) and version in _AGGREGATES:
                    form = f"{JSON};g={_AGGREGATED};v={version};as={_LIST}"
                    return self._tagged(request, self.aggregate(path, version), form)
                if media in (JSON, "*/*") and not wanted.get("as"):
                    break
        how = form_of(request.headers.get("Accept", ""), request.query, agent=request.headers.get("User-Agent", ""))
        return answer(self.documents[path], how=how)

    def _tagged(self, request: web.Request, body: Raw, content_type: str) -> web.Response:
        """Clients keep aggregated documents, and ask by their tag whether they hold."""
        response = answer(body, content_type=content_type)
        assert isinstance(response.body, bytes)
        tag = f'"{hashlib.sha512(response.body).hexdigest().upper()}"'
        if tag in request.headers.get("If-None-Match", ""):
            response = web.Response(status=304)
        response.headers["ETag"] = tag
        response.headers["Vary"] = "Accept"
        return response

    def aggregate(self, root: str, version: str) -> Raw:
        """`APIGroupDiscoveryList` of `/api` or `/apis` in `v2` or `v2beta1`."""
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": self.aggregated[root],
        }


def _versions(kinds: Sequence[Kind]) -> list[str]:
    """All versions of a group, each kind's preferred ones first."""
    found: dict[str, int] = {}
    for kind in kinds:
        for rank, version in enumerate(kind.versions):
            found[version] = min(rank, found.get(version, rank))
    return sorted(found, key=lambda version: (_maturity(version), found[version]))


def _maturity(version: str) -> int:
    return 2 if "alpha" in version else 1 if "beta" in version else 0


def _group(group: str, kinds: Sequence[Kind]) -> Raw:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in _versions(kinds)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resources(group: str, version: str, kinds: Sequence[Kind]) -> Raw:
    resources: list[Raw] = []
    for kind in kinds:
        if version not in kind.versions:
            continue
        common: Raw = {"namespaced": kind.namespaced, "kind": kind.kind}
        entry: Raw = {"name": kind.plural, "singularName": kind.singular, **common, "verbs": _verbs(kind)}
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        resources.append(entry)
        if has_status(kind):
            resources.append({"name": f"{kind.plural}/status", "singularName": "", **common, "verbs": list(_STATUS_VERBS)})
        if further := _SUBRESOURCES.get(kind.resource):
            name, sent = further
            entry = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced, "kind": sent.kind}
            resources.append(entry | {"group": sent.group, "version": sent.versions[0], "verbs": ["create"]})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _aggregated(group: str, kinds: Sequence[Kind]) -> Raw:
    versions = []
    for version in _versions(kinds):
        resources = [_aggregated_resource(kind, version) for kind in kinds if version in kind.versions]
        versions.append({"version": version, "resources": resources, "freshness": "Current"})
    metadata: Mapping[str, Any] = {"name": group} if group else {}
    return {"metadata": metadata, "versions": versions}


def _aggregated_resource(kind: Kind, version: str) -> Raw:
    response = {"group": kind.group, "version": version, "kind": kind.kind}
    entry: Raw = {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": _verbs(kind),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if has_status(kind):
        entry["subresources"] = [{"subresource": "status", "responseKind": response, "verbs": list(_STATUS_VERBS)}]
    if further := _SUBRESOURCES.get(kind.resource):
        name, sent = further
        made = {"group": sent.group, "version": sent.versions[0], "kind": sent.kind}
        entry.setdefault("subresources", []).append({"subresource": name, "responseKind": made, "verbs": ["create"]})
    return entry


def _verbs(kind: Kind) -> list[str]:
    return ["create"] if kind.review else list(_VERBS)
