"""RequestAuthentication as a real Envoy keeps it: good tokens, bad tokens, and what of them policies and applications see."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.guarded import Guarded, guarded, policy
from tests.unit.core.compile.mesh import obj
from tulle.api.object import Object
from tulle.core.compile.tokens import KeySet

ISSUER = "https://issuer.example/realm"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Somebody who signs tokens."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        n, e = (_text(one.to_bytes((one.bit_length() + 7) // 8, "big")) for one in (numbers.n, numbers.e))
        self.keys = json.dumps({"keys": [{"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig", "n": n, "e": e}]})

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token; claims of None are left out."""
        said = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 600, **claims}
        parts = [
            header or {"alg": "RS256", "kid": "one", "typ": "JWT"},
            {key: value for key, value in said.items() if value is not None},
        ]
        text = ".".join(_text(json.dumps(one).encode()) for one in parts)
        return f"{text}.{_text(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


OURS, FOREIGN = Issuer(), Issuer()


def believes(*rules: dict[str, Any], name: str = "tokens") -> Object:
    metadata = {"name": name, "namespace": "default"}
    spec = {"jwtRules": [{"issuer": ISSUER, "jwks": OURS.keys, **rule} for rule in rules]}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": spec})


def bearer(token: str) -> str:
    return f"authorization: Bearer {token}"


async def ask(web: Guarded, *lines: str, path: str = "/") -> tuple[int, str]:
    """The status, and what the application got."""
    text = "\r\n".join((f"GET {path} HTTP/1.1", "host: web", *lines, "", ""))
    status, answer = await web.raw(text.encode())
    return status, answer.decode().lower()


async def test_bad_tokens(tmp_path: Path) -> None:
    """Broken: somebody would be believed who cannot prove who he is, or those turned away who say nothing."""
    async with guarded(tmp_path) as web:
        await web.apply(believes({"audiences": ["shop"]}))
        good = OURS.token(aud="shop")
        assert (await ask(web))[0] == 200
        assert (await ask(web, bearer(good)))[0] == 200
        head, body, signature = good.split(".")
        unsigned = _text(json.dumps({"alg": "none"}).encode())
        bad = {
            "expired": OURS.token(aud="shop", exp=int(time.time()) - 600),
            "not yet": OURS.token(aud="shop", nbf=int(time.time()) + 600),
            "for others": OURS.token(aud="other"),
            "for nobody": OURS.token(),
            "of another issuer": OURS.token(aud="shop", iss="https://elsewhere"),
            "by the wrong key": FOREIGN.token(aud="shop"),
            "unsigned": f"{unsigned}.{body}.",
            "changed": f"{head}.{_text(json.dumps({'iss': ISSUER, 'sub': 'root', 'aud': 'shop'}).encode())}.{signature}",
            "with the public key as a secret": OURS.token({"alg": "HS256", "kid": "one"}, aud="shop"),
            "no token": "hello",
            "cut off": good[:-20],
            "long": "a" * 20_000,
        }
        answers = {name: (await ask(web, bearer(token)))[0] for name, token in bad.items()}
        assert answers == {**dict.fromkeys(bad, 401), "for others": 403, "for nobody": 403}
        assert (await ask(web, bearer("a" * 100_000)))[0] in (0, 431)
        assert (await ask(web, bearer(good), path="/?access_token=secret"))[0] == 401, "one of two is bad"
        assert (await ask(web, bearer(good)))[0] == 200, "nobody else is in the way"
        lines = [json.loads(line) for line in await refusals(web, len(bad) + 1)]
        assert [line["refused"] for line in lines] == [*answers.values(), 401]
        assert all(line["why"].startswith("jwt_authn_access_denied{") and line["from"].startswith("127.0.0.1:") for line in lines)
        assert {line["path"] for line in lines} == {"/"}, "a query may hold a token"
        assert "Jwt_is_expired" in lines[0]["why"]
        counted = await web.proxy.admin(f"/stats?filter=_{web.http}.jwt_authn.denied")
        assert counted.split()[-1] == str(len(lines))


async def refusals(web: Guarded, count: int, having: str = "") -> list[str]:
    """What the proxy wrote down of the requests that it refused, once these are as many."""

    def found() -> list[str]:
        return [line for line in web.proxy.log().splitlines() if line.startswith('{"authority"') and having in line]

    async with asyncio.timeout(20):
        while len(found()) < count:  # noqa: ASYNC110 - Envoy tells nobody when it writes
            await asyncio.sleep(0.05)
    return found()


async def test_without_keys(tmp_path: Path) -> None:
    """Broken: while keys are not there, any token would do, or the proxy refuse what it is sent."""
    async with guarded(tmp_path) as web:
        secret = {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}
        weak = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
        for keys in (
            "nonsense",
            '{"keys":[]}',
            "[]",
            *(json.dumps({"keys": [one]}) for one in (secret, weak, {"kty": "RSA"}, 1)),
        ):
            await web.apply(believes({"jwks": keys}))
            assert ((await ask(web))[0], (await ask(web, bearer(OURS.token())))[0]) == (200, 401), keys
        await web.apply(_fetched())
        assert ((await ask(web))[0], (await ask(web, bearer(OURS.token())))[0]) == (200, 401)
        await web.take(web.pipeline.take_keys({"https://keys.example/": KeySet(OURS.keys)}))
        assert ((await ask(web))[0], (await ask(web, bearer(OURS.token())))[0]) == (200, 200)


