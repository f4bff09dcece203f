"""What people look at on this node: asked for at the control plane, shown to it batch by batch.

    control plane ──Looks, held until they are others──▶ Looking ──▶ one task a look ──Told──▶ control plane

A look ends when nobody holds it any more (the control plane says so with its answer to a batch), when the control plane does not
answer for a while, and with this agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.client.errors import NotFound
from tulle.core.model.looks import LONGEST_TAP, MOST_TAIL, Look, Looks, Told
from tulle.kit.errors import TulleError
from tulle.kit.redact import redact
from tulle.node.logs.follow import Follower
from tulle.node.logs.lines import matches, seen
from tulle.node.logs.tap import Tap, shown

log = structlog.get_logger("tulle.node")

PATH = "/tulle/v1/looks"
_HOLD = 40.0  # seconds for an answer that the control plane holds back
_AGAIN = 2.0  # seconds before a control plane that does not answer is asked again
_POLL = 0.25  # seconds between two looks at a file that somebody follows
_BEAT = 3.0  # seconds after which something is told, if only that nothing has come
_SILENCE = 15.0  # seconds without an answer after which nobody is taken to look
_MOST = 256 << 10  # characters of a batch
_MOST_LOOKS = 32  # at once
_MOST_CONFIG = 32 << 20  # bytes of a configuration
LOG = "access.log"  # what `/dev/stdout` of a provider is


class Looked(Protocol):
    """A workload, as far as it is looked at."""

    @property
    def log_folder(self) -> Any:
        """Where its logs are."""
        ...

    @property
    def tap(self) -> Tap:
        """Its requests."""
        ...

    async def config(self) -> bytes:
        """What its Envoy runs with, as JSON. Raises `Unavailable`."""
        ...


class Looking:
    """`workloads` gives the one of an id, or None; `api` the client of the control plane."""

    def __init__(self, node: str, workloads: Callable[[str], Looked | None], api: Callable[[], Awaitable[ApiClient]]) -> None:
        self._node, self._workloads, self._api = node, workloads, api
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        tag = ""
        try:
            while True:
                try:
                    query = {"node": self._node, "tag": tag}
                    answer = await (await self._api()).request("GET", PATH, query=query, timeout=_HOLD)
                    found = msgspec.convert(answer, Looks)
                except (TulleError, msgspec.ValidationError) as error:
                    log.debug("what is looked at is not known", error=str(error))
                    tag = ""
                    await asyncio.sleep(_AGAIN)
                    continue
                tag = found.tag
                self._settle({look.id: look for look in found.looks[:_MOST_LOOKS]})
        finally:
            for task in tuple(self._running.values()):
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _settle(self, wanted: dict[str, Look]) -> None:
        for id_, task in self._running.items():
            if id_ not in wanted:
                task.cancel()
        for id_, look in wanted.items():
            if id_ not in self._running:
                task = asyncio.ensure_future(self._show(look))
                self._running[id_] = task
                task.add_done_callback(lambda done, id_=id_: self._done(id_, done))  # type: ignore[misc]

    def _done(self, id_: str, task: asyncio.Task[None]) -> None:
        self._running.pop(id_, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a look at a workload failed", exc_info=error)

    async def _show(self, look: Look) -> None:
        workload = self._workloads(look.workload)
        teller = _Teller(look, self._node, self._api)
        if workload is None:
            await teller.tell(Told(ended=True, error=f"{look.workload} does not run on node {self._node}"))
        elif look.kind == "tap":
            await _tap(look, workload.tap, teller)
        elif look.kind == "config":
            await _config(look, workload, teller)
        else:
            await _logs(look, workload, teller)


class _Teller:
    """Tells the control plane. `over`: nobody looks any more."""

    def __init__(self, look: Look, node: str, api: Callable[[], Awaitable[ApiClient]]) -> None:
        self._path, self._api, self.node = f"{PATH}/{look.id}", api, node
        self._heard = time.monotonic()
        self.over = False

    @property
    def due(self) -> bool:
        """Whether nothing was told for so long that something has to be."""
        return time.monotonic() - self._heard > _BEAT

    async def tell(self, told: Told) -> None:
        """One batch, until it is taken: while nobody reads, and for a while where the control plane does not answer."""
        taken = False
        while not taken and not self.over:
            try:
                answer = await (await self._api()).request("POST", self._path, body=msgspec.to_builtins(told))
                self._heard, taken = time.monotonic(), bool(answer.get("taken"))
            except NotFound:
                self.over = True
            except TulleError as error:
                log.info("a look was not answered", error=error.message)
                self.over = time.monotonic() - self._heard > _SILENCE
                await asyncio.sleep(_AGAIN)
        self.over = self.over or told.ended


async def _logs(look: Look, workload: Looked, teller: _Teller) -> None:
    """Lines of a file."""
    folder = workload.log_folder
    if not (folder / LOG).exists():
        why = "it writes no access log: none is on for it (`tulle logs --help`)"
        await teller.tell(Told(ended=True, error=f"{look.workload}: {why}"))
        return
    with Follower(folder, LOG) as file:
        strange = 0
        wanted = bool(msgspec.to_builtins(look.wanted))

        def chosen(lines: list[str]) -> list[str]:
            nonlocal strange
            if not wanted:
                return lines
            kept = []
            for line in lines:
                one = seen(line)
                strange += one is None
                if one is not None and matches(look.wanted, one):
                    kept.append(line)
            return kept

        lines = await asyncio.to_thread(lambda: chosen(file.last(min(look.tail, MOST_TAIL))))
        while True:
            batch, lines = _cut(lines)
            notes = []
            if strange:
                notes.append(f"{strange} lines are of a form in which nothing can be looked for")
            if file.lost:
                notes.append("some lines were rotated away before they were read")
            strange = file.lost = 0
            ended = not look.follow and not lines
            if batch or notes or ended or teller.due:
                await teller.tell(Told(lines=tuple(batch), notes=tuple(notes), ended=ended))
            if teller.over:
                return
            if not lines:
                before = file.position
                lines = await asyncio.to_thread(lambda: chosen(file.lines()))
                if not lines and file.position == before:
                    await asyncio.sleep(_POLL)


async def _config(look: Look, workload: Looked, teller: _Teller) -> None:
    """Envoy's configuration, in pieces."""
    try:
        body = await workload.config()
    except TulleError as error:
        await teller.tell(Told(ended=True, error=error.message))
        return
    if len(body) > _MOST_CONFIG:
        why = f"its configuration is {len(body) >> 20} MB, too much from afar; on node {teller.node}: `tulle proxy config`"
        await teller.tell(Told(ended=True, error=f"{look.workload}: {why}"))
        return
    text = await asyncio.to_thread(lambda: json.dumps(redact(json.loads(body)), ensure_ascii=False, separators=(",", ":")))
    for at in range(0, len(text), _MOST):
        await teller.tell(Told(lines=(text[at : at + _MOST],), ended=at + _MOST >= len(text)))
        if teller.over:
            return


