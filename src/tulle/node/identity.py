"""Identities of this node and its workloads: keys made here, certificates asked for, kept on disk, renewed in time.

    join token ──▶ node certificate ──▶ one certificate a workload ──▶ SDS

Keys never leave the node. Everything works from disk while the control plane is away and the certificate has not expired.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node.cache import write_private

log = structlog.get_logger("tulle.node")

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)


class Identity(msgspec.Struct, frozen=True):
    """A key, its certificate chain (leaf first), the roots to trust, all PEM, and who that is. Never print it."""

    name: str  # the SPIFFE ID
    trust_domain: str
    key: str
    chain: str
    bundle: str
    issued: float  # by this machine's clock; certificates begin earlier, for clocks that are late
    not_after: float

    def __repr__(self) -> str:
        return f"Identity({self.name})"

    def valid(self, now: float) -> bool:
        """Whether peers would accept it still."""
        return now < self.not_after

    def renew_at(self, jitter: float) -> float:
        """When to renew: at half its life, a tenth earlier or later (`jitter` in 0..1), so that a mesh does not renew at once."""
        return self.issued + (self.not_after - self.issued) * (0.45 + 0.1 * jitter)

    def save(self, path: Path) -> None:
        """Keep it in one file (0600), so that key and certificate cannot fall apart. Blocks."""
        write_private(path, msgspec.json.encode(self))

    @classmethod
    def load(cls, path: Path) -> Identity | None:
        """What `save` kept; None where there is none or it cannot be used."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
            context(found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ssl.SSLError) as error:
            log.warning("the identity on disk cannot be used; asking for a new one", path=str(path), error=str(error))
            return None
        return found


def retry_delay(attempt: int, left: float) -> float:
    """Seconds before another try, after `attempt` failures and `left` before expiry: 1, 2, 4 ... 300, sooner near the end."""
    return max(1.0, min(2.0 ** min(attempt - 1, 20), 300.0, left / 8))


def context(identity: Identity) -> ssl.SSLContext:
    """A TLS client context with that certificate, which trusts its bundle only."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(cadata=identity.bundle)
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)  # the ssl module reads keys from files only; this one is on no disk
    try:
        os.write(descriptor, f"{identity.key}\n{identity.chain}".encode())
        made.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return made


class IdentityClient:
    """Asks the control plane for certificates. `api` is `host:port`, or several of them by commas: whichever answers.

    Raises `Unavailable` (try again) or `Refused` (do not).
    """

    def __init__(self, api: str) -> None:
        self._addresses = [one.strip() for one in api.split(",")]

    @property
    def api(self) -> str:
        """The one that answered last."""
        return self._addresses[0]

    async def join(self, token: str, node: str) -> Identity:
        """The node's own identity, for a join token. The token names the root to trust; nothing else is believed."""
        bundle = await self._bundle(token)
        key, csr = _request()
        trusting = ssl.create_default_context(cadata=bundle)
        answer = await self._post("join", {"token": token, "csr": csr, "node": node}, trusting)
        return _identity(key, answer)

    async def sign(self, own: Identity, name: str) -> Identity:
        """A new certificate, with a new key, for a SPIFFE ID that this node may have; `own` is the node's identity."""
        key, csr = _request()
        return _identity(key, await self._post("sign", {"csr": csr, "identity": name}, context(own)))

    async def _bundle(self, token: str) -> str:
        """The roots, accepted only if the one that the token was made for is the root of them."""
        parts = token.strip().split(".")
        if len(parts) != 4 or parts[0] != "tulle":
            raise Refused("this is not a join token: found other words than `tulle.ID.SECRET.ROOT`", hint="`tulle token create`")
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE  # what comes is checked against the token's hash
        answer = await self._call("GET", "bundle", None, unverified)
        bundle = str(answer.get("bundle", ""))
        try:
            roots = x509.load_pem_x509_certificates(bundle.encode())
        except ValueError as error:
            raise Refused(f"{self.api} answered without root certificates") from error
        # Only the pinned root is believed here: the answer to the join brings the others, authenticated.
        for root in roots:
            der = root.public_bytes(serialization.Encoding.DER)
            if hashlib.sha256(der).hexdigest() == parts[3]:
                return root.public_bytes(serialization.Encoding.PEM).decode()
        raise Refused(
            f"the control plane at {self.api} does not have the root that the join token names",
            hint="take a token from this control plane: `tulle token create`",
        )

    async def _post(self, path: str, body: dict[str, str], tls: ssl.SSLContext) -> dict[str, Any]:
        return await self._call("POST", path, body, tls)

    async def _call(self, method: str, path: str, body: dict[str, str] | None, tls: ssl.SSLContext) -> dict[str, Any]:
        """Of one that answers: each is asked once."""
        for others in reversed(range(len(self._addresses))):
            try:
                return await self._asked(method, path, body, tls)
            except Unavailable:
                self._addresses.append(self._addresses.pop(0))
                if not others:
                    raise
        raise AssertionError("there is an address")

    async def _asked(self, method: str, path: str, body: dict[str, str] | None, tls: ssl.SSLContext) -> dict[str, Any]:
        url = f"https://{self.api}/identity/v1/{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.request(method, url, json=body, ssl=tls) as response,
            ):
                data = await response.read()
                status = response.status
        except aiohttp.ClientConnectorCertificateError as error:
            raise Refused(f"{self.api}: its certificate is not of this mesh ({error.certificate_error})") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"no control plane answers at https://{self.api}") from error
        try:
            answer = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            answer = {}
        if status < 300:
            return answer
        message = str(answer.get("message", f"{path} was answered with status {status}"))
        if status >= 500 or status == 429:
            raise Unavailable(f"the control plane at {self.api}: {message}")
        raise Refused(message, hint=str(answer.get("hint", "")))


