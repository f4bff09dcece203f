"""DNS for the applications in sandboxes: mesh names from a table, every other name from this machine's resolvers.

The sockets lie in a workload's network namespace, where capture sends all its DNS (`Sandbox.dns_sockets`); this process, in the
host's, answers on them and asks the resolvers from there. So it cannot ask itself, and a workload needs no way out to resolve.

    publish({"reviews.default.svc.cluster.local": ["240.240.0.7"], ...})      from the mesh's services, whenever they change
    server = await serve(sockets, namespace="default")                        once a workload; `server.close()` with it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tulle.node import resolv
from tulle.node.network import PROXY_DNS_PORT

PROXY = ""  # stands for the namespace of a workload where its proxy asks

_TTL = 5  # seconds: an address is stale for no longer
_TIMEOUT = 2.0  # seconds for each resolver asked
_IN_FLIGHT = 256  # forwarded at the same time, over all workloads
_CONNECTIONS = 64  # over TCP, for each workload
_IDLE = 10.0  # seconds that a TCP connection may say nothing


class Names:
    """The mesh's names. `table` maps a full lower-case hostname without a final dot, or `*.` and a domain, to addresses."""

    def __init__(self, domain: str = resolv.CLUSTER_DOMAIN) -> None:
        self._domain = domain
        self._table: Mapping[str, Sequence[str]] = {}

    def publish(self, table: Mapping[str, Sequence[str]]) -> None:
        """Replace the table."""
        self._table = {name.lower().rstrip("."): tuple(addresses) for name, addresses in table.items()}

    def resolve(self, name: str, namespace: str) -> Sequence[str] | None:
        """The addresses that a workload of `namespace` means by `name`; None where the table has no such name.

        Kubernetes' forms are all known as they are: `reviews`, `reviews.default`, `reviews.default.svc`, the full name, and
        each of them with the search list's first entry behind it, which is what a C library with `ndots:5` asks first.
        """
        name = name.lower().rstrip(".")
        searched = f".{namespace}.svc.{self._domain}"
        for form in (name, name.removesuffix(searched)) if name.endswith(searched) else (name,):
            if (found := self._short(form, namespace)) is not None:
                return found
        return None

    def owns(self, name: str) -> bool:
        """Whether nobody but the mesh could know the name."""
        return f".{name.lower().rstrip('.')}".endswith(f".{self._domain}")

    def _short(self, name: str, namespace: str) -> Sequence[str] | None:
        forms = [name]
        match name.count("."):
            case 0:
                forms.append(f"{name}.{namespace}.svc.{self._domain}")
            case 1:
                forms.append(f"{name}.svc.{self._domain}")
            case _ if name.endswith(".svc"):
                forms.append(f"{name}.{self._domain}")
        for form in forms:
            if (found := self._table.get(form)) is not None:
                return found
        head, _, rest = name.partition(".")
        while head and rest:
            if (found := self._table.get(f"*.{rest}")) is not None:
                return found
            head, _, rest = rest.partition(".")
        return None


