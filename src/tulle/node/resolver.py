"""The workloads' DNS in a process of its own, so that names resolve while the agent is away: an agent that is killed, upgraded or
slow must not cost a request, and applications look names up all the time.

    agent (client `Resolver`) ──dns.sock: messages, and the sockets──▶ this program ──▶ DnsServer ◀── applications

The agent makes the sockets inside the sandboxes and hands them over; the mesh's names go through a file, `names.json`. The next
agent finds the process by its socket and asks it whom it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import tulle
from tulle.kit.errors import Unavailable
from tulle.node.dns import DnsServer, Names, Serving
from tulle.node.process import INSTANCE, Process, process

_MESSAGE = 1 << 16
_START_LIMIT = 20.0

Sockets = Callable[[], Awaitable[Sequence[socket.socket]]]


class Message(msgspec.Struct, omit_defaults=True):
    """`do`: status, serve (with sockets), forget, names, end."""

    do: str
    id: str = ""
    namespace: str = ""


class Written(msgspec.Struct, omit_defaults=True):
    """The file of names: each table once, by a digest, and which of them a workload has (by id)."""

    tables: dict[str, dict[str, tuple[str, ...]]] = {}
    of: dict[str, str] = {}


class Answer(msgspec.Struct, omit_defaults=True):
    """Who answers, and whom it serves."""

    pid: int
    version: str
    serving: tuple[str, ...] = ()
    error: str = ""


class Resolver:
    """The agent's side. `folder` is the agent's runtime folder."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._path, self._names, self._log = folder / "dns.sock", folder / "names.json", folder / "dns.log"
        self._instance = instance
        self._sockets: dict[str, tuple[str, Sockets]] = {}
        self._served: set[str] = set()
        # What the last agent wrote holds until this one knows better.
        self._written = _read(self._names)
        self._connection: socket.socket | None = None
        self._process: Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def serve(self, id_: str, namespace: str, sockets: Sockets) -> None:
        """Answer a workload's DNS on the sockets that `sockets` makes; a process that serves it already goes on."""
        async with self._turn:
            await self._open()
            self._sockets[id_] = (namespace, sockets)
            if id_ not in self._served:
                await self._hand_over(id_)

    async def forget(self, id_: str) -> None:
        """The workload is gone."""
        async with self._turn:
            self._sockets.pop(id_, None)
            self._served.discard(id_)
            if self._written.of.pop(id_, None) is not None:
                self._write_names()
            if self._connection is not None:
                with contextlib.suppress(Unavailable):
                    await self._ask(Message("forget", id_))

    async def publish(self, id_: str, table: Mapping[str, Sequence[str]]) -> None:
        """The mesh's names as a workload knows them from now on."""
        new = {name: tuple(addresses) for name, addresses in table.items()}
        digest = hashlib.sha256(msgspec.json.encode(new, order="sorted")).hexdigest()[:16]
        async with self._turn:
            if self._written.of.get(id_) == digest:
                return
            self._written.of[id_] = digest
            self._written.tables[digest] = new
            self._write_names()
            if self._connection is not None:
                with contextlib.suppress(Unavailable):
                    await self._ask(Message("names"))

    async def close(self, end: bool) -> None:
        """Let go; with `end`, or where it serves nobody, the process ends too."""
        if self._watching is not None:
            self._watching.cancel()
        if self._connection is not None and (end or not self._sockets):
            with contextlib.suppress(Unavailable):
                await self._ask(Message("end"))
            for file in (self._names, self._log):
                file.unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _open(self) -> None:
        """Find the process of an earlier agent, or start one."""
        if self._connection is not None:
            return
        answer = await self._connect()
        if answer is not None and answer.version != tulle.__version__:
            await self._ask(Message("end"))
            answer = None
        if answer is None:
            await asyncio.to_thread(self._start)
            async with asyncio.timeout(_START_LIMIT):
                while (answer := await self._connect()) is None:  # noqa: ASYNC110 - it is there when its socket is
                    await asyncio.sleep(0.02)
        else:
            await self._ask(Message("names"))
        self._process, self._served = process(answer.pid), set(answer.serving)
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = asyncio.ensure_future(self._watch())

    def _start(self) -> None:
        self._path.unlink(missing_ok=True)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            subprocess.Popen(
                [sys.executable, "-m", "tulle.node.resolver", str(self._path), str(self._names)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env={**os.environ, INSTANCE: self._instance},
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    async def _watch(self) -> None:
        """Start it again where it ends by itself, and hand everything over anew."""
        if self._process is not None:
            await self._process.ended()
        async with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            await self._open()
            for id_ in self._sockets:
                await self._hand_over(id_)

    async def _hand_over(self, id_: str) -> None:
        namespace, make = self._sockets[id_]
        try:
            sockets = await make()
        except Unavailable:
            return  # its sandbox is gone, and it will be removed
        try:
            await self._ask(Message("serve", id_, namespace), [one.fileno() for one in sockets])
        finally:
            for one in sockets:
                one.close()
        self._served.add(id_)

    async def _connect(self) -> Answer | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return None
        self._connection = connection
        try:
            return await self._ask(Message("status"))
        except Unavailable:
            return None

    async def _ask(self, message: Message, descriptors: Sequence[int] = ()) -> Answer:
        if self._connection is None:
            raise Unavailable("the resolver of this node does not answer")
        try:
            socket.send_fds(self._connection, [msgspec.json.encode(message)], list(descriptors))
            async with asyncio.timeout(10):
                data = await asyncio.get_running_loop().sock_recv(self._connection, _MESSAGE)
            return msgspec.json.decode(data, type=Answer)
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            self._connection.close()
            self._connection = None
            raise Unavailable("the resolver of this node does not answer") from error

    def _write_names(self) -> None:
        used = set(self._written.of.values())
        self._written.tables = {digest: table for digest, table in self._written.tables.items() if digest in used}
        partial = self._names.with_suffix(".new")
        partial.touch(mode=0o600)
        partial.write_bytes(msgspec.json.encode(self._written))
        partial.replace(self._names)


def _read(file: Path) -> Written:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(file.read_bytes(), type=Written)
    return Written()


# The program.


class _Program:
    def __init__(self, names: Path) -> None:
        self._names = names
        self._server = DnsServer()
        self._serving: dict[str, Serving] = {}
        self.over = asyncio.Event()
        self.read_names()

    def read_names(self) -> None:
        """Workloads with the same names share one table."""
        written = _read(self._names)
        tables = {digest: Names() for digest in written.tables}
        for digest, names in tables.items():
            names.publish(written.tables[digest])
        self._server.publish_own({id_: tables[digest] for id_, digest in written.of.items() if digest in tables})

    async def converse(self, connection: socket.socket) -> None:
        """One agent; there may be an old one and its successor."""
        loop = asyncio.get_running_loop()
        with connection:
            connection.setblocking(False)
            while True:
                try:
                    data, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE, 8)
                except BlockingIOError:
                    await _readable(connection)
                    continue
                if not data:
                    return
                error = await self.act(msgspec.json.decode(data, type=Message), descriptors)
                answer = Answer(os.getpid(), tulle.__version__, tuple(self._serving), error)
                await loop.sock_sendall(connection, msgspec.json.encode(answer))
                if self.over.is_set():
                    return

    async def act(self, message: Message, descriptors: Sequence[int]) -> str:
        match message.do:
            case "serve":
                if (former := self._serving.pop(message.id, None)) is not None:
                    await former.close()
                sockets = [socket.socket(fileno=one) for one in descriptors]
                self._serving[message.id] = await self._server.serve(sockets, message.namespace, message.id)
            case "forget":
                if (former := self._serving.pop(message.id, None)) is not None:
                    await former.close()
            case "names":
                self.read_names()
            case "end":
                self.over.set()
            case "status":
                pass
            case _:
                return f"found {message.do!r}, needed serve, forget, names, status or end"
        return ""


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def _serve(path: Path, names: Path) -> None:
    program = _Program(names)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.over.set)
    conversations: set[asyncio.Task[Any]] = set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.setblocking(False)
        os.umask(0o177)
        listener.bind(str(path))
        listener.listen(8)

        async def accept() -> None:
            while True:
                connection, _ = await loop.sock_accept(listener)
                task = asyncio.ensure_future(program.converse(connection))
                conversations.add(task)
                task.add_done_callback(conversations.discard)

        accepting = asyncio.ensure_future(accept())
        await program.over.wait()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call at the end
        accepting.cancel()
        if conversations:
            await asyncio.wait(conversations, timeout=1)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
