"""The certificate authority: signing requests a second over nodes' connections, and 1,000 proxies that start at one moment.

A real control-plane process with its SQLite store. All of it is measured: TLS with the node's certificate, whether it may
ask, the certificate and the look at it, the ledger. The nodes are in this process: they join with tokens, as nodes do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import tempfile
import time
from pathlib import Path

import msgspec

from tests.bench.api import Server
from tests.bench.http_client import Connection
from tulle.client.api import ApiClient
from tulle.control.ca import certificates
from tulle.node.identity import Identity, IdentityClient, context

NODES = 32
REQUESTS = 2000  # a round
PROXIES = 1000
_PATH = "/identity/v1/sign"


class Ca(msgspec.Struct):
    """`rate` is signing requests a second; `p99` (of one request) and `start_seconds` are seconds, until the last of `proxies`,
    which make a connection and a key of their own, has its certificate.
    """

    rounds: int
    rate: float
    worst_rate: float
    p99: float
    proxies: int
    start_seconds: float


async def measure(rounds: int) -> Ca:
    """Start, join, measure."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = Server(Path(folder) / "state")
        await server.start()
        try:
            nodes = await _joined(server)
            rates, times = [], []
            for _ in range(rounds):
                seconds, each = await _round(server, nodes)
                rates.append(REQUESTS / seconds)
                times += each
            began = time.monotonic()
            await _start(server, nodes)
            started = time.monotonic() - began
        finally:
            await server.stop()
    times.sort()
    rates.sort()
    return Ca(rounds, rates[len(rates) // 2], rates[0], times[int(0.99 * len(times))], PROXIES, started)


async def _joined(server: Server) -> list[Identity]:
    """The nodes, each with a token of its own."""
    found = []
    async with ApiClient.from_kubeconfig(server.state / "kubeconfig") as api:
        for number in range(NODES):
            body = {"allow": ["bench/*"], "lifetime": 600, "node": f"host-{number}"}
            token = (await api.request("POST", "/tulle/v1/tokens", body=body))["token"]
            found.append(await IdentityClient(f"127.0.0.1:{server.port}").join(token, f"host-{number}"))
    return found


async def _round(server: Server, nodes: list[Identity]) -> tuple[float, list[float]]:
    """So many requests over one connection of each node, as fast as they are answered; how long, and how long each."""
    key = certificates.make_key()
    bodies = []
    for number in range(REQUESTS):
        identity = f"spiffe://cluster.local/ns/bench/sa/a{number % 200}"
        csr = certificates.make_request(key, uri=identity).decode()
        bodies.append(json.dumps({"csr": csr, "identity": identity, "workload": f"bench/w{number}"}).encode())
    connections = [await Connection("127.0.0.1", server.port, _tls(one)).open() for one in nodes]
    left, times = iter(bodies), []

    async def work(one: Connection) -> None:
        for body in left:
            began = time.monotonic()
            await one.request("POST", _PATH, body)
            times.append(time.monotonic() - began)

    began = time.monotonic()
    await asyncio.gather(*(work(one) for one in connections))
    seconds = time.monotonic() - began
    for one in connections:
        one.close()
    return seconds, times


async def _start(server: Server, nodes: list[Identity]) -> None:
    """Every proxy asks at once, as its node does it."""
    clients = [IdentityClient(f"127.0.0.1:{server.port}") for _ in nodes]
    numbers = iter(range(PROXIES))
    spread = itertools.cycle(zip(clients, nodes, strict=True))

    async def one(number: int) -> None:
        client, own = next(spread)
        await client.sign(own, f"spiffe://cluster.local/ns/bench/sa/a{number}", f"bench/p{number}/a/v1")

    await asyncio.gather(*(one(number) for number in numbers))


def _tls(own: Identity) -> ssl.SSLContext:
    made = context(own)
    made.check_hostname = False
    return made
