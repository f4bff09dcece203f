"""The bundle endpoint: where other trust domains read this one's bundle ("SPIFFE Federation" §5), on a port of its own.

It says nothing that is secret and takes nothing: whoever reaches the port may read. How a reader knows the place is the profile:
https_web by a certificate of the web's authorities, https_spiffe by the control plane's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from aiohttp import web

from tulle.core.trust_bundle import TrustBundle, document
from tulle.kit.errors import Refused

log = structlog.get_logger("tulle.control-plane")

_LOOK = 30.0  # seconds between two looks at the certificate's files
_MOST = 256  # connections


class WebCertificate:
    """A certificate and its key in files, for the profile https_web; taken anew when they change."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `Refused` where they cannot be used."""
        self._files = certificate, key
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._stamps = self._load()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(OSError):
                if [file.stat().st_mtime_ns for file in self._files] == self._stamps:
                    continue
            try:
                self._stamps = self._load()
                log.info("the bundle endpoint's certificate was read again", file=str(self._files[0]))
            except Refused as error:
                log.warning("the bundle endpoint goes on with the certificate of before", error=error.message)

    def _load(self) -> list[int]:
        try:
            stamps = [file.stat().st_mtime_ns for file in self._files]
            self.tls.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:  # the words of neither have anything of the key
            raise Refused(f"bundle endpoint: {self._files[0]}, {self._files[1]}: {error}") from error
        return stamps


class BundleEndpoint:
    """Serves `bundle` over TLS at every path."""

    def __init__(self, bundle: Callable[[], TrustBundle]) -> None:
        self._bundle = bundle
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen; raises `Refused` where the port cannot be bound."""
        app = web.Application(client_max_size=0)
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=5, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=_MOST).start()
        except OSError as error:
            raise Refused(f"port {port} (bundle endpoint) cannot be bound on {host}: {error.strerror}") from error

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        body = document(self._bundle())
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-cache"})