def _request() -> tuple[str, str]:
    """A new key and its CSR, PEM. The CSR says nothing but the key: the authority builds the certificate itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    return pem, csr.public_bytes(serialization.Encoding.PEM).decode()


def _identity(key: str, answer: dict[str, Any]) -> Identity:
    """What the authority answered, checked: the certificate must be for our key and have one SPIFFE ID."""
    try:
        chain, bundle = str(answer["chain"]), str(answer["bundle"])
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
        private = serialization.load_pem_private_key(key.encode(), None)
        if leaf.public_key() != private.public_key():
            raise ValueError("the certificate is for another key")
        made = Identity(
            name=uris[0],
            trust_domain=str(answer.get("trust_domain") or uris[0].split("/")[2]),
            key=key,
            chain=chain,
            bundle=bundle,
            issued=time.time(),
            not_after=leaf.not_valid_after_utc.timestamp(),
        )
        context(made)
    except (KeyError, IndexError, ValueError, ssl.SSLError, x509.ExtensionNotFound) as error:
        raise Refused(f"the authority's answer cannot be used: {error}") from error
    return made


class Kept:
    """One identity that is kept on disk and valid. `current` is None until there is one.

    `ask` gets a new one; `use` is called with each, also with the first. `run` keeps it renewed until cancelled.
    """

    def __init__(self, path: Path, ask: Callable[[], Awaitable[Identity]], use: Callable[[Identity], None]) -> None:
        self.path, self.ask, self.use = path, ask, use
        self.current: Identity | None = None
        self.error = ""

    async def open(self, name: str = "") -> Identity:
        """From disk where it is valid (and named `name`, if given), else asked for. Raises what `ask` raises."""
        found = await asyncio.to_thread(Identity.load, self.path)
        if found is not None and found.valid(time.time()) and name in ("", found.name):
            self.current = found
            self.use(found)
            return found
        return await self.renew()

    async def renew(self) -> Identity:
        """Ask for a new one, keep it, use it."""
        made = await self.ask()
        await asyncio.to_thread(made.save, self.path)
        self.current = made
        self.error = ""
        self.use(made)
        return made

    async def run(self) -> None:
        """Renew at half-life, with back-off where that fails, for ever."""
        attempt = 0
        while True:
            now = time.time()
            due = self.current.renew_at(random.random()) if self.current else now  # noqa: S311 - spreads load, guards nothing
            left = self.current.not_after - now if self.current else 0.0
            delay = retry_delay(attempt, left) if attempt else due - now
            await asyncio.sleep(max(0.0, delay))
            try:
                made = await self.renew()
            except TulleError as error:
                attempt += 1
                self.error = error.message
                log.warning(
                    "a certificate was not renewed; trying again", file=self.path.name, left=round(left), error=error.message
                )
            else:
                attempt = 0
                log.info("certificate renewed", identity=made.name, until=round(made.not_after))
