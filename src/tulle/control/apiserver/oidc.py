"""Bearer tokens of one OpenID Connect issuer, as kube-apiserver takes them with its `--oidc-*` flags.

    issuer ──/.well-known/openid-configuration──▶ jwks_uri ──▶ keys (kept; asked for again every few minutes, and for a key
    Authorization: Bearer ey... ──▶ signature, iss, aud, exp, nbf, required claims ──▶ User           that is not known)

Only asymmetric signatures are taken, by a key whose kind fits. An issuer that is away costs nobody but the holders of tokens
that a new key has signed. What a token says is never in a log.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tulle.control.apiserver.auth import AUTHENTICATED, User
from tulle.control.documents import document
from tulle.kit.errors import Refused, Unavailable

log = structlog.get_logger("tulle.apiserver")

_FLOOR = 10.0  # seconds between two questions to the issuer, whatever tokens come
_EVERY = 600.0  # seconds between two of its own accord: keys that the issuer has withdrawn go
_TIMEOUT = 5.0
_MOST = 100  # keys
_REMEMBERED, _REMEMBER = 2000, 60.0  # good tokens, and for how many seconds they are not verified again
_LEEWAY = 10.0  # seconds that clocks may differ
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_ALGORITHMS = frozenset((*_RSA, *_CURVES.values(), "EdDSA"))
_SMALLEST_RSA = 2048  # bits
_RESERVED = "system:"


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """kube-apiserver's: `username_prefix` "" is the issuer and `#` (none for the claim `email`), `-` is none."""

    issuer_url: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    ca_file: Path | None = None
    required_claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key of the issuer, and what it may sign."""

    id: str
    algorithms: frozenset[str]
    public: Any


class Oidc:
    """`authn.Bearers` for one issuer. `run` keeps its keys fresh; without it they are asked for when a token comes."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `Refused` where the settings make no sense."""
        self.settings, self._clock = settings, clock
        parts = urlsplit(settings.issuer_url)
        if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment:
            raise Refused(f"OIDC issuer: found {settings.issuer_url!r}, needed a URL that starts with https://, without ? and #")
        if not settings.client_id:
            raise Refused("OIDC client id: found none, needed the audience of the tokens", hint="give --oidc-client-id")
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"OIDC CA file {settings.ca_file}: it cannot be read: {error}") from error
        prefix = settings.username_prefix or ("" if settings.username_claim == "email" else f"{settings.issuer_url}#")
        self._prefix = "" if prefix == "-" else prefix
        self._keys: Sequence[_Key] = ()
        self._asked = -_FLOOR
        self._asking: asyncio.Task[None] | None = None
        self._good: dict[bytes, tuple[User, float]] = {}

    async def run(self) -> None:
        """Ask the issuer now and then, until cancelled."""
        while True:
            await self._refresh()
            await asyncio.sleep(_EVERY)

    def knows(self, token: str) -> bool:
        """Whether the token was verified a moment ago."""
        return self._remembered(token) is not None

    async def redeem(self, token: str) -> User | None:
        """The user of the token; None where it is not the issuer's, not (any longer) valid, or not for this server."""
        if (user := self._remembered(token)) is not None:
            return user
        try:
            head = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return None
        algorithm, key_id = head.get("alg"), head.get("kid", "")
        if algorithm not in _ALGORITHMS or not isinstance(key_id, str) or "crit" in head:
            return None
        if not self._fitting(algorithm, key_id):
            await self._refresh()
        for key in self._fitting(algorithm, key_id):
            claims = self._claims(token, key)
            if claims is not None:
                return self._remember(token, self._user(claims), float(claims["exp"]))
        return None

    def _remembered(self, token: str) -> User | None:
        user, end = self._good.get(_digest(token), (None, 0.0))
        return user if self._clock() < end else None

    def _remember(self, token: str, user: User | None, expires: float) -> User | None:
        if user is not None:
            if len(self._good) >= _REMEMBERED:
                self._good.clear()
            self._good[_digest(token)] = (user, self._clock() + min(_REMEMBER, expires - time.time()))
        return user

    def _fitting(self, algorithm: str, key_id: str) -> list[_Key]:
        return [key for key in self._keys if algorithm in key.algorithms and key_id in ("", key.id)]

    def _claims(self, token: str, key: _Key) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=sorted(key.algorithms),
                audience=self.settings.client_id,
                issuer=self.settings.issuer_url,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return None
        return found

    def _user(self, claims: Mapping[str, Any]) -> User | None:
        """The user that verified claims name; None where one that is needed is missing, or claims a name of the system's own."""
        settings = self.settings
        if any(claims.get(name) != value for name, value in settings.required_claims.items()):
            return None
        name = claims.get(settings.username_claim)
        if not isinstance(name, str) or not name or not name.isprintable():
            return None
        if settings.username_claim == "email" and claims.get("email_verified", True) is not True:
            return None
        name = f"{self._prefix}{name}"
        said = claims.get(settings.groups_claim, []) if settings.groups_claim else []
        listed = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        groups = [f"{settings.groups_prefix}{one}" for one in listed if isinstance(one, str) and one.isprintable() and one]
        # Whoever administers the issuer does not administer the mesh: `system:masters` is not his to give.
        if name.startswith(_RESERVED):
            return None
        return User(name, (*(one for one in groups if not one.startswith(_RESERVED)), AUTHENTICATED))

    async def _refresh(self) -> None:
        """Ask the issuer for its keys, unless that was just done; what fails is said, and the keys stay."""
        if self._asking is None:
            if self._clock() - self._asked < _FLOOR:
                return
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            self._keys = await self._fetch()
            self._good.clear()
        except Unavailable as error:
            log.warning("the keys of the OIDC issuer cannot be read", issuer=self.settings.issuer_url, error=error.message)
        finally:
            self._asking = None

    async def _fetch(self) -> Sequence[_Key]:
        issuer = self.settings.issuer_url
        limits = aiohttp.ClientTimeout(total=_TIMEOUT)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), timeout=limits) as session:
            found = await document(session, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise Unavailable(f"it names itself {str(found.get('issuer'))[:200]!r}, needed {issuer!r}")
            place = found.get("jwks_uri")
            if not isinstance(place, str) or not place.startswith("https://"):
                raise Unavailable("its jwks_uri is no URL that starts with https://")
            said = await document(session, place)
        listed = said.get("keys")
        if not isinstance(listed, list):
            raise Unavailable("its key set has no keys")
        keys = [key for one in listed[:_MOST] if isinstance(one, dict) and (key := _key(one)) is not None]
        if not keys:
            raise Unavailable("its key set has no key that signs with RSA, an elliptic curve or Ed25519")
        return keys


def _key(raw: Mapping[str, Any]) -> _Key | None:
    """A key of the set; None where it is not for signatures, secret, or too weak."""
    if raw.get("use", "sig") != "sig" or raw.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        public = jwt.PyJWK({name: value for name, value in raw.items() if name not in ("alg", "d")}).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    fitting: tuple[str, ...] = ()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= _SMALLEST_RSA:
        fitting = _RSA
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        fitting = (_CURVES[public.curve.name],)
    elif isinstance(public, ed25519.Ed25519PublicKey):
        fitting = ("EdDSA",)
    said = raw.get("alg")
    allowed = frozenset(fitting) if said is None else frozenset(fitting) & {said}
    return _Key(str(raw.get("kid", "")), allowed, public) if allowed else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
