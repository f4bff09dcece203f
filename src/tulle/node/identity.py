"""Identities of this node and its workloads: keys made here, certificates asked for, kept on disk, renewed in time.

    join token ──▶ node certificate ──▶ one certificate a workload ──▶ SDS

Keys never leave the node. Everything works from disk while the control plane is away and the certificate has not expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node.cache import write_private

log = structlog.get_logger("tulle.node")

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
_HELD = aiohttp.ClientTimeout(total=60, connect=3)  # a question that is answered when there is something new
_LOOK = 60.0  # seconds between two questions for the roots, at most; a tenth of a certificate's life where that is less
_HURRY = 60.0  # seconds within which all certificates of a node are renewed, where another root signs

KEY_TYPES: Mapping[str, Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
}
DEFAULT_KEY_TYPE = "ecdsa-p256"


class Identity(msgspec.Struct, frozen=True):
    """A key, its certificate chain (leaf first), the roots to trust, all PEM, and who that is. Never print it."""

    name: str  # the SPIFFE ID
    trust_domain: str
    key: str
    chain: str
    bundle: str
    issued: float  # by this machine's clock; certificates begin earlier, for clocks that are late
    not_after: float
    signs: str = ""  # what signed it, in the authority's word: where that is another now, a new one is due

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

    def __init__(self, api: str, key_type: str = DEFAULT_KEY_TYPE, roots: str = "") -> None:
        """`key_type`: of the keys that are made here. `roots` (PEM): whom to trust where a token does not say it."""
        if key_type not in KEY_TYPES:
            raise Refused(f"key type: found {key_type!r}, needed one of {', '.join(KEY_TYPES)}")
        self._addresses = [one.strip() for one in api.split(",")]
        self.key_type, self._roots = key_type, roots

    @property
    def api(self) -> str:
        """The one that answered last."""
        return self._addresses[0]

    async def join(self, token: str, node: str) -> Identity:
        """The node's own identity, for a join token. The token names the root to trust; nothing else is believed."""
        bundle, domain = await self._bundle(token) if not self._roots or token.startswith("tulle.") else await self._given()
        key, csr = _request(f"spiffe://{domain}/node/{node}" if domain else "", self.key_type)
        trusting = ssl.create_default_context(cadata=bundle)
        try:
            answer = await self._post("join", {"token": token, "csr": csr, "node": node}, trusting)
        except Refused as refusal:
            if not token.startswith("tulle.") or not isinstance(refusal.__cause__, aiohttp.ClientConnectorCertificateError):
                raise
            raise Refused(
                f"the control plane at {self.api} does not sign with the root that the join token names: "
                "the root was rotated since the token was made, or somebody else answers there",
                hint="make a new one: `tulle token create`",
            ) from refusal
        return _identity(key, answer)

    async def sign(self, own: Identity, name: str, who: str = "") -> Identity:
        """A new certificate, with a new key, for a SPIFFE ID that this node may have; `own` is the node's identity.

        `who`: the workload's `namespace/name/app/version`, for the metrics of those whom it calls.
        """
        key, csr = _request(name, self.key_type, who)
        body = {"csr": csr, "identity": name, "workload": "/".join(who.split("/")[:2])}
        return _identity(key, await self._post("sign", body, context(own)))

    async def roots(self, own: Identity) -> tuple[str, str]:
        """What is to be trusted now (PEM), and what signs; the control plane is told what this node trusts."""
        answer = await self._post("bundle", {"trusts": own.bundle}, context(own))
        bundle, signs = str(answer.get("bundle", "")), str(answer.get("signs", ""))
        try:
            x509.load_pem_x509_certificates(bundle.encode())
        except ValueError as error:
            raise Refused(f"{self.api} answered without root certificates") from error
        return bundle, signs

    async def token(self, own: Identity, name: str, audience: Sequence[str]) -> tuple[str, float]:
        """A JWT-SVID for a SPIFFE ID that this node may have, and when it ends (seconds since the epoch)."""
        answer = await self._call("POST", "jwt", {"identity": name, "audience": list(audience)}, context(own))
        return str(answer["token"]), float(answer["expires"])

    async def bundles(self, own: Identity, tag: str, refused: int) -> dict[str, Any]:
        """All trust bundles, once they are not those of `tag`; those of `tag` after half a minute. The control plane is told how
        many calls of the Workload API were `refused` here.
        """
        return await self._call("GET", f"bundles?tag={tag}&refused={refused}", None, context(own), _HELD)

    async def _given(self) -> tuple[str, str]:
        """The roots that this node was given, and the trust domain of the control plane, which has a certificate of them."""
        answer = await self._call("GET", "bundle", None, ssl.create_default_context(cadata=self._roots))
        return self._roots, str(answer.get("trust_domain", ""))

    async def _bundle(self, token: str) -> tuple[str, str]:
        """The root that the token was made for, where the control plane has it, and its trust domain."""
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
                return root.public_bytes(serialization.Encoding.PEM).decode(), str(answer.get("trust_domain", ""))
        raise Refused(
            f"the control plane at {self.api} does not have the root that the join token names",
            hint="take a token from this control plane: `tulle token create`",
        )

    async def _post(self, path: str, body: dict[str, str], tls: ssl.SSLContext) -> dict[str, Any]:
        return await self._call("POST", path, body, tls)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        tls: ssl.SSLContext,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> dict[str, Any]:
        """Of one that answers: each is asked once."""
        for others in reversed(range(len(self._addresses))):
            try:
                return await self._asked(method, path, body, tls, timeout)
            except Unavailable:
                self._addresses.append(self._addresses.pop(0))
                if not others:
                    raise
        raise AssertionError("there is an address")

    async def _asked(
        self, method: str, path: str, body: Mapping[str, object] | None, tls: ssl.SSLContext, timeout: aiohttp.ClientTimeout
    ) -> dict[str, Any]:
        url = f"https://{self.api}/identity/v1/{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
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


