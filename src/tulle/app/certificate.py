"""The control plane's own certificate, on both of its ports: issued here, renewed at half-life and when the roots change."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from pathlib import Path

from tulle.app.settings import ControlPlaneSettings
from tulle.control.ca.authority import Authority, KeyPair
from tulle.kit.errors import Refused
from tulle.xds.credentials import ServerCredentials

_LIFETIME = 24 * 3600.0


class ServerCertificate:
    """`tls` is the API server's context, `credentials` are the xDS server's; both change in place."""

    def __init__(self, authority: Authority, settings: ControlPlaneSettings) -> None:
        self._authority, self._settings = authority, settings
        pair = self._issue()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.tls.verify_mode = ssl.CERT_OPTIONAL  # checked where one comes; what needs one says so itself
        self.tls.load_verify_locations(cadata=authority.bundle.decode())
        self.tls.set_alpn_protocols(["http/1.1"])
        load(self.tls, pair)
        self.credentials = ServerCredentials(pair.key, pair.chain, authority.bundle)

    def renew(self) -> None:
        """A new one, for handshakes from now on; connections that stand are not touched.

        The API server's context cannot forget a root that it trusted; by the time that one is retired its leaves have ended.
        """
        pair, bundle = self._issue(), self._authority.bundle
        load(self.tls, pair)
        self.tls.load_verify_locations(cadata=bundle.decode())
        self.credentials.use(pair.key, pair.chain, bundle)

    async def run(self) -> None:
        """Renew at half-life until cancelled."""
        while True:
            await asyncio.sleep(_LIFETIME / 2)
            self.renew()

    def _issue(self) -> KeyPair:
        settings = self._settings
        names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), "tulle.tulle-system.svc", *settings.advertise}
        for address in (settings.api_address, settings.xds_address):
            host = split_address(address)[0]
            if not is_any(host):
                names.add(host)
        identity = f"spiffe://{settings.trust_domain}/ns/tulle-system/sa/control-plane"
        return self._authority.issue_server(sorted(names), _LIFETIME, identity)


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
