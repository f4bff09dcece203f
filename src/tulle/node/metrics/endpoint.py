"""A workload's metrics over HTTP on a Unix socket, to which its Envoy passes on what comes to port 15020."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web

from tulle.kit.errors import Unavailable
from tulle.node.envoy import Admin
from tulle.node.metrics.families import PATH, Family, families
from tulle.node.metrics.standard import Who, counted, standard
from tulle.node.metrics.text import CONTENT_TYPE, written
from tulle.node.private_socket import private_socket

log = structlog.get_logger("tulle.node")

METRICS_SOCKET = "metrics.sock"


async def read(admin: Admin) -> list[Family]:
    """All that an Envoy counts; raises `Unavailable`."""
    status, body = await admin.get(PATH)
    if status != 200:
        raise Unavailable(f"Envoy answered {PATH} with status {status}")
    return list(families(body))


class MetricsEndpoint:
    """`admin` is the workload's Envoy (None: it has none now), `own` who it is, `application` what it says of itself, as text."""

    def __init__(
        self, path: Path, admin: Callable[[], Admin | None], own: Callable[[], Who], application: Callable[[], Awaitable[str]]
    ) -> None:
        self._path, self._admin, self._own, self._application = path, admin, own, application
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; a socket that a killed agent left is replaced."""
        self._path.unlink(missing_ok=True)
        app = web.Application()
        app.add_routes([web.get("/stats/prometheus", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        await web.SockSite(self._runner, private_socket(self._path)).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    async def _answer(self, _request: web.Request) -> web.Response:
        return web.Response(text=await self.text(), headers={"Content-Type": CONTENT_TYPE})

    async def text(self) -> str:
        """Envoy's own metrics, Istio's, and the application's: each as far as it answers."""
        admin = self._admin()
        found: list[Family] = []
        with contextlib.suppress(Unavailable):
            found = await read(admin) if admin is not None else []
        own = [family for family in found if counted(family.name) is None and family.kind != "summary"]
        return written([*own, *standard(found, self._own())]) + await self._application()
