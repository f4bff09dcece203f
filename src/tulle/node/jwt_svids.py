"""JWT-SVIDs of this node's applications: asked for above, handed out again while young; and those of others, checked here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jwt

from tulle.core.trust_bundle import ALGORITHMS, TrustBundle, key_of
from tulle.kit.errors import Refused, Unavailable
from tulle.node.identity import IdentityClient, Kept

_LONGEST = 16 * 1024  # characters of a token
_MOST = 10_000  # tokens that are kept
_TYPES = (None, "JWT", "JOSE")


class JwtSvids:
    """Tokens by identity and audience."""

    def __init__(self, own: Kept, client: IdentityClient, clock: Callable[[], float] = time.time) -> None:
        self._own, self._client, self._clock = own, client, clock
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[str, float, float]] = {}

    async def fetch(self, name: str, audience: Sequence[str]) -> str:
        """A token for a SPIFFE ID, with at least half of its life before it; with less where the control plane is away."""
        key = (name, tuple(sorted(set(audience))))
        now = self._clock()
        token, began, ends = self._kept.get(key, ("", 0.0, 0.0))
        if token and now < (began + ends) / 2:
            return token
        own = self._own.current
        if own is None:
            raise Unavailable("this node has no certificate yet")
        try:
            made, until = await self._client.token(own, name, key[1])
        except Unavailable:
            if token and now < ends:
                return token
            raise
        if len(self._kept) >= _MOST:
            self._kept = {one: kept for one, kept in self._kept.items() if kept[2] > now}
        if len(self._kept) < _MOST:
            self._kept[key] = (made, now, until)
        return made


def validate(token: str, audience: str, bundles: Iterable[TrustBundle]) -> dict[str, Any]:
    """The claims of a token that is meant for `audience`; raises `Refused` with why it is not taken. JWT-SVID standard §5."""
    if not audience:
        raise Refused("audience: needed one")
    if len(token) > _LONGEST:
        raise Refused(f"the token is longer than {_LONGEST} characters")
    try:
        header = jwt.get_unverified_header(token)
        subject = jwt.decode(token, options={"verify_signature": False}).get("sub")
    except jwt.PyJWTError as error:
        raise Refused("the token is not a signed JWT") from error
    if header.get("alg") not in ALGORITHMS:
        raise Refused(f"the token's algorithm {str(header.get('alg'))[:20]!r} is none of those for JWT-SVIDs")
    if header.get("typ") not in _TYPES:
        raise Refused(f"the token's type {str(header.get('typ'))[:20]!r} is none of those for JWT-SVIDs")
    if not isinstance(subject, str) or not subject.startswith("spiffe://"):
        raise Refused("the token's subject is no SPIFFE ID")
    trust_domain = subject.removeprefix("spiffe://").partition("/")[0]
    key = key_of(bundles, trust_domain, str(header.get("kid", "")))
    if key is None:
        raise Refused(f"the token is signed with no key of trust domain {trust_domain[:255]}")
    required = ["exp", "sub", "aud"]
    try:
        made = jwt.PyJWK(dict(key), algorithm=header["alg"])
        return jwt.decode(token, made, [header["alg"]], audience=audience, options={"require": required, "verify_iat": False})
    except jwt.ExpiredSignatureError as error:
        raise Refused("the token has expired") from error
    except jwt.InvalidAudienceError as error:
        raise Refused("the token is for another audience") from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise Refused(f"the token is not valid: {error}") from error
