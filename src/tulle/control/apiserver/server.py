"""The API server: TLS, who asks, what is served where. Everything of a kind comes from the registry.

    api = ApiServer(store, tls=context, trust_domain="cluster.local", extra_apps={"/tulle/v1": app})
    await api.prepare()
    await api.start("127.0.0.1", 15080)

Sub-applications find the caller in `request[USER]`, the SPIFFE URI of its certificate in `request[IDENTITY]`, and what it may do
in `request[GUARD]`. `gate.py` has let it in; in `open_apps` nobody may be there, and none of these.
"""

from __future__ import annotations

import asyncio
import platform
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

import tulle
from tulle.api.object import Kind
from tulle.api.registry import KINDS
from tulle.control.apiserver import errors
from tulle.control.apiserver.authn import Authenticator, Bearers
from tulle.control.apiserver.authorizer import RbacAuthorizer
from tulle.control.apiserver.connections import Connections
from tulle.control.apiserver.gate import OPEN, Gate, Handler
from tulle.control.apiserver.limits import Limits
from tulle.control.apiserver.negotiation import answer, refusal
from tulle.control.apiserver.node_limits import Identities
from tulle.control.apiserver.objects import Judge, Objects
from tulle.control.apiserver.openapi import OpenApi
from tulle.control.apiserver.reviews import Reviews
from tulle.control.apiserver.roles import Aggregation, reconcile
from tulle.control.apiserver.routes import Routes
from tulle.control.apiserver.token_api import PREFIX as TOKENS
from tulle.control.apiserver.token_api import token_app
from tulle.control.apiserver.tokens import ApiTokens
from tulle.kit.errors import Refused, TulleError
from tulle.ports import Store

log = structlog.get_logger("tulle.apiserver")


