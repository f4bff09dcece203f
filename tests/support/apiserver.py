"""An API server with an authority of its own on an ephemeral port, and clients for it: for tests of the server and clients."""

from __future__ import annotations

import contextlib
import datetime
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from multidict import CIMultiDictProxy
from yarl import URL

from tulle.client import kubeconfig
from tulle.client.api import ApiClient
from tulle.control.apiserver.server import ApiServer
from tulle.control.store.memory import MemoryStore
from tulle.ports import Store


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


class Ca:
    """A certificate authority for tests."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._build(self.name, self.key.public_key(), [], ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str = "", groups: Sequence[str] = (), uris: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> tuple[bytes, bytes]:
        """Certificate and key in PEM."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        if name:
            parts.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        for host in hosts:
            is_ip = host[0].isdigit()
            names.append(x509.IPAddress(ipaddress.ip_address(host)) if is_ip else x509.DNSName(host))
        certificate = self._build(x509.Name(parts), key.public_key(), names, ca=False)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def _build(self, subject: x509.Name, key: Any, names: list[x509.GeneralName], *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_usage(ca), critical=True)  # Python 3.13 refuses an authority without
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if not ca:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def server_context(self) -> ssl.SSLContext:
        """As the control plane makes it: a client certificate is optional."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.pem.decode())
        self.load(context, *self.issue("server", hosts=["127.0.0.1", "localhost"]))
        return context

    @staticmethod
    def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(key + certificate)
            file.flush()
            context.load_cert_chain(file.name)


@dataclass
class Answer:
    """What came back: `body` is the decoded JSON, or the text of anything else."""

    status: int
    headers: CIMultiDictProxy[str]
    body: Any
    data: bytes

    @property
    def warnings(self) -> list[str]:
        return self.headers.getall("Warning", [])


class Raw:
    """HTTP without a client's opinions, as an administrator."""

    def __init__(self, served: Running, context: ssl.SSLContext) -> None:
        self.served = served
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), auto_decompress=False)

    async def __call__(self, method: str, path: str, body: Any = None, type_: str = "application/json", **headers: str) -> Answer:
        """`body`: bytes as they are, or a value as JSON. Underscores in the names of headers are dashes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None and "Content-Type" not in sent:
            sent["Content-Type"] = type_
        url = URL(self.served.url + path, encoded=True)
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            text = await response.read()
            whole = (
                json.loads(text)
                if text and response.content_type == "application/json" and "Content-Encoding" not in response.headers
                else text.decode(errors="replace")
            )
            return Answer(response.status, response.headers, whole, text)


@dataclass
class Running:
    """A served API: who may what is decided by the certificate that a client shows."""

    server: ApiServer
    store: Store
    ca: Ca
    url: str

    def context(self, name: str = "", groups: Sequence[str] = (), uris: Sequence[str] = ()) -> ssl.SSLContext:
        """A client's TLS context; without arguments one that shows no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca.pem.decode())
        if name or uris:
            self.ca.load(context, *self.ca.issue(name, groups, uris))
        return context

    def client(
        self, name: str = "admin", groups: Sequence[str] = ("system:masters",), uris: Sequence[str] = (), **more: Any
    ) -> ApiClient:
        """A client; an administrator unless said otherwise."""
        return ApiClient(self.url, self.context(name, groups, uris), **more)

    @contextlib.asynccontextmanager
    async def raw(self, name: str = "admin", groups: Sequence[str] = ("system:masters",)) -> AsyncIterator[Raw]:
        """Plain HTTP; an administrator's unless said otherwise."""
        one = Raw(self, self.context(name, groups))
        try:
            yield one
        finally:
            await one.session.close()

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig of an administrator."""
        certificate, key = self.ca.issue("admin", ["system:masters"])
        kubeconfig.write(path, server=self.url, ca=self.ca.pem, certificate=certificate, key=key)
        return path


@contextlib.asynccontextmanager
async def running(store: Store | None = None, **options: Any) -> AsyncIterator[Running]:
    """A served API over `store` (a fresh one in memory without it)."""
    store = store or MemoryStore()
    ca = Ca()
    server = ApiServer(store, tls=ca.server_context(), **options)
    await server.prepare()
    port = await server.start("127.0.0.1", 0)
    try:
        yield Running(server, store, ca, f"https://127.0.0.1:{port}")
    finally:
        await server.stop()
        await store.close()
