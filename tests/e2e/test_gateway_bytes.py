"""Connections that a real gateway forwards as they are."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import ROOTS, Gateways, context, number, object_, pem, secret, serial
from tests.support.mesh import free_port


class Backend:
    """A TLS server with a certificate of its own, and a TCP server, outside the mesh: what they hear is nobody's business."""

    def __init__(self, folder: Path, address: str) -> None:
        self.pair = ROOTS.server("bank.example")
        self.address, self.tls_port, self.tcp_port = address, free_port(), free_port()
        for name, data in zip(("tls.crt", "tls.key"), self.pair, strict=True):
            (folder / name).write_bytes(data)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    async def __aenter__(self) -> Backend:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            writer.write(b"heard " + line)
            await writer.drain()
            writer.close()

        self._servers = [
            await asyncio.start_server(answer, self.address, self.tls_port, ssl=self._context),
            await asyncio.start_server(answer, self.address, self.tcp_port),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    def objects(self) -> list[dict[str, Any]]:
        """It as a Service with one endpoint."""
        ports = [{"name": "tls", "port": self.tls_port}, {"name": "tcp", "port": self.tcp_port}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bank", "namespace": "default"}}
        entry = {"address": self.address, "labels": {"app": "bank"}}
        return [
            {**service, "spec": {"selector": {"app": "bank"}, "ports": ports}},
            object_("WorkloadEntry", "bank", entry, "networking.istio.io"),
        ]


async def exchange(port: int, host: str | None = None) -> tuple[str, str]:
    """Say a line to a port of the gateway: what comes back, and the number of the certificate that was shown."""
    using = context() if host else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=using, server_hostname=host)
    try:
        writer.write(b"hello\n")
        line = await reader.readline()
        return line.decode().strip(), number(writer.get_extra_info("ssl_object")) if host else ""
    finally:
        writer.close()


def test_bytes_go_through(gateways: Gateways, tmp_path: Path) -> None:
    """TLS that was to be passed through would end at the gateway, and TCP would not arrive; with either API."""
    asyncio.run(_forward(gateways, tmp_path))


async def _forward(gateways: Gateways, folder: Path) -> None:
    api, tcp, istio, istio_tcp = (free_port() for _ in range(4))
    ends = ROOTS.server("ends.example")
    certificates = {"certificateRefs": [{"name": "ends"}]}
    async with Backend(folder, "127.0.0.1") as bank:
        backend = [{"destination": {"host": "bank", "port": {"number": bank.tls_port}}}]
        tcp_backend = [{"destination": {"host": "bank", "port": {"number": bank.tcp_port}}}]
        listeners = [
            {"name": "through", "port": api, "protocol": "TLS", "hostname": "bank.example", "tls": {"mode": "Passthrough"}},
            {"name": "ends", "port": api, "protocol": "TLS", "hostname": "ends.example", "tls": certificates},
            {"name": "tcp", "port": tcp, "protocol": "TCP"},
        ]
        servers = [
            {
                "port": {"number": istio, "name": "tls", "protocol": "TLS"},
                "hosts": ["bank.example"],
                "tls": {"mode": "PASSTHROUGH"},
            },
            {"port": {"number": istio_tcp, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]},
        ]
        await asyncio.to_thread(
            gateways.apply,
            *bank.objects(),
            secret("ends", pem(ends)),
            object_("Gateway", "l4", {"gatewayClassName": "tulle", "listeners": listeners}),
            _l4("TLSRoute", "through", bank.tls_port, hostnames=["bank.example"]),
            _l4("TLSRoute", "ends", bank.tcp_port, hostnames=["ends.example"]),
            _l4("TCPRoute", "tcp", bank.tcp_port),
            object_("Gateway", "l4", {"selector": {"istio": "ingressgateway"}, "servers": servers}, "networking.istio.io"),
            object_(
                "VirtualService",
                "l4",
                {
                    "hosts": ["bank.example"],
                    "gateways": ["l4"],
                    "tls": [{"match": [{"sniHosts": ["bank.example"]}], "route": backend}],
                    "tcp": [{"match": [{"port": istio_tcp}], "route": tcp_backend}],
                },
                "networking.istio.io",
            ),
        )
        assert await exchange(api, "bank.example") == ("heard hello", serial(bank.pair)), "the backend's own certificate"
        assert await exchange(api, "ends.example") == ("heard hello", serial(ends)), "the gateway's"
        assert await exchange(istio, "bank.example") == ("heard hello", serial(bank.pair))
        assert await exchange(tcp) == ("heard hello", "")
        assert await exchange(istio_tcp) == ("heard hello", "")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await exchange(api, "other.example")


def _l4(kind: str, name: str, port: int, **more: Any) -> dict[str, Any]:
    """A route of connections to the backend."""
    parent = {"name": "l4", "sectionName": name}
    return object_(kind, name, {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "bank", "port": port}]}], **more})
