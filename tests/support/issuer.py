"""An OpenID Connect issuer on HTTPS: keys that can be exchanged, documents that can be made wrong, tokens of any sort."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.apiserver import Ca

_RSA = rsa.generate_private_key(65537, 2048)  # made once: it takes a while


class Issuer:
    """`url` is what tokens name; `answers` overrides documents by path (a status, text or JSON)."""

    def __init__(self, ca: Ca, url: str) -> None:
        self.ca, self.url = ca, url
        self.keys: dict[str, Any] = {"one": _RSA}
        self.answers: dict[str, Any] = {}
        self.asked = 0

    def key_set(self) -> dict[str, Any]:
        """The public keys."""
        return {"keys": [public(key_id, key) for key_id, key in self.keys.items()]}

    def claims(self, **more: Any) -> dict[str, Any]:
        """What a good token says; None takes a claim away."""
        made = {"iss": self.url, "aud": "tulle", "sub": "alice", "exp": time.time() + 600, "iat": time.time(), **more}
        return {name: value for name, value in made.items() if value is not None}

    def token(self, key_id: str = "one", algorithm: str = "RS256", *, head: Mapping[str, Any] | None = None, **more: Any) -> str:
        """A token that one of the keys has signed."""
        # Not by `jwt.encode`, which looks at the claims.
        said = json.dumps(self.claims(**more)).encode()
        return jwt.PyJWS().encode(said, self.keys[key_id], algorithm, headers={"typ": "JWT", "kid": key_id, **(head or {})})


def public(key_id: str, key: Any) -> dict[str, Any]:
    """A key as a key set has it."""
    algorithm: Any = RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ECAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = OKPAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": key_id, "use": "sig"}


@asynccontextmanager
async def issuing(ca: Ca | None = None) -> AsyncIterator[Issuer]:
    """A served issuer on an ephemeral port."""
    ca = ca or Ca()
    made: list[Issuer] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        issuer = made[0]
        issuer.asked += 1
        said = issuer.answers.get(request.path)
        if isinstance(said, int):
            return web.Response(status=said, headers={"Location": f"{issuer.url}/elsewhere"})
        if isinstance(said, str):
            return web.Response(text=said)
        if said is None:
            config = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
            said = issuer.key_set() if request.path == "/keys" else config
        return web.json_response(said)

    server = web.Server(answer)  # type: ignore[arg-type]
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=ca.server_context())
    made.append(Issuer(ca, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
    try:
        yield made[0]
    finally:
        listener.close()
        await server.shutdown(1)