class DnsServer:
    """Answers for every workload of a node. `resolvers`: where other names go, asked in order (port 53 unless given).

    What a workload is told of the mesh may be less than what another is: each may have a table of its own (`of`).
    """

    def __init__(self, names: Names | None = None, resolvers: Callable[[], Sequence[tuple[str, int]]] | None = None) -> None:
        self.names = names or Names()
        self._own: dict[str, Names] = {}
        self._resolvers = resolvers or _HostResolvers()
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)

    def publish(self, table: Mapping[str, Sequence[str]]) -> None:
        """Replace the mesh's names; holds from the next question on."""
        self.names.publish(table)

    def publish_own(self, tables: Mapping[str, Names]) -> None:
        """Replace the names of those workloads, by id, that do not have everybody's."""
        self._own = dict(tables)

    async def serve(self, sockets: Sequence[socket.socket], namespace: str, of: str = "") -> Serving:
        """Answer on these sockets (UDP, and listening TCP) for a workload of `namespace`, and close them with the result.

        What asks at `PROXY_DNS_PORT` is the proxy: for it, hosts outside the mesh have the addresses that the world knows, and
        not the virtual ones, under which it would only meet itself.
        """
        serving = Serving()
        loop = asyncio.get_running_loop()
        for one in sockets:
            whose = PROXY if one.getsockname()[1] == PROXY_DNS_PORT else namespace
            if one.type == socket.SOCK_DGRAM:
                made = partial(_Datagrams, self, (whose, of), serving)
                transport, _ = await loop.create_datagram_endpoint(made, sock=one)
                serving.transports.append(transport)
            else:
                serving.servers.append(await asyncio.start_server(self._stream((whose, of), serving), sock=one))
        return serving

    async def answer(self, question: bytes, namespace: str, *, tcp: bool, of: str = "") -> bytes | None:
        """The reply to one message of the workload `of`, or None for what deserves none."""
        names = self._own.get(of, self.names)
        try:
            query = dns.message.from_wire(question, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR:
            return None
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return _refusal(query, dns.rcode.NOTIMP if query.opcode() != dns.opcode.QUERY else dns.rcode.FORMERR)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True)
        ours = namespace != PROXY or names.owns(name)
        found = names.resolve(name, namespace) if ours else None
        if found is None and not names.owns(name):
            return await self._forward(query, question, tcp=tcp)
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AA
        if found is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdclass == dns.rdataclass.IN:
            for kind, six in ((dns.rdatatype.A, False), (dns.rdatatype.AAAA, True)):
                of_kind = [address for address in found if (":" in address) is six]
                if of_kind and asked.rdtype in (kind, dns.rdatatype.ANY):
                    reply.answer.append(dns.rrset.from_text_list(asked.name, _TTL, dns.rdataclass.IN, kind, of_kind))
        limit = 65535 if tcp else max(512, min(query.payload or 512, 1232))
        try:
            return reply.to_wire(max_size=limit)
        except dns.exception.TooBig:
            reply.answer.clear()
            reply.flags |= dns.flags.TC  # ask again over TCP
            return reply.to_wire()

    async def _forward(self, query: dns.message.Message, question: bytes, *, tcp: bool) -> bytes | None:
        if self._in_flight.locked():
            return _refusal(query, dns.rcode.SERVFAIL)
        async with self._in_flight:
            for host, port in self._resolvers():
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        return await (_ask_tcp if tcp else _ask_udp)(question, host, port)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
        return _refusal(query, dns.rcode.SERVFAIL)

    def _stream(self, asking: tuple[str, str], serving: Serving) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            if len(serving.conversations) >= _CONNECTIONS:
                writer.close()
                return
            serving.conversations.add(task)
            try:
                while True:
                    async with asyncio.timeout(_IDLE):
                        question = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                    if (reply := await self.answer(question, asking[0], tcp=True, of=asking[1])) is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    async with asyncio.timeout(_IDLE):
                        await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return
            finally:
                serving.conversations.discard(task)
                writer.close()

        return converse


class Serving:
    """One workload's DNS, until it is closed."""

    def __init__(self) -> None:
        self.transports: list[asyncio.BaseTransport] = []
        self.servers: list[asyncio.Server] = []
        self.conversations: set[asyncio.Task[None]] = set()
        self.answers: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop answering and close the sockets."""
        for transport in self.transports:
            transport.close()
        for server in self.servers:
            server.close()
        tasks = [*self.conversations, *self.answers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer, asking: tuple[str, str], serving: Serving) -> None:
        self._server, self._asking, self._serving = server, asking, serving
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(self._serving.answers) >= 2 * _IN_FLIGHT:
            return  # as if lost on the way: whoever asks so much asks again
        task = asyncio.get_running_loop().create_task(self._reply(data, addr))
        self._serving.answers.add(task)
        task.add_done_callback(self._serving.answers.discard)

    async def _reply(self, data: bytes, addr: Any) -> None:
        reply = await self._server.answer(data, self._asking[0], tcp=False, of=self._asking[1])
        if reply is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


class _Reply(asyncio.DatagramProtocol):
    """Takes the first reply with the question's id; the socket is connected, so that it comes from the resolver asked."""

    def __init__(self, question: bytes) -> None:
        self._id = question[:2]
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(data) >= 12 and data[:2] == self._id and data[2] & 0x80 and not self.received.done():
            self.received.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)


async def _ask_udp(question: bytes, host: str, port: int) -> bytes:
    transport, reply = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Reply(question), remote_addr=(host, port)
    )
    try:
        transport.sendto(question)
        return await reply.received
    finally:
        transport.close()


async def _ask_tcp(question: bytes, host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


def _refusal(query: dns.message.Message, code: dns.rcode.Rcode) -> bytes:
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(code)
    return reply.to_wire()


class _HostResolvers:
    """The resolvers in this machine's resolv.conf, read again when it has changed (a laptop moves between networks)."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] | None = None
        self._found: list[tuple[str, int]] = []

    def __call__(self) -> Sequence[tuple[str, int]]:
        stamp = None
        with contextlib.suppress(OSError):
            stat = os.stat(resolv.HOST_RESOLV_CONF)
            stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp or not self._found:
            self._stamp = stamp
            self._found = [(address, 53) for address in resolv.host_nameservers()]
        return self._found
