"""`/tulle/v1/logs`, `/tulle/v1/tap`, `/tulle/v1/config` for people and `/tulle/v1/looks` for nodes: see `looks.py`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Literal, Protocol

import msgspec
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.looks import Board, new_id
from tulle.core.model.looks import LONGEST_TAP, MOST_TAIL, Look, Told, Wanted, statuses

Kind = Literal["logs", "tap", "config"]
_TAP = 300.0  # seconds, where nobody says how long


class Whereabouts(Protocol):
    """What is asked of the mesh; wired in `app/mesh.py`."""

    def runs(self, workload: str) -> str | None:
        """The node that runs a workload (`namespace/name`), "" where none does; None where there is no such workload."""
        ...

    def addresses(self, account: str) -> tuple[str, ...]:
        """The addresses of the workloads of a service account (`namespace/name`)."""
        ...

    def elsewhere(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """What that control plane answers with which the node is connected; nothing where there is none."""
        ...


def add_looks(app: web.Application, board: Board, mesh: Whereabouts, reporter: Callable[[web.Request], str]) -> None:
    """The routes. `reporter` is the node that asks, or ""."""

    async def show(request: web.Request, kind: Kind) -> web.StreamResponse:
        workload = f"{request.match_info['namespace']}/{request.match_info['name']}"
        look = _look(request.query, workload, kind, mesh)
        node = mesh.runs(workload)
        if node is None:
            raise errors.Denial(404, "NotFound", f"no workload {workload} is in the mesh")
        if not node:
            raise errors.Denial(404, "NotFound", f"{workload} has no proxy that a node runs")
        if board.full():
            raise errors.Denial(429, "TooManyRequests", "too many people look at the moment")
        pieces: AsyncGenerator[bytes, None] | None = None
        if board.has(node):
            pieces = _lines(board, node, look)
        elif request.query.get("here") != "true":
            pieces = mesh.elsewhere(request.path, dict(request.query))
        if pieces is not None:
            async with contextlib.aclosing(pieces) as source:
                async for first in source:
                    return await _passed(request, first, source)
        raise errors.Denial(503, "ServiceUnavailable", f"node {node}, which runs {workload}, is not connected at the moment")

    async def logs(request: web.Request) -> web.StreamResponse:
        return await show(request, "logs")

    async def tap(request: web.Request) -> web.StreamResponse:
        return await show(request, "tap")

    async def config(request: web.Request) -> web.StreamResponse:
        return await show(request, "config")

    async def looks(request: web.Request) -> web.Response:
        node, own = request.query.get("node", ""), reporter(request)
        if not own or node != own:
            raise errors.Denial(403, "Forbidden", f"node: found {node!r}; what is looked at is for the node itself")
        return _json(await board.after(node, request.query.get("tag", "")))

    async def told(request: web.Request) -> web.Response:
        own = reporter(request)
        if not own:
            raise errors.Denial(403, "Forbidden", "only nodes tell what people look at")
        try:
            body = msgspec.json.decode(await request.read(), type=Told)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"told: {error}") from error
        try:
            return _json({"taken": await board.take(own, request.match_info["id"], body)})
        except KeyError:
            raise errors.Denial(404, "NotFound", "nobody looks any more") from None

    app.router.add_get("/logs/{namespace}/{name}", logs)
    app.router.add_get("/tap/{namespace}/{name}", tap)
    app.router.add_get("/config/{namespace}/{name}", config)
    app.router.add_get("/looks", looks)
    app.router.add_post("/looks/{id}", told)


async def _lines(board: Board, node: str, look: Look) -> AsyncGenerator[bytes, None]:
    """What a node shows, as it is sent; what is wrong before anything is shown is a refusal."""
    first = True
    async with contextlib.aclosing(board.look(node, look)) as source:
        async for told in source:
            if first and told.error:
                raise errors.Denial(404, "NotFound", told.error)
            first = False
            yield msgspec.json.encode(told) + b"\n"


async def _passed(request: web.Request, first: bytes, source: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(first)
    async for piece in source:
        await response.write(piece)
    await response.write_eof()
    return response


def _look(query: Mapping[str, str], workload: str, kind: Kind, mesh: Whereabouts) -> Look:
    """What a person asks for. Raises a `Denial` (400)."""
    account = query.get("from", "")
    if account and (account.count("/") != 1 or not all(account.split("/"))):
        raise errors.bad_request(f"from: found {account!r}; needed NAMESPACE/SERVICEACCOUNT")
    try:
        ranges = statuses(query.get("status", ""))
    except ValueError as error:
        raise errors.bad_request(f"status: {error}") from error
    wanted = Wanted(
        statuses=ranges,
        caller=account,
        addresses=mesh.addresses(account) if account else (),
        method=query.get("method", "").upper(),
        path=query.get("path", ""),
        authority=query.get("authority", ""),
        slower=_number(query, "slower", 0.0, 3600.0),
    )
    return Look(
        id=new_id(),
        workload=workload,
        kind=kind,
        wanted=wanted,
        tail=int(_number(query, "tail", 0.0, MOST_TAIL)),
        follow=query.get("follow", "") == "true",
        seconds=_number(query, "seconds", _TAP, LONGEST_TAP),
    )


def _number(query: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = query.get(name, "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise errors.bad_request(f"{name}: found {text!r}, needed a number from 0 to {most:g}")
    return found


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