def _cut(lines: list[str]) -> tuple[list[str], list[str]]:
    """As many as a batch may have, and the rest."""
    size = 0
    for at, line in enumerate(lines):
        size += len(line)
        if size > _MOST and at:
            return lines[:at], lines[at:]
    return lines, []


async def _tap(look: Look, tap: Tap, teller: _Teller) -> None:
    """Requests, as Envoy tells them."""
    if not tap.able:
        why = "its Envoy does not listen; one that an older node agent started has to be started again"
        await teller.tell(Told(ended=True, error=f"{look.workload}: {why}"))
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + min(look.seconds or LONGEST_TAP, LONGEST_TAP)
    viewer = tap.begin(look)
    said = 1.0
    try:
        await teller.tell(Told())
        while not teller.over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_BEAT, max(0.0, until - loop.time()))):
                    await viewer.moved.wait()
            tap.pace()
            notes = []
            if tap.share < said / 1.5 or tap.share > said * 1.5:
                notes.append(f"shown: about {tap.share:.2%} of the requests" if tap.share < 1 else "shown: all requests")
                said = tap.share
            if viewer.left_out:
                notes.append(f"{viewer.left_out} requests came too fast to be shown")
                viewer.left_out = 0
            ended = loop.time() >= until
            if ended:
                notes.append("the time of this tap is over")
            if viewer.waiting or notes or ended or teller.due:
                await teller.tell(
                    Told(requests=tuple(dict(shown(one)) for one in viewer.take()), notes=tuple(notes), ended=ended)
                )
    finally:
        tap.end(viewer)
