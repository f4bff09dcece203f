"""`tulle dashboard`: a server on this machine alone that passes a browser's requests on with a person's own credentials.

The page's files are for everybody. For everything else a browser shows the key that stands in the address which is opened: other
users of this machine, and pages of other origins, do not have it. It stands behind the `#`, so it is in no log, and comes back in
a header, which no form and no picture of another page can send.
"""

from __future__ import annotations

import hmac
import re
import secrets

import aiohttp
from aiohttp import web
from yarl import URL

from tulle.client.kubeconfig import Kubeconfig
from tulle.kit.errors import Refused

_PAGE = "/ui/"
# What a file of the page may be called: nothing that, read otherwise, leads elsewhere.
_FILE = re.compile(r"/ui/(?:[\w-]+/)*(?:[\w-]+\.[a-z]+)?", re.ASCII)
_PATHS = ("/tulle/v1/", "/api/", "/apis/", "/api", "/apis", "/metrics", "/version")
_ASKED = ("Accept", "Content-Type", "If-None-Match")
_DROPPED = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "server", "date"))
_CONNECT = 5.0  # seconds


class Forwarder:
    """Serves at 127.0.0.1 for as long as it is entered: `async with Forwarder(config, port) as one: one.address`."""

    def __init__(self, config: Kubeconfig, port: int = 0) -> None:
        """`port` 0: whichever is free."""
        self._config, self._port = config, port
        self.key = secrets.token_urlsafe(32)
        self._servers = [one.rstrip("/") for one in (config.server, *config.others)]
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    @property
    def address(self) -> str:
        """What to open."""
        return f"http://127.0.0.1:{self._port}{_PAGE}#key={self.key}"

    async def __aenter__(self) -> Forwarder:
        token = {"Authorization": f"Bearer {self._config.token}"} if self._config.token else {}
        connector = aiohttp.TCPConnector(ssl=self._config.tls(), limit=64)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT)
        self._session = aiohttp.ClientSession(connector=connector, headers=token, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        try:
            await site.start()
        except OSError as error:
            await self.__aexit__()
            raise Refused(f"port {self._port} cannot be bound on 127.0.0.1", hint="name another one with --port") from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if request.host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            return web.Response(status=421, text="this is not who was asked for")
        if path == "/":
            return web.Response(status=302, headers={"Location": _PAGE})
        if request.method == "GET" and _FILE.fullmatch(path):
            return await self._passed_on(request)
        if not path.startswith(_PATHS):
            return web.Response(status=404, text="there is no such page")
        said = request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {self.key}".encode()):
            return web.Response(status=401, text="open the address that `tulle dashboard` has printed")
        return await self._passed_on(request)

    async def _passed_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        for server in tuple(self._servers):
            try:
                asked = URL(f"{server}{request.rel_url.raw_path_qs}", encoded=True)
                answer = await self._session.request(request.method, asked, data=body, headers=headers, allow_redirects=False)
            except (aiohttp.ClientConnectionError, TimeoutError):
                self._servers.append(self._servers.pop(0))  # the next one first, from now on
                continue
            async with answer:
                return await _copied(request, answer)
        return web.Response(status=502, text="no control plane answers")


async def _copied(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Piece by piece: events are passed on as they come."""
    passed = web.StreamResponse(status=answer.status)
    for name, value in answer.headers.items():
        if name.lower() not in _DROPPED:
            passed.headers.add(name, value)
    if encoding := answer.headers.get("Content-Encoding"):
        passed.headers["Content-Encoding"] = encoding
    try:
        await passed.prepare(request)
        async for piece in answer.content.iter_any():
            await passed.write(piece)
        await passed.write_eof()
    except (ConnectionError, aiohttp.ClientError):
        pass  # one of the two has gone
    return passed