def _fetched() -> Object:
    metadata = {"name": "tokens", "namespace": "default"}
    spec = {"jwtRules": [{"issuer": ISSUER, "jwksUri": "https://keys.example/"}]}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": spec})


async def test_policies_see_claims(tmp_path: Path) -> None:
    """Broken: a policy for certain people would let others in, or nobody."""
    async with guarded(tmp_path) as web:
        for source, when, claims, expected in (
            ({"requestPrincipals": ["*"]}, None, {}, 200),
            ({"requestPrincipals": [f"{ISSUER}/ada"]}, None, {}, 200),
            ({"requestPrincipals": [f"{ISSUER}/ada"]}, None, {"sub": "eve"}, 403),
            ({"requestPrincipals": [f"{ISSUER}/*"]}, None, {}, 200),
            ({"requestPrincipals": ["*/ada"]}, None, {}, 200),
            ({"requestPrincipals": ["ada"]}, None, {}, 403),
            ({"notRequestPrincipals": [f"{ISSUER}/eve"]}, None, {}, 200),
            (None, ("request.auth.claims[groups]", ["ops"]), {"groups": ["dev", "ops"]}, 200),
            (None, ("request.auth.claims[groups]", ["ops"]), {"groups": "ops"}, 200),
            (None, ("request.auth.claims[groups]", ["ops"]), {"groups": ["dev"]}, 403),
            (None, ("request.auth.claims[a][b]", ["c*"]), {"a": {"b": "cd"}}, 200),
            (None, ("request.auth.claims[scope]", ["write"]), {"scope": "read write"}, 200),
            (None, ("request.auth.audiences", ["shop"]), {"aud": ["x", "shop"]}, 200),
            (None, ("request.auth.presenter", ["app"]), {"azp": "app"}, 200),
            (None, ("request.auth.principal", [f"{ISSUER}/ada"]), {}, 200),
        ):
            rule: dict[str, Any] = {"from": [{"source": source}]} if source else {}
            rule |= {"when": [{"key": when[0], "values": when[1]}]} if when else {}
            await web.apply(believes({}), policy("only", {"rules": [rule]}))
            assert (await ask(web, bearer(OURS.token(**claims))))[0] == expected, (source, when, claims)
            if not (source and "notRequestPrincipals" in source):
                assert (await ask(web))[0] == 403, (source, when)


async def test_where_tokens_are_and_what_goes_on(tmp_path: Path) -> None:
    """Broken: tokens would not be found, leak to the application, or somebody tell it claims of his own."""
    async with guarded(tmp_path) as web:
        token = OURS.token(roles="admin", nested={"deep": "x"})
        await web.apply(believes({}))
        assert "bearer" not in (await ask(web, bearer(token)))[1]
        await web.apply(believes({"forwardOriginalToken": True}))
        assert "bearer" in (await ask(web, bearer(token)))[1]
        only = policy("only", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]})
        await web.apply(
            believes({"fromHeaders": [{"name": "x-token", "prefix": "T "}], "fromParams": ["t"], "fromCookies": ["c"]}), only
        )
        assert (await ask(web, f"x-token: T {token}"))[0] == 200
        assert (await ask(web, path=f"/?t={token}"))[0] == 200
        assert (await ask(web, f"cookie: a=b; c={token}"))[0] == 200
        assert (await ask(web, bearer(token)))[0] == 403
        claims = [{"claim": "roles", "header": "x-roles"}, {"claim": "nested.deep", "header": "X-Deep"}]
        await web.apply(believes({"outputPayloadToHeader": "x-payload", "outputClaimToHeaders": claims}))
        _status, got = await ask(web, bearer(token), "x-roles: root", "x-payload: mine", "x_roles: root")
        assert "x-roles: admin\r\n" in got
        assert "x-deep: x\r\n" in got
        assert "x-payload: ey" in got
        assert "root" not in got
        assert "mine" not in got
        assert "root" not in (await ask(web, "x-roles: root", "x_roles: root"))[1]


async def test_two_issuers_and_a_token_that_must_be(tmp_path: Path) -> None:
    """Broken: tokens of the second issuer would be bad, or a request pass that lacks what it needs."""
    async with guarded(tmp_path) as web:
        other = {"issuer": "https://other.example", "jwks": FOREIGN.keys}
        theirs = FOREIGN.token(iss="https://other.example")
        for objects in ([believes({}, other)], [believes({}), believes(other, name="other")]):
            await web.apply(*objects)
            assert [(await ask(web, *lines))[0] for lines in ([], [bearer(OURS.token())], [bearer(theirs)])] == [200] * 3
            assert (await ask(web, bearer(FOREIGN.token())))[0] == 401
        await web.apply(believes({"presence": "REQUIRED"}))
        assert [(await ask(web, *lines))[0] for lines in ([], [bearer(OURS.token())])] == [401, 200]
        cookie = believes({"presence": "REQUIRED"}, {**other, "fromCookies": ["c"]})
        await web.apply(cookie)
        assert [
            (await ask(web, *lines))[0]
            for lines in ([], [f"cookie: c={theirs}"], [bearer(OURS.token())], [bearer(OURS.token()), f"cookie: c={theirs}"])
        ] == [401, 401, 200, 200]
