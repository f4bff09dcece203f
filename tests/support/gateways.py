"""Gateways as the end-to-end tests use them: objects of a test, certificates, TLS clients, a server behind them."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.certificates import Roots
from tests.support.commands import run
from tests.support.echo import Echo, Pod
from tests.support.mesh import Mesh, free_port

ROOTS = Roots()
ISTIO = "networking.istio.io"


def pem(pair: tuple[bytes, bytes]) -> dict[str, str]:
    """A certificate and its key as the data of a Secret."""
    return {"tls.crt": pair[0].decode(), "tls.key": pair[1].decode()}


def secret(name: str, data: dict[str, str], namespace: str = "default", kind: str = "Secret") -> dict[str, Any]:
    """A Secret (or a ConfigMap)."""
    field = {"stringData": data, "type": "kubernetes.io/tls"} if kind == "Secret" else {"data": data}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **field}


def listener(name: str, port: int, hostname: str, certificate: str) -> dict[str, Any]:
    """An HTTPS listener."""
    tls = {"certificateRefs": [{"name": certificate}]}
    return {"name": name, "port": port, "protocol": "HTTPS", "hostname": hostname, "tls": tls}


def object_(kind: str, name: str, spec: dict[str, Any], group: str = "gateway.networking.k8s.io") -> dict[str, Any]:
    """An object of the Gateway API, or of Istio's networking group."""
    return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Gateways:
    """Objects of one test, which go when it ends."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.applied: list[dict[str, Any]] = []

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply them, and wait until the gateway has them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.mesh.kubectl("apply", "-f", "-", stdin=text)
        self.applied += objects
        self.mesh.synced()

    def remove(self) -> None:
        """Delete all of them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": self.applied})
        self.mesh.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)
        self.mesh.synced()


def context(*, alpn: tuple[str, ...] = (), client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts the test's roots."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=ROOTS.pem.decode())
    if alpn:
        made.set_alpn_protocols(list(alpn))
    if client:
        made.load_cert_chain(*client)
    return made


async def shaken(port: int, host: str, using: ssl.SSLContext) -> ssl.SSLObject:
    """A finished handshake; raises where it fails, also where the server says no only after it (TLS 1.3)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=using, server_hostname=host)
    try:
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        if found.selected_alpn_protocol() != "h2":
            writer.write(f"GET /productpage HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            await reader.readexactly(12)
        return found
    finally:
        writer.close()


def handshake(port: int, host: str, using: ssl.SSLContext) -> ssl.SSLObject:
    """As `shaken`."""
    return asyncio.run(shaken(port, host, using))


def names(spoken: ssl.SSLObject) -> tuple[str, ...]:
    """The host names of the certificate that the server showed."""
    certificate: dict[str, Any] = dict(spoken.getpeercert() or {})
    return tuple(value for _kind, value in certificate["subjectAltName"])


def number(spoken: ssl.SSLObject) -> str:
    """The number of the certificate that the server showed."""
    return str((spoken.getpeercert() or {})["serialNumber"]).lstrip("0")


def serial(pair: tuple[bytes, bytes]) -> str:
    """The number of a certificate, as Python's ssl writes it."""
    return f"{x509.load_pem_x509_certificate(pair[0]).serial_number:X}"


def route(gateway: str) -> dict[str, Any]:
    """Everything to productpage."""
    spec = {"parentRefs": [{"name": gateway}], "rules": [{"backendRefs": [{"name": "productpage", "port": 9080}]}]}
    return object_("HTTPRoute", gateway, spec)


def curl(*arguments: str) -> str:
    """The real curl's output."""
    ran = run(["curl", "-sS", "--max-time", "20", *arguments], {"PATH": "/usr/bin:/bin"})
    return ran.text.strip()


@contextmanager
def echo_server() -> Iterator[int]:
    """A server on this host that answers with what reached it; its port."""
    loop, port = asyncio.new_event_loop(), free_port()
    echo = Echo(Pod("echo", "default", "echo"))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(echo.start("127.0.0.1", http=port), loop).result(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(echo.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def behind(name: str, port: int) -> list[dict[str, Any]]:
    """A server on this host and outside the mesh, as a Service with one endpoint."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}}
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]}
    entry = {"address": "127.0.0.1", "labels": {"app": name}}
    return [{**service, "spec": spec}, object_("WorkloadEntry", name, entry, ISTIO)]
