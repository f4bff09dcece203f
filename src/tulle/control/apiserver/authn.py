"""Who asks: the client certificate first, then the bearer token, as Kubernetes has it. Nobody is not an error; a bad token is.

connection ──certificate──▶ identify ─┐
Authorization ──▶ ApiTokens, Oidc ────┴─▶ User ──Impersonate-*──▶ impersonation.py
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import User, identify
from tulle.control.apiserver.connections import Connection
from tulle.control.apiserver.limits import Rates, too_many
from tulle.control.apiserver.tokens import AUDIENCE, PREFIX, ApiTokens

_LONGEST = 64 * 1024  # characters of a token


class Bearers(Protocol):
    """Knows the tokens of somebody else (`oidc.Oidc`)."""

    def knows(self, token: str) -> bool:
        """Whether the token was found good a moment ago, so that the answer costs nothing."""
        ...

    async def redeem(self, token: str) -> User | None:
        """The user, or None where it is none of its tokens, or a bad one."""
        ...


class Authenticator:
    """Tells users from connections and headers. `foreign`: whose tokens are taken beside tulle's own."""

    def __init__(
        self,
        trust_domain: str,
        tokens: ApiTokens,
        foreign: Bearers | None = None,
        failures: float = 20.0,
        clock: Callable[[], float] = time.time,
        revoked: Callable[[str, str], bool] = lambda identity, serial: False,
    ) -> None:
        """`failures`: how many bad tokens a second from one address are looked at (in a burst twice as many).

        `revoked`: whether the holder of a certificate (SPIFFE ID or "", serial number in hex) is nobody any more.
        """
        self._revoked = revoked
        self.trust_domain, self.tokens, self.foreign, self._clock = trust_domain, tokens, foreign, clock
        self._failures = Rates(failures)

    async def user(self, request: web.Request) -> User | None:
        """The caller, or None where nobody is named. Raises a `Denial` (401) where a token is shown that is not good."""
        holder = self._holder(request)
        if holder is not None:
            return holder
        said = request.headers.getall("Authorization", [])
        if not said:
            return None
        scheme, _, token = said[0].strip().partition(" ")
        if len(said) > 1 or scheme.lower() != "bearer":
            raise errors.unauthorized()
        token, address, now = token.strip(), request.remote or "", time.monotonic()
        # A signature costs the server something to check; a token that is known to be good does not wait for others' bad ones.
        costs = self.foreign is not None and not token.startswith(PREFIX) and not self.foreign.knows(token)
        if costs and (wait := self._failures.wait(address, now, take=False)):
            raise too_many(f"bad tokens come from {address}", wait)
        found = await self.redeem(token)
        if found is None:
            self._failures.wait(address, now)
            raise errors.unauthorized()
        return found[0]

    async def redeem(self, token: str, audiences: Sequence[str] = (AUDIENCE,)) -> tuple[User, tuple[str, ...]] | None:
        """The user of a bearer token, and for which of `audiences` it is."""
        if not token or len(token) > _LONGEST or not token.isascii():
            return None
        if token.startswith(PREFIX):
            return await self.tokens.redeem(token, audiences)
        if self.foreign is None or AUDIENCE not in audiences:
            return None
        user = await self.foreign.redeem(token)
        return None if user is None else (user, (AUDIENCE,))

    def _holder(self, request: web.Request) -> User | None:
        """The user of the connection's certificate, for as long as it is valid: a connection may live longer."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        if connection.holder is None:
            certificate = request.get_extra_info("peercert")
            serial = str((certificate or {}).get("serialNumber", ""))
            connection.holder = (identify(certificate, self.trust_domain), _end(certificate), serial)
        user, end, serial = connection.holder
        if user is not None and self._revoked(user.identity, serial):
            raise errors.unauthorized("the client certificate is revoked")
        if user is not None and end <= self._clock():
            raise errors.unauthorized("the client certificate has expired")
        return user


def _end(certificate: Mapping[str, Any] | None) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate and "notAfter" in certificate else 0.0
