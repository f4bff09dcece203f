"""What the other control planes of the mesh know: proxies are connected to any of them, and people ask one.

    asked here ──▶ every other one: GET /tulle/v1/...?here=true ──▶ put together

They know each other by the mesh's own authority: the server by its name in the certificate, whatever its address, and the
caller as one of the masters, which it is, for it has the authority's key.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
import structlog

from tulle.app.certificate import load
from tulle.control.members import Member, Members
from tulle.core.model.looks import Told
from tulle.kit.errors import TulleError
from tulle.ports import Signer
from tulle.xds.credentials import SERVER_NAME

log = structlog.get_logger("tulle.control-plane")

_LIFETIME = 24 * 3600.0
_LIST = 5.0  # seconds that a list of proxies waits for another control plane
_SOON = 2.0  # seconds that what is asked all the time waits
_QUIET = 60.0  # seconds of silence after which an answer that goes on is over
_AGAIN = 0.5  # seconds before one that does not answer is asked again


class Peers:
    """Asks the others."""

    def __init__(self, members: Members, signer: Signer) -> None:
        self._members, self._signer = members, signer
        self._session: aiohttp.ClientSession | None = None
        self._loop_time = 0.0
        self._bundle = b""

    async def proxies(self) -> Sequence[Mapping[str, Any]]:
        """The proxies that are connected to others; of one that does not answer, none."""
        answers = await asyncio.gather(*(self._ask(one, "/tulle/v1/proxies", {}, _LIST) for one in self._members.others.values()))
        return [proxy for answer in answers if answer is not None for proxy in answer["proxies"]]

    async def follow(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """An answer without end of the first that has one: those without the node that is meant refuse."""
        for member in list(self._members.others.values()):
            try:
                client = await self._client()
                async with client.get(
                    f"https://{member.api}{path}",
                    params={**query, "here": "true"},
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_LIST, sock_read=_QUIET),
                    server_hostname=SERVER_NAME,
                ) as response:
                    if response.status == 503:
                        continue
                    if response.status != 200:
                        said = (await response.json()).get("message", f"control plane {member.name} answered {response.status}")
                        yield msgspec.json.encode(Told(ended=True, error=str(said))) + b"\n"
                        return
                    async for piece in response.content.iter_any():
                        yield piece
                    return
            except (TulleError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("another control plane does not answer", name=member.name, address=member.api, why=str(error))

    async def behind(self, revision: int, timeout: float) -> Sequence[str]:
        """The proxies there that have not acknowledged after `timeout` seconds."""
        waits = (self._behind(name, revision, timeout) for name in list(self._members.others))
        return [proxy for behind in await asyncio.gather(*waits) for proxy in behind]

    async def answers(self, path: str, query: Mapping[str, str]) -> Sequence[Any]:
        """What the others answer at a path of `/tulle/v1`; of one that does not answer, nothing."""
        members = self._members.others.values()
        found = await asyncio.gather(*(self._ask(one, f"/tulle/v1{path}", query, _LIST) for one in members))
        return [answer for answer in found if answer is not None]

    @property
    def names(self) -> Collection[str]:
        """Who they are."""
        return self._members.others.keys()

    async def each(self, path: str, question: Callable[[str], Any]) -> Mapping[str, Any]:
        """What each answers at a path of `/tulle/v1` to the question that is made for its name; None where it does not."""
        members = dict(self._members.others)
        asked = [self._ask(one, f"/tulle/v1{path}", {}, _SOON, question(name)) for name, one in members.items()]
        return dict(zip(members, await asyncio.gather(*asked), strict=True))

    async def _behind(self, name: str, revision: int, timeout: float) -> Sequence[str]:
        """Of one. Where it has gone, its proxies have gone elsewhere."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while (member := self._members.others.get(name)) is not None:
            left = max(0.0, until - loop.time())
            query = {"revision": str(revision), "timeout": f"{left:.3f}"}
            answer = await self._ask(member, "/tulle/v1/synced", query, left + 2.0)
            if answer is not None:
                return [str(proxy) for proxy in answer["behind"]]
            if loop.time() >= until:
                return [f"those of control plane {name}, which does not answer"]
            await asyncio.sleep(_AGAIN)
        return []

    async def _ask(self, member: Member, path: str, query: Mapping[str, str], timeout: float, question: Any = None) -> Any:
        """GET, or with a question POST."""
        try:
            client = await self._client()
            async with client.request(
                "GET" if question is None else "POST",
                f"https://{member.api}{path}",
                params={**query, "here": "true"},
                data=None if question is None else msgspec.json.encode(question),
                timeout=aiohttp.ClientTimeout(total=timeout),
                server_hostname=SERVER_NAME,
            ) as response:
                response.raise_for_status()
                return await response.json()
        except (TulleError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("another control plane does not answer", name=member.name, address=member.api, why=str(error))
            return None

    async def _client(self) -> aiohttp.ClientSession:
        """The session, with a certificate that is good for half a day still, of the roots of now."""
        now = asyncio.get_running_loop().time()
        if self._session is None or now > self._loop_time + _LIFETIME / 2 or self._bundle != self._signer.bundle:
            bundle = self._signer.bundle
            name = f"system:control-plane:{self._members.own.name}"
            own = await self._signer.issue_client(name, ["system:masters"], _LIFETIME)
            old, self._loop_time, self._bundle = self._session, now, bundle
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=self._bundle.decode())
            load(context, own)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
            if old is not None:
                self._closing = asyncio.ensure_future(old.close())
        return self._session

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
