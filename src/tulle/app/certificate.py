"""The control plane's own certificate, on both of its ports: issued here, renewed at half-life and when the roots change."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from pathlib import Path

import structlog

from tulle.app.settings import ControlPlaneSettings
from tulle.kit.errors import Refused, TulleError
from tulle.ports import KeyPair, Signer
from tulle.xds.credentials import ServerCredentials

log = structlog.get_logger("tulle.control-plane")

_LIFETIME = 24 * 3600.0
_AGAIN = 60.0  # seconds before a renewal that failed is tried again


class ServerCertificate:
    """`tls` is the API server's context, `credentials` are the xDS server's; both change in place. Make it with `open`."""

    def __init__(self, signer: Signer, settings: ControlPlaneSettings, pair: KeyPair) -> None:
        self._signer, self._settings = signer, settings
        # Each handshake gets the newest context, for one that has trusted a root cannot forget it.
        self._newest = self.tls = _context(pair, signer.bundle)
        self.tls.sni_callback = self._select
        self.credentials = ServerCredentials(pair.key, pair.chain, signer.bundle)

    @classmethod
    async def open(cls, signer: Signer, settings: ControlPlaneSettings) -> ServerCertificate:
        """With a certificate of now. Raises as `Signer.sign`."""
        return cls(signer, settings, await _issued(signer, settings))

    async def renew(self) -> None:
        """A new one, and the roots of now, for handshakes from now on; connections that stand are not touched."""
        pair, bundle = await _issued(self._signer, self._settings), self._signer.bundle
        self._newest = _context(pair, bundle)
        self.credentials.use(pair.key, pair.chain, bundle)

    async def run(self) -> None:
        """Renew at half-life until cancelled."""
        pause = _LIFETIME / 2
        while True:
            await asyncio.sleep(pause)
            try:
                await self.renew()
                pause = _LIFETIME / 2
            except TulleError as error:
                log.warning("the control plane's own certificate was not renewed; trying again", why=error.message)
                pause = _AGAIN

    def _select(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _context(pair: KeyPair, bundle: bytes) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; Python's own list has CBC too
    made.verify_mode = ssl.CERT_OPTIONAL  # checked where one comes; what needs one says so itself
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.load_verify_locations(cadata=bundle.decode())
    made.set_alpn_protocols(["http/1.1"])
    load(made, pair)
    return made


async def _issued(signer: Signer, settings: ControlPlaneSettings) -> KeyPair:
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), "tulle.tulle-system.svc", *settings.advertise}
    for address in (settings.api_address, settings.xds_address):
        host = split_address(address)[0]
        if not is_any(host):
            names.add(host)
    identity = f"spiffe://{settings.trust_domain}/ns/tulle-system/sa/control-plane"
    return await signer.issue_server(sorted(names), _LIFETIME, identity)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or `:port`; raises `Refused` where it is none."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise Refused(f"address {address!r}: needed host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what `:port` means everywhere


def is_any(host: str) -> bool:
    """Whether this is where all addresses are listened on, and so nobody's."""
    return host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def reached(address: str, settings: ControlPlaneSettings, fallback: str) -> str:
    """`host:port` by which others reach a port of this control plane: what is advertised, else where it listens."""
    host, port = split_address(address)
    host = settings.advertise[0] if settings.advertise else fallback if is_any(host) else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def load(context: ssl.SSLContext, certificate: KeyPair) -> None:
    """The `ssl` module reads keys from files only: one that nobody else can open, and that is gone at once."""
    descriptor, name = tempfile.mkstemp(prefix="tulle-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.key + certificate.chain)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
