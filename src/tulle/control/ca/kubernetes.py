"""Attestation by Kubernetes: who shows a service account's token is what the cluster's own API server says of it (TokenReview).

node ──token, csr──▶ join ──▶ TokenReviewer ──TokenReview──▶ kube-apiserver ──▶ system:serviceaccount:NS:SA, on which node
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tulle.control.ca.tokens import Grant
from tulle.kit.errors import Refused, Unavailable

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
_LONGEST = 16 * 1024  # bytes of a token
_LARGEST = 1 << 20  # bytes of an answer
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_NODE = "authentication.kubernetes.io/node-name"
_USER = "system:serviceaccount:"


class Attested(msgspec.Struct, frozen=True):
    """Whose token it is: `account` is `namespace/name`; `node` ("" where the cluster does not say) where its pod runs."""

    account: str
    node: str


class TokenReviewer:
    """Asks the API server of a cluster. `nodes` says which service accounts are node agents, and which identities (globs over
    `namespace/serviceaccount`) each may ask for; `audience` is whom tokens must be for.
    """

    def __init__(
        self,
        api: str,
        token_file: Path,
        ca_file: Path | None,
        audience: str,
        nodes: Mapping[str, Sequence[str]],
    ) -> None:
        """`token_file` is this control plane's own token, which may review others'; read for each request. Raises `Refused`."""
        if not api.startswith("https://"):
            raise Refused(f"--kubernetes-api: found {api!r}, needed https://HOST:PORT")
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"--kubernetes-ca-file {ca_file}: {error}") from error
        self._url, self._token_file, self._audience = api.rstrip("/") + _PATH, token_file, audience
        self._nodes = nodes

    async def node(self, token: str, name: str) -> Grant:
        """What a node agent of that name may have that shows this token. Raises `Refused`, `Unavailable`."""
        found = await self.attest(token)
        allowed = self._nodes.get(found.account)
        if allowed is None:
            raise Refused(f"kubernetes token: {found.account} is no node agent's service account")
        if found.node not in ("", name):
            raise Refused(f"kubernetes token: its pod runs on node {found.node!r}, not on {name!r}")
        return Grant(tuple(allowed), name)

    async def attest(self, token: str) -> Attested:
        """Whose token it is. Raises `Refused`, with nothing of the token, or `Unavailable`."""
        if not token or len(token) > _LONGEST or not token.isascii() or token.count(".") != 2:
            raise Refused("kubernetes token: found something else, needed a service account's token")
        status = await self._review(token)
        if status.get("authenticated") is not True:
            raise Refused(
                f"kubernetes token: the cluster does not know it: {str(status.get('error', 'not authenticated'))[:200]}"
            )
        if self._audience not in (status.get("audiences") or ()):
            raise Refused(f"kubernetes token: it is not for {self._audience!r}")
        user = status.get("user") or {}
        name = str(user.get("username", ""))
        namespace, _, account = name.removeprefix(_USER).partition(":")
        if not name.startswith(_USER) or not namespace or not account or ":" in account:
            raise Refused(f"kubernetes token: it is of {name[:200]!r}, needed one of a service account")
        where = (user.get("extra") or {}).get(_NODE) or [""]
        return Attested(f"{namespace}/{account}", str(where[0]))

    async def _review(self, token: str) -> dict[str, Any]:
        try:
            own = (await asyncio.to_thread(self._token_file.read_text)).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"--kubernetes-token-file {self._token_file} cannot be read") from error
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(
                    self._url,
                    json=body,
                    headers={"Authorization": f"Bearer {own}"},
                    ssl=self._tls,
                    allow_redirects=False,
                ) as response,
            ):
                text = await response.content.read(_LARGEST)
                code = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the cluster's API server does not answer a TokenReview: {type(error).__name__}") from error
        if code not in (200, 201):
            raise Unavailable(f"the cluster's API server answers a TokenReview with status {code}")
        try:
            status = msgspec.json.decode(text, type=dict[str, Any]).get("status")
        except msgspec.DecodeError:
            status = None
        if not isinstance(status, dict):
            raise Unavailable("the cluster's API server answers a TokenReview with something else")
        return status


def node_accounts(said: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """`NS/SA=GLOB,GLOB` of the settings. Raises `Refused`."""
    found: dict[str, Sequence[str]] = {}
    for one in said:
        account, _, globs = one.partition("=")
        patterns = [glob for glob in globs.split(",") if glob]
        if account.count("/") != 1 or not patterns or any(glob.count("/") != 1 for glob in patterns):
            raise Refused(
                f"--kubernetes-node: found {one!r}, needed NAMESPACE/SERVICEACCOUNT=NS/SA[,NS/SA...], where * stands for any"
            )
        found[account] = patterns
    return found