def _request(name: str, key_type: str, who: str = "") -> tuple[str, str]:
    """A new key and its CSR, PEM. It names the identity that is asked for, for signers that take it from there, and `who`."""
    key = KEY_TYPES[key_type]()
    subject = x509.Name([x509.NameAttribute(NameOID.USER_ID, who)] if who else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=not who)
    csr = builder.sign(key, hashes.SHA384() if key_type == "ecdsa-p384" else hashes.SHA256())
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
            signs=str(answer.get("signs", "")),
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
        self._signs = ""  # what signs now, where that is known
        self._news = asyncio.Event()
        self._saving = asyncio.Lock()

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
        self.current = made = await self.ask()
        await self._save()
        self.error = ""
        self.use(made)
        return made

    async def _save(self) -> None:
        """Keep what is current, one after the other."""
        async with self._saving:
            if self.current is not None:
                await asyncio.to_thread(self.current.save, self.path)

    async def trust(self, bundle: str, signs: str) -> None:
        """Trust these roots from now on; where something else signs now, the certificate is renewed soon."""
        if self.current is not None and self.current.bundle != bundle:
            self.current = msgspec.structs.replace(self.current, bundle=bundle)
            await self._save()
            self.use(self.current)
        if signs != self._signs:
            self._signs = signs
            self._news.set()

    def _due(self, now: float) -> float:
        """When to renew."""
        own = self.current
        if own is None:
            return now
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        if self._signs and own.signs != self._signs:
            return now + jitter * min(_HURRY, (own.not_after - own.issued) / 10)
        return own.renew_at(jitter)

    async def run(self) -> None:
        """Renew at half-life, or soon where something else signs now; with back-off where that fails, for ever."""
        attempt = 0
        while True:
            now = time.time()
            left = self.current.not_after - now if self.current else 0.0
            delay = retry_delay(attempt, left) if attempt else self._due(now) - now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, delay)):
                    await self._news.wait()
                    self._news.clear()
                    continue
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


async def follow_roots(client: IdentityClient, own: Kept, trust: Callable[[str, str], Awaitable[None]]) -> None:
    """Ask for the roots again and again until cancelled, and `trust` what comes, so that a rotation finds this node prepared."""
    while True:
        mine = own.current
        life = mine.not_after - mine.issued if mine else _LOOK
        await asyncio.sleep(min(_LOOK, life / 10) * (0.75 + random.random() / 4))  # noqa: S311 - spreads load, guards nothing
        # What is news is trusted after the first time, which a rotation waits to be told.
        for _time in range(2):
            if mine is None or not mine.valid(time.time()):
                break
            try:
                found = await client.roots(mine)
            except TulleError as error:
                log.debug("the roots cannot be asked for", error=error.message)
                break
            await trust(*found)
            if found[0] == mine.bundle:
                break
            mine = own.current
