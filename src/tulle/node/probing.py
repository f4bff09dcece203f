"""Probes of an application: asked again and again where it runs, until so many answers in a row say that it is ready, or not.

HTTP, gRPC and TCP probes are connections from inside the workload's network; a command runs there too. So nothing that is
captured, encrypted or refused stands between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Mapping

from tulle.client.node_api import Probe
from tulle.kit.errors import TulleError
from tulle.node.network import Sandbox, SocketSpec

_LOOPBACK = "127.0.0.1"


class Verdict:
    """Pure: answers in, changes out."""

    def __init__(self, probe: Probe, ready: bool = False) -> None:
        self.ready = ready
        self._probe = probe
        self._row = 0  # answers in a row that say the opposite of `ready`

    def heard(self, healthy: bool) -> bool:
        """Note an answer; True where `ready` changed by it."""
        if healthy is self.ready:
            self._row = 0
            return False
        self._row += 1
        if self._row < (self._probe.successes if healthy else self._probe.failures):
            return False
        self.ready, self._row = healthy, 0
        return True


async def watch(probe: Probe, box: Sandbox, changed: Callable[[bool], None], ready: bool, environment: Mapping[str, str]) -> None:
    """Ask for ever and tell changes. `environment` is a command's."""
    verdict = Verdict(probe, ready)
    if not ready:
        await asyncio.sleep(probe.delay)
    while True:
        if verdict.heard(await healthy(probe, box, environment)):
            changed(verdict.ready)
        await asyncio.sleep(probe.period)


async def healthy(probe: Probe, box: Sandbox, environment: Mapping[str, str]) -> bool:
    """One answer."""
    try:
        async with asyncio.timeout(probe.timeout):
            if probe.command:
                return await _command(probe, box, environment)
            return await _connection(probe, box)
    except (TimeoutError, OSError, TulleError, ValueError):  # ssl.SSLError is an OSError, IncompleteReadError is not asked for
        return False


async def _command(probe: Probe, box: Sandbox, environment: Mapping[str, str]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *box.command(probe.command, app=True),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def _connection(probe: Probe, box: Sandbox) -> bool:
    (made,) = await box.sockets(SocketSpec("tcp"))
    try:
        port = box.app_ports.get(probe.port, probe.port)
        await asyncio.get_running_loop().sock_connect(made, (probe.host or _LOOPBACK, port))
        if probe.grpc is not None:
            from tulle.node.grpc_health import serving

            return await serving(made, probe.grpc)
        if not probe.path:
            return True
        context = _unverified() if probe.tls else None
        reader, writer = await asyncio.open_connection(sock=made, ssl=context, server_hostname="" if context else None)
        try:
            writer.write(_request(probe))
            await writer.drain()
            words = (await reader.readline()).split()
            return len(words) > 1 and 200 <= int(words[1]) < 400
        finally:
            writer.close()
    finally:
        made.close()


def _request(probe: Probe) -> bytes:
    path = probe.path if probe.path.startswith("/") else f"/{probe.path}"
    named = {name.lower() for name, _value in probe.headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in probe.headers), "Connection: close"]
    if "host" not in named:
        lines.append(f"Host: {probe.host or 'localhost'}:{probe.port}")
    if "user-agent" not in named:
        lines.append("User-Agent: tulle-probe")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _unverified() -> ssl.SSLContext:
    """As Kubernetes probes: whether it answers is asked, not who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