class ApiServer:
    """Kubernetes-style REST over a store.

    `tls`: a server context with `CERT_OPTIONAL` that trusts the mesh's CA. `extra_apps`: aiohttp applications by path prefix,
    authorised like everything else (`nonResourceURLs`); those of `open_apps` let in for themselves. `judge`: the mesh's own word
    on every write (see `objects.Judge`). `foreign`: whose bearer tokens are taken beside the server's own. `identities`: what
    the join tokens of nodes named; without it nodes are not held to that. `ready`: why the server cannot do all of its work at
    the moment, "" where it can. `kinds`: what is served; the registry's unless a test says otherwise.
    """

    def __init__(
        self,
        store: Store,
        *,
        tls: ssl.SSLContext,
        trust_domain: str = "cluster.local",
        extra_apps: Mapping[str, web.Application] | None = None,
        open_apps: Mapping[str, web.Application] | None = None,
        judge: Judge | None = None,
        foreign: Bearers | None = None,
        kinds: Sequence[Kind] = KINDS,
        limits: Limits | None = None,
        identities: Identities | None = None,
        ready: Callable[[], Awaitable[str]] | None = None,
        revoked: Callable[[str, str], bool] = lambda identity, serial: False,
    ) -> None:
        self.store, self.kinds, self.limits = store, kinds, limits or Limits()
        self._tls, self._ready = tls, ready
        # Nothing needs a second handshake on a connection, and it costs the server more than the client.
        tls.options |= ssl.OP_NO_RENEGOTIATION
        self.objects = Objects(store, time.time, judge)
        self.authorizer = RbacAuthorizer(store)
        self.aggregation = Aggregation(store)
        self.tokens = ApiTokens(store, time.time)
        self.authenticator = Authenticator(trust_domain, self.tokens, foreign, self.limits.failures, revoked=revoked)
        self.routes = Routes(store, self.objects, kinds, Reviews(store, self.authenticator, self.authorizer))
        self.openapi = OpenApi(self.routes.discovery.group_versions)
        open_apps = open_apps or {}
        self.gate = Gate(self.authenticator, self.authorizer, self.routes.discovery.documents, open_apps, self.limits, identities)
        self.connections = Connections(self.limits)
        self._stopping = False
        self._app = self._application({**(extra_apps or {}), **open_apps})
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _application(self, apps: Mapping[str, web.Application]) -> web.Application:
        app = web.Application(client_max_size=self.limits.body, middlewares=[self._answered, self.gate.middleware])
        for prefix, extra in {TOKENS: token_app(self.tokens), **apps}.items():
            app.add_subapp(prefix, extra)
        for path in ("/healthz", "/readyz", "/livez"):
            app.router.add_get(path, self._health)
            app.router.add_get(path + "/{rest:.*}", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/openapi/v2", self.openapi.v2)
        app.router.add_get("/openapi/v3", self.openapi.index)
        app.router.add_get("/openapi/v3/{root:.+}", self.openapi.v3)
        app.router.add_get("/", self._paths)
        app.router.add_route("*", "/api{rest:.*}", self.routes.handle)
        return app

    async def prepare(self) -> None:
        """Make the objects that are always there, and read who may what. Before `start`."""
        await self.objects.prepare()
        await reconcile(self.store, self.kinds, time.time())
        await self.aggregation.settle()
        await self.authorizer.load()

    async def start(self, host: str, port: int) -> int:
        """Serve; the port that is bound (of interest where 0 was asked for). Raises `Refused` where it cannot be."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        handler = self._runner.server
        assert handler is not None
        try:
            bound = self.connections.listen(host, port, handler, self._tls)
        except Refused:
            await self._runner.cleanup()
            self._runner = None
            raise
        work = {"roles": self.authorizer.run(), "aggregated roles": self.aggregation.run()}
        self._tasks = [asyncio.create_task(one, name=name) for name, one in work.items()]
        return bound

    async def stop(self) -> None:
        """End the watches, finish the rest, let go of the port. Idempotent."""
        self._stopping = True
        await self.connections.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watch in list(self.routes.watches):
            watch.cancel()
        await self.routes.shared.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def reload_tls(self, load: Callable[[ssl.SSLContext], None]) -> None:
        """Change the context in place (`load_cert_chain`, `load_verify_locations`); new connections see it, old ones stay."""
        load(self._tls)

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever goes wrong becomes a `Status`; a bug is logged and answered with 500."""
        try:
            return await handler(request)
        except errors.Denial as denial:
            return refusal(denial)
        except web.HTTPRequestEntityTooLarge:
            return refusal(errors.too_large(self.limits.body))
        except web.HTTPNotFound:
            return answer(errors.no_such_path(request.path).body, 404)
        except web.HTTPMethodNotAllowed:
            return answer(errors.method_not_allowed(request.method).body, 405)
        except TulleError as error:
            log.warning("a request failed", method=request.method, path=request.path, error=error.message)
            message = f"{error.message}{'; ' + error.hint if error.hint else ''}"
            return answer(errors.Denial(503, "ServiceUnavailable", message).body, 503)
        except RecursionError:
            return answer(errors.bad_request("the body is nested too deeply").body, 400)
        except (web.HTTPException, ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a bug answered a request", method=request.method, path=request.path)
            return answer(errors.Denial(500, "InternalError", "the server made a mistake; its log says more").body, 500)

    async def _health(self, request: web.Request) -> web.Response:
        """`ok`; where the process is about to go, or cannot do all of its work, `readyz` says so."""
        if request.path.startswith("/readyz"):
            why = "stopping" if self._stopping else await self._ready() if self._ready else ""
            if why:
                return web.Response(text=why, status=503)
        return web.Response(text="ok")

    async def _version(self, _request: web.Request) -> web.Response:
        """As Kubernetes has it: kubectl compares `major` and `minor` with its own."""
        return answer(
            {
                "major": "1",
                "minor": "32",
                "gitVersion": f"v1.32.0+tulle-{tulle.__version__}",
                "gitCommit": "",
                "gitTreeState": "",
                "buildDate": "",
                "goVersion": "",
                "compiler": f"CPython {platform.python_version()}",
                "platform": f"{platform.system().lower()}/{platform.machine()}",
            }
        )

    async def _paths(self, _request: web.Request) -> web.Response:
        served: dict[str, Any] = {"paths": [*sorted(self.routes.discovery.documents), "/openapi/v2", "/openapi/v3", *OPEN]}
        return answer(served)
