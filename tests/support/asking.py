"""Requests to a served API as anybody, for tests of who may what: status and body, whatever comes back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from tests.support.apiserver import Running

RBAC = "rbac.authorization.k8s.io"


class Person:
    """Somebody with a certificate, a token, or nothing at all; `async with` keeps the connection open."""

    def __init__(
        self,
        served: Running,
        name: str = "",
        *groups: str,
        uris: Sequence[str] = (),
        token: str = "",
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.served = served
        self.context = context or served.context(name, groups, uris)
        self.headers = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})

    async def __aenter__(self) -> Person:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context), headers=self.headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status, and the body as JSON where it is some."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.served.url + path, **options) as response:
            text = await response.text()
            return response.status, (await response.json() if response.content_type == "application/json" else text)

    async def status(self, method: str, path: str, body: Any = None, **options: Any) -> int:
        """The status alone."""
        return (await self.ask(method, path, body, **options))[0]


def rule(verbs: str, groups: str = "", resources: str = "", names: str = "", paths: str = "") -> dict[str, Any]:
    """A PolicyRule out of words; `core` is the core group."""
    made: dict[str, Any] = {"verbs": verbs.split()}
    if paths:
        return made | {"nonResourceURLs": paths.split()}
    made |= {"apiGroups": ["" if one == "core" else one for one in groups.split()], "resources": resources.split()}
    return made | ({"resourceNames": names.split()} if names else {})


def role(name: str, *rules: dict[str, Any], namespace: str = "", **more: Any) -> dict[str, Any]:
    """A Role (with a namespace) or ClusterRole."""
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules)} | more


def binding(name: str, given: str, *subjects: str, namespace: str = "", kind: str = "ClusterRole") -> dict[str, Any]:
    """A RoleBinding (with a namespace) or ClusterRoleBinding; a subject is `User/name`, `Group/name` or `ns/account`."""
    made = []
    for subject in subjects:
        first, _, rest = subject.partition("/")
        if first in ("User", "Group"):
            made.append({"kind": first, "name": rest, "apiGroup": RBAC})
        else:
            made.append({"kind": "ServiceAccount", "namespace": first, "name": rest})
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": given},
        "subjects": made,
    }


def path_of(body: Mapping[str, Any], *, named: bool = False) -> str:
    """Where an RBAC object is written."""
    metadata = body["metadata"]
    where = f"/namespaces/{metadata['namespace']}" if metadata.get("namespace") else ""
    name = f"/{metadata['name']}" if named else ""
    return f"/apis/{RBAC}/v1{where}/{body['kind'].lower()}s{name}"


async def grant(served: Running, *bodies: Mapping[str, Any]) -> None:
    """Write RBAC objects as an administrator, and wait until they hold."""
    async with Person(served, "admin", "system:masters") as admin:
        revision = 0
        for body in bodies:
            status, made = await admin.ask("POST", path_of(body), body)
            assert status == 201, made
            revision = int(made["metadata"]["resourceVersion"])
        async with asyncio.timeout(10):
            while served.server.authorizer.revision < revision:
                await admin.ask("GET", "/healthz")
