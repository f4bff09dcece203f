"""An HTTP PKI as Vault's engine is one, over real TLS: `POST /v1/pki/sign-verbatim/ROLE` with a token, from its own root."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tulle.control.ca import certificates
from tulle.control.ca.authority import Authority

TOKEN = "hvs.s3cr3t"


def authority(
    name: str, *, length: int | None, by: tuple[x509.Certificate, Any] | None = None, now: float
) -> tuple[x509.Certificate, Any]:
    """A certificate that signs others (`length` of the path below it; None: one that does not), and its key."""
    key = certificates.make_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (by[0].subject, by[1]) if by else (subject, key)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificates.moment(now - 3600))
        .not_valid_after(certificates.moment(now + 1e6))
        .add_extension(x509.BasicConstraints(ca=length is not None, path_length=length), critical=True)
    )
    return built.sign(issuer_key, certificates.digest(issuer_key)), key


def online(request: bytes, by: tuple[x509.Certificate, Any]) -> bytes:
    """The certificate (PEM) of an intermediate, made where its root is kept, for a signing request."""
    csr, now = x509.load_pem_x509_csr(request), time.time()
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    built = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(by[0].subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificates.moment(now - 60))
        .not_valid_after(certificates.moment(now + 1e6))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return certificates.pem(built.sign(by[1], certificates.digest(by[1])))


def lay_down(folder: Path, issuer: tuple[x509.Certificate, Any], root: x509.Certificate) -> None:
    """An intermediate and its key in a folder, in Istio's names; each file appears whole."""
    folder.mkdir(exist_ok=True)
    for name, data in (
        ("ca-key.pem", certificates.key_pem(issuer[1])),
        ("root-cert.pem", certificates.pem(root)),
        ("ca-cert.pem", certificates.pem(issuer[0])),
    ):
        made = folder / f".{name}"
        made.touch(0o600)
        made.write_bytes(data)
        made.rename(folder / name)


class Pki:
    """`mode` makes it do wrong: see `_made` and `sign`. `asked` are the bodies that came, `refused` how many were."""

    def __init__(self, folder: Path, now: float) -> None:
        self.root = authority("pki root", length=1, now=now)
        self.issuer = authority("pki issuing", length=0, by=self.root, now=now)
        self.other = authority("another root", length=0, now=now)
        self.mode = ""
        self.asked: list[dict[str, Any]] = []
        self.refused = 0
        folder.mkdir(exist_ok=True)
        self.root_file, self.token_file, self.ca_file = folder / "root.pem", folder / "token", folder / "server-ca.pem"
        self.root_file.write_bytes(certificates.pem(self.root[0]))
        self.token_file.write_text(TOKEN + "\n")
        own = Authority.open(folder / "tls")
        self.ca_file.write_bytes(own.bundle)
        pair = own.issue_server(["localhost"], 3600)
        (folder / "server.pem").write_bytes(pair.chain + pair.key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "server.pem")
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/v1/pki/sign-verbatim/tulle"

    @contextmanager
    def serve(self) -> Iterator[Pki]:
        """Serve in a thread of its own."""
        loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def run() -> None:
            app = web.Application()
            app.router.add_post("/v1/pki/sign-verbatim/tulle", self.sign)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "localhost", 0, ssl_context=self.tls)
            await site.start()
            self.port = runner.addresses[0][1]
            ready.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    async def sign(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Vault-Token") != TOKEN:
            self.refused += 1
            return web.json_response({"errors": ["permission denied"]}, status=403)
        body = await request.json()
        self.asked.append(body)
        if self.mode == "down":
            return web.json_response({"errors": ["Vault is sealed"]}, status=503)
        if self.mode == "no":
            return web.json_response({"errors": ["role does not allow it"]}, status=400)
        if self.mode == "nonsense":
            return web.Response(text="<html>", content_type="text/html")
        leaf = self._made(x509.load_pem_x509_csr(body["csr"].encode()), body)
        chain = [self.issuer[0], self.root[0]]
        data = {"certificate": certificates.pem(leaf).decode(), "ca_chain": [certificates.pem(one).decode() for one in chain]}
        return web.json_response({"data": data})

    def _made(self, csr: x509.CertificateSigningRequest, body: dict[str, Any]) -> x509.Certificate:
        issuer, key = self.other if self.mode == "another root" else self.issuer
        public = certificates.make_key().public_key() if self.mode == "another key" else csr.public_key()
        begin = certificates.moment(time.time() - 30)
        life = timedelta(seconds=float(body["ttl"].rstrip("s")))
        built = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - (2 * life if self.mode == "expired" else timedelta()))
            .not_valid_after(begin + (-life if self.mode == "expired" else life))
            .add_extension(x509.BasicConstraints(ca=self.mode == "an authority", path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, self.mode == "an authority", False, False, False), critical=True
            )
        )
        purposes = {"ClientAuth": ExtendedKeyUsageOID.CLIENT_AUTH, "ServerAuth": ExtendedKeyUsageOID.SERVER_AUTH}
        built = built.add_extension(x509.ExtendedKeyUsage([purposes[one] for one in body["ext_key_usage"]]), critical=False)
        names = [one.value for one in csr.extensions if isinstance(one.value, x509.SubjectAlternativeName)]
        if self.mode == "another name":
            names = [x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/x/sa/admin")])]
        if self.mode == "two names":
            names = [x509.SubjectAlternativeName([*names[0], x509.UniformResourceIdentifier("spiffe://cluster.local/x")])]
        for one in names:
            built = built.add_extension(one, critical=False)
        return built.sign(key, certificates.digest(key))
