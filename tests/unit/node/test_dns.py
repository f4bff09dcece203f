"""DNS for sandboxes, asked over real sockets on this machine's loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import dns.asyncquery
import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import pytest

from tulle.node.dns import PROXY, DnsServer, Names

TABLE = {
    "reviews.default.svc.cluster.local": ["240.240.0.1", "240.240.0.2"],
    "cart.shop.svc.cluster.local": ["240.240.0.3"],
    "nobody.shop.svc.cluster.local": [],
    "api.example.com": ["240.240.0.4"],
    "*.wild.example.com": ["240.240.0.5"],
}


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("reviews", "default", "240.240.0.1"),
        ("Reviews.", "default", "240.240.0.1"),
        ("reviews", "shop", None),
        ("reviews.default", "shop", "240.240.0.1"),
        ("reviews.default.svc", "shop", "240.240.0.1"),
        ("reviews.default.svc.cluster.local", "shop", "240.240.0.1"),
        ("reviews.default.shop.svc.cluster.local", "shop", "240.240.0.1"),
        ("reviews.default.svc.cluster.local.shop.svc.cluster.local", "shop", "240.240.0.1"),
        ("reviews.shop.svc.cluster.local", "shop", None),
        ("api.example.com", "shop", "240.240.0.4"),
        ("a.b.wild.example.com", "shop", "240.240.0.5"),
        ("wild.example.com", "shop", None),
        ("example.com", "shop", None),
        ("", "shop", None),
    ],
)
def test_forms_of_names(name: str, namespace: str, expected: str | None) -> None:
    """A form that Kubernetes knows and tulle does not breaks people's configuration; a wrong one sends calls astray."""
    names = Names()
    names.publish(TABLE)
    found = names.resolve(name, namespace)
    assert (found[0] if found else None) == expected


def _same_port() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port: a port that is free for the one may be taken for the other."""
    for _ in range(100):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        try:
            return udp, socket.create_server(("127.0.0.1", udp.getsockname()[1]))
        except OSError:
            udp.close()
    raise RuntimeError("no port is free for both")


class Served:
    """A server on two sockets of its own."""

    def __init__(self, resolvers: Sequence[tuple[str, int]] = ()) -> None:
        self.server = DnsServer(resolvers=lambda: resolvers)
        self.server.publish(TABLE)

    async def __aenter__(self) -> Served:
        udp, tcp = _same_port()
        self.port = udp.getsockname()[1]
        self.serving = await self.server.serve([udp, tcp], "shop")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.serving.close()

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False, payload: int = 0) -> dns.message.Message:
        query = dns.message.make_query(name, kind, payload=payload or None, use_edns=bool(payload))
        ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await ask(query, "127.0.0.1", port=self.port, timeout=10)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with Served() as made:
        yield made


def addresses(reply: dns.message.Message) -> list[str]:
    return sorted(item.to_text() for answer in reply.answer for item in answer)


@pytest.mark.parametrize("tcp", [False, True])
async def test_mesh_names_are_answered(served: Served, tcp: bool) -> None:
    """Addresses for A with a short life; nothing, but no error, for AAAA: at an error C libraries give up on the name."""
    reply = await served.ask("reviews.default", tcp=tcp)
    assert addresses(reply) == ["240.240.0.1", "240.240.0.2"]
    assert reply.answer[0].ttl <= 10
    for name, kind in (("reviews.default", "AAAA"), ("reviews.default", "HTTPS"), ("nobody", "A")):
        empty = await served.ask(name, kind, tcp=tcp)
        assert empty.rcode() == dns.rcode.NOERROR
        assert not empty.answer


async def test_unknown_names_of_the_mesh_stay_here(served: Served) -> None:
    """Nobody else can know them: asked elsewhere they would leak, and take as long as a resolver's timeout."""
    assert (await served.ask("typo.shop.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN


async def test_a_new_table_holds_at_once(served: Served) -> None:
    """A service that moves is found where it is."""
    served.server.publish({"cart.shop.svc.cluster.local": ["240.240.0.99"]})
    assert addresses(await served.ask("cart")) == ["240.240.0.99"]


async def test_many_addresses_are_asked_again_over_tcp(served: Served) -> None:
    """An answer that does not fit says so instead of vanishing."""
    many = [f"10.0.0.{number}" for number in range(1, 120)]
    served.server.publish({"cart.shop.svc.cluster.local": many})
    assert (await served.ask("cart")).flags & dns.flags.TC
    assert len(addresses(await served.ask("cart", tcp=True))) == len(many)


@pytest.mark.parametrize("tcp", [False, True])
async def test_other_names_are_forwarded(tcp: bool) -> None:
    """What the mesh does not know is asked of the machine's resolvers, the next one where the first is not there."""
    async with Served() as upstream:
        upstream.server.publish({"www.example.org": ["192.0.2.1"]})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = closed.getsockname()
        async with Served([nobody, ("127.0.0.1", upstream.port)]) as served:
            assert addresses(await served.ask("www.example.org", tcp=tcp)) == ["192.0.2.1"]


@pytest.mark.parametrize(("name", "code"), [("api.example.com", dns.rcode.SERVFAIL), ("reviews.default", dns.rcode.NOERROR)])
async def test_a_proxy_asks_for_the_world(name: str, code: dns.rcode.Rcode) -> None:
    """A proxy that gets a host's virtual address, of which it is the only user, would call itself instead of the host."""
    names = Names()
    names.publish(TABLE)
    server = DnsServer(names, list)
    full = f"{name}.svc.cluster.local" if code is dns.rcode.NOERROR else name
    reply = await server.answer(dns.message.make_query(full, "A").to_wire(), PROXY, tcp=False)
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() is code


async def test_without_a_resolver_failure_is_said() -> None:
    """A resolver that is away gives SERVFAIL, which is retried, and never a wrong 'there is no such name'."""
    async with Served() as served:
        assert (await served.ask("www.example.org")).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 40, b"\x12\x34\x81\x80" + b"\0" * 8, bytes(range(200))])
async def test_garbage_is_ignored(served: Served, garbage: bytes) -> None:
    """One malformed packet must neither be answered (reflection) nor stop the answers to others."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setblocking(False)
        raw.connect(("127.0.0.1", served.port))
        await loop.sock_sendall(raw, garbage)
        assert addresses(await served.ask("cart")) == ["240.240.0.3"]
        with pytest.raises(BlockingIOError):
            raw.recv(1)
    assert addresses(await served.ask("cart", tcp=True)) == ["240.240.0.3"]


async def test_each_family_is_answered_with_its_own(served: Served) -> None:
    """An AAAA with an IPv4 address breaks the reply; a dual-stack service without one is not reached by IPv6."""
    served.server.publish(
        {"cart.shop.svc.cluster.local": ["240.240.0.3", "2001:db8::7"], "old.shop.svc.cluster.local": ["240.240.0.4"]}
    )
    for kind, expected in (("A", "240.240.0.3"), ("AAAA", "2001:db8::7")):
        reply = await served.ask("cart.shop", kind=kind)
        assert [row.to_text() for rrset in reply.answer for row in rrset] == [expected]
    reply = await served.ask("old.shop", kind="AAAA")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
