"""The agent's local API: JSON over HTTP on `node.sock`. The other end, and the nouns, are in `client/node_api.py`.

Who may open the socket may run processes in workloads, so only the agent's own user may (and root): the file is 0600, and the
kernel is asked who is calling. Nothing here gives out a private key: Envoy redacts them in its dumps.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.client.node_api import CommandRequest, WorkloadSpec
from tulle.kit.errors import Exit, Refused, TulleError, Unavailable
from tulle.node.agent import Agent, check_level
from tulle.node.attestation import Entries, Peer, peer_of, would_be
from tulle.node.envoy import CONFIG_DUMP
from tulle.node.private_socket import private_socket
from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

_STATUS = {"not-found": 404, "refused": 409, "bad-data": 422, "unavailable": 503}
_WORKLOAD = "/v1/workloads/{namespace}/{name}"

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalApi:
    """Serves an agent. `stop(teardown)` is called when a person asks for the agent's end."""

    def __init__(self, agent: Agent, path: Path, stop: Callable[[bool], None], entries: Entries) -> None:
        self._agent, self._path, self._stop, self._entries = agent, path, stop, entries
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; a socket that a killed agent left is replaced, one that answers is another agent's (`Refused`)."""
        if answers(self._path):
            raise Refused(
                f"{self._path}: another node agent is running",
                hint="stop it, or choose another folder with --runtime-dir",
            )
        self._path.unlink(missing_ok=True)
        app = web.Application(middlewares=[_errors, _peer], client_max_size=1 << 20)
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/workloads", self._list),
                web.post("/v1/workloads", self._add),
                web.get(_WORKLOAD, self._get),
                web.delete(_WORKLOAD, self._remove),
                web.post(f"{_WORKLOAD}/withdraw", self._withdraw),
                web.post(f"{_WORKLOAD}/command", self._command),
                web.get(f"{_WORKLOAD}/config_dump", self._admin(CONFIG_DUMP)),
                web.get(f"{_WORKLOAD}/certs", self._admin("/certs")),
                web.get(f"{_WORKLOAD}/clusters", self._admin("/clusters?format=json")),
                web.get(f"{_WORKLOAD}/stats", self._admin("/stats/prometheus", "text/plain")),
                web.post(f"{_WORKLOAD}/log", self._log),
                web.post("/v1/shutdown", self._shutdown),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2)
        await self._runner.setup()
        await web.SockSite(self._runner, private_socket(self._path)).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    def _of(self, request: web.Request) -> Workload:
        return self._agent.get(f"{request.match_info['namespace']}/{request.match_info['name']}")

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(self._agent.status())

    async def _list(self, _request: web.Request) -> web.Response:
        return _json({"workloads": self._agent.status().workloads})

    async def _add(self, request: web.Request) -> web.Response:
        spec = await _body(request, WorkloadSpec)
        return _json((await self._agent.add(spec)).status())

    async def _get(self, request: web.Request) -> web.Response:
        return _json(self._of(request).status())

    async def _remove(self, request: web.Request) -> web.Response:
        id_ = f"{request.match_info['namespace']}/{request.match_info['name']}"
        await self._agent.remove(id_, drain=request.query.get("drain", "true") != "false")
        return _json({})

    async def _withdraw(self, request: web.Request) -> web.Response:
        await self._of(request).withdraw()
        return _json({})

    async def _command(self, request: web.Request) -> web.Response:
        asked = await _body(request, CommandRequest)
        workload = self._of(request)
        if asked.argv:
            process = would_be(_caller(request), asked.argv, asked.env.get("PATH", os.defpath), asked.uid, asked.gid)
            self._entries.check_started(f"{workload.spec.namespace}/{workload.spec.service_account}", process)
        return _json(workload.command(asked.argv, asked.env, uid=asked.uid, gid=asked.gid))

    def _admin(self, path: str, kind: str = "application/json") -> Handler:
        async def handle(request: web.Request) -> web.Response:
            workload = self._of(request)
            if workload.envoy is None:
                raise Unavailable(f"{workload.id} has no Envoy yet")
            status, body = await workload.envoy.admin.get(path)
            return web.Response(body=body, status=status, content_type=kind)

        return handle

    async def _log(self, request: web.Request) -> web.Response:
        level = (await _body(request, dict[str, str])).get("level", "")
        check_level(level)
        workload = self._of(request)
        if workload.envoy is None:
            raise Unavailable(f"{workload.id} has no Envoy yet")
        await workload.envoy.set_level(level)
        return _json({})

    async def _shutdown(self, request: web.Request) -> web.Response:
        teardown = request.query.get("teardown") == "true"
        if teardown:
            await self._agent.teardown()
        self._stop(teardown)
        return _json({})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What went wrong, as `{code, message, hint, exit}`."""
    try:
        return await handler(request)
    except TulleError as error:
        fields = {"code": error.code, "message": error.message, "hint": error.hint, "exit": int(error.exit)}
        return _json(fields, _STATUS.get(error.code, 500))
    except web.HTTPException:
        raise
    except Exception as error:
        log.error("a request to the local API failed", path=request.path, exc_info=error)
        fields = {"code": "internal", "message": f"internal error: {error!r}", "hint": "", "exit": int(Exit.ERROR)}
        return _json(fields, 500)


@web.middleware
async def _peer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only this user and root, whatever became of the file's mode."""
    credentials = _connection(request).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid not in (0, os.geteuid()):
        raise web.HTTPForbidden
    return await handler(request)


def _connection(request: web.Request) -> socket.socket:
    connection: socket.socket | None = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        raise web.HTTPForbidden
    return connection


def _caller(request: web.Request) -> Peer:
    return peer_of(_connection(request))


async def _body(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise Refused(f"the request's body: {error}") from error


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
