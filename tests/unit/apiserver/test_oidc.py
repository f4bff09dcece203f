"""OIDC tokens against a real issuer on HTTPS: what is taken, what is refused, and an issuer that is away or lies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.apiserver import Ca, running
from tests.support.asking import Person
from tests.support.issuer import Issuer, issuing, public
from tulle.control.apiserver.limits import Limits
from tulle.control.apiserver.oidc import Oidc, OidcSettings
from tulle.kit.errors import Refused


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as one:
        yield one


@pytest.fixture
def settings(issuer: Issuer, tmp_path: Path) -> OidcSettings:
    (tmp_path / "ca.pem").write_bytes(issuer.ca.pem)
    return OidcSettings(issuer.url, "tulle", ca_file=tmp_path / "ca.pem")


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_good_tokens_of_every_algorithm(issuer: Issuer, settings: OidcSettings) -> None:
    """People's issuers sign with RSA, elliptic curves or Ed25519; all of them must be understood."""
    issuer.keys |= {
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ec384": ec.generate_private_key(ec.SECP384R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }
    oidc = Oidc(settings)
    signed = [("one", "RS256"), ("one", "RS512"), ("one", "PS256"), ("ec", "ES256"), ("ec384", "ES384"), ("ed", "EdDSA")]
    for key_id, algorithm in signed:
        user = await oidc.redeem(issuer.token(key_id, algorithm))
        assert user is not None, algorithm
        assert (user.name, user.groups) == (f"{issuer.url}#alice", ("system:authenticated",))
    assert issuer.asked == 2, "the documents are kept"
    nameless = jwt.encode(issuer.claims(), issuer.keys["ec"], "ES256")
    assert await oidc.redeem(nameless) is not None, "a token need not name its key"
    assert await oidc.redeem(issuer.token(aud=["other", "tulle"])) is not None


async def test_bad_tokens(issuer: Issuer, settings: OidcSettings) -> None:
    """Each of them would let in somebody whom the issuer did not send here, or did not send any more."""
    oidc = Oidc(settings)
    assert await oidc.redeem(issuer.token()) is not None
    pem = (
        issuer.keys["one"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    body = part(issuer.claims())
    # By hand, for a library refuses to make it.
    symmetric = f"{part({'alg': 'HS256', 'kid': 'one'})}.{body}"
    mac = base64.urlsafe_b64encode(hmac.new(pem, symmetric.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    other = rsa.generate_private_key(65537, 2048)
    good = issuer.token()
    head, claims, signature = good.split(".")
    bad = {
        "another audience": issuer.token(aud="other"),
        "no audience": issuer.token(aud=None),
        "another issuer": issuer.token(iss="https://evil.example"),
        "no issuer": issuer.token(iss=None),
        "expired": issuer.token(exp=time.time() - 60),
        "no end": issuer.token(exp=None),
        "not yet": issuer.token(nbf=time.time() + 600),
        "no subject": issuer.token(sub=None),
        "a number as subject": issuer.token(sub=1),
        "an empty subject": issuer.token(sub=""),
        "a subject that no log shows": issuer.token(sub="ali\nce"),
        "no signature": f"{part({'alg': 'none', 'kid': 'one'})}.{body}.",
        "none, in other letters": f"{part({'alg': 'nOnE', 'kid': 'one'})}.{body}.",
        "no algorithm": f"{part({'kid': 'one'})}.{body}.{signature}",
        "HMAC with the public key": f"{symmetric}.{mac}",
        "another algorithm than signed": f"{part({'alg': 'ES256', 'kid': 'one'})}.{claims}.{signature}",
        "somebody else's key": jwt.encode(issuer.claims(), other, "RS256", headers={"kid": "one"}),
        "a key in the token itself": jwt.encode(
            issuer.claims(), other, "RS256", headers={"kid": "x", "jwk": public("x", other), "jku": f"{issuer.url}/keys"}
        ),
        "changed claims": f"{head}.{part(issuer.claims(sub='root'))}.{signature}",
        "an extension that must be understood": issuer.token(head={"crit": ["exp"]}),
        "no claims": f"{head}..{signature}",
        "no token": "x.y.z",
        "half a token": f"{head}.{claims}",
        "a huge end": issuer.token(exp=1e400),
        "an end in words": issuer.token(exp="never"),
        "no object": jwt.PyJWS().encode(b"[]", issuer.keys["one"], "RS256", headers={"kid": "one"}),
    }
    for why, token in bad.items():
        assert await oidc.redeem(token) is None, why


async def test_names_groups_and_required_claims(issuer: Issuer, settings: OidcSettings) -> None:
    """Prefixes keep the issuer's names apart from the mesh's own; the names of the system are not the issuer's to give."""

    async def user(token: str, **changes: Any) -> Any:
        found = await Oidc(replace(settings, **changes)).redeem(token)
        return None if found is None else (found.name, found.groups[:-1])

    token = issuer.token(email="a@b.c", groups=["dev", "system:masters", 3, "ops"], hd="b.c")
    assert await user(token) == (f"{issuer.url}#alice", ())
    assert await user(token, username_prefix="-") == ("alice", ())
    assert await user(token, username_prefix="oidc:") == ("oidc:alice", ())
    assert await user(token, username_claim="email") == ("a@b.c", ())
    assert await user(token, groups_claim="groups") == (f"{issuer.url}#alice", ("dev", "ops"))
    assert await user(token, groups_claim="groups", groups_prefix="oidc:") == (
        f"{issuer.url}#alice",
        ("oidc:dev", "oidc:system:masters", "oidc:ops"),
    )
    assert await user(issuer.token(groups="dev"), groups_claim="groups") == (f"{issuer.url}#alice", ("dev",))
    assert await user(issuer.token(groups={"a": 1}), groups_claim="groups") == (f"{issuer.url}#alice", ())
    assert await user(token, required_claims={"hd": "b.c"}) is not None
    assert await user(token, required_claims={"hd": "x.y"}) is None
    assert await user(token, required_claims={"absent": ""}) is None
    assert await user(issuer.token(email="a@b.c", email_verified=False), username_claim="email") is None
    assert await user(issuer.token(email="a@b.c", email_verified="true"), username_claim="email") is None
    for name in ("system:admin", "system:node:n1", "system:serviceaccount:default:robot"):
        assert await user(issuer.token(sub=name), username_prefix="-") is None


async def test_keys_that_change(issuer: Issuer, settings: OidcSettings) -> None:
    """Issuers rotate their keys: a new one must be found, and asked for no oftener than the floor allows."""
    clock = Clock()
    oidc = Oidc(settings, clock)
    first = issuer.token()
    assert await oidc.redeem(first) is not None
    issuer.keys["two"] = rsa.generate_private_key(65537, 2048)
    second = issuer.token("two")
    assert await oidc.redeem(second) is None, "asked a moment ago"
    for number in range(50):
        await oidc.redeem(issuer.token(head={"kid": f"unknown{number}"}))
    assert issuer.asked == 2
    clock.now += 11
    assert await oidc.redeem(second) is not None
    assert await oidc.redeem(first) is not None
    # A key that the issuer has withdrawn is withdrawn here when the keys are asked for again.
    del issuer.keys["one"]
    clock.now += 11
    await oidc._refresh()
    assert await oidc.redeem(first) is None


async def test_an_issuer_that_is_away_or_lies(issuer: Issuer, settings: OidcSettings) -> None:
    """Whatever the issuer answers, or does not: tokens of known keys hold, others are refused, and nothing ends."""
    clock = Clock()
    oidc = Oidc(settings, clock)
    good = issuer.token()
    assert await oidc.redeem(good) is not None
    config = "/.well-known/openid-configuration"
    wrong: list[dict[str, Any]] = [
        {config: 500},
        {config: 302},
        {config: "no JSON"},
        {config: "[" * 100_000},
        {config: []},
        {config: {"issuer": "https://evil.example", "jwks_uri": f"{issuer.url}/keys"}},
        {config: {"issuer": issuer.url, "jwks_uri": issuer.url.replace("https", "http") + "/keys"}},
        {config: {"issuer": issuer.url}},
        {"/keys": {"keys": []}},
        {"/keys": {"keys": "x"}},
        {"/keys": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}, None, {"kty": "RSA", "n": "!", "e": "AQAB"}]}},
        {"/keys": "x" * (2**20 + 10)},
        {"/keys": {"keys": [{**public("one", rsa.generate_private_key(65537, 1024))}]}},
    ]
    for answers in wrong:
        issuer.answers = answers
        clock.now += 11
        before = issuer.asked
        assert await oidc.redeem(issuer.token(head={"kid": "new"})) is None
        assert issuer.asked > before
        clock.now += 100  # what was remembered of the token is over: its key is what counts
        assert await oidc.redeem(good) is not None, answers
        assert await Oidc(settings).redeem(good) is None, answers
    issuer.answers = {}
    elsewhere = replace(settings, issuer_url="https://127.0.0.1:1")
    assert await Oidc(elsewhere).redeem(good) is None
    untrusted = replace(settings, ca_file=None)
    assert await Oidc(untrusted).redeem(good) is None


async def test_a_key_signs_what_it_is_for(issuer: Issuer, settings: OidcSettings) -> None:
    """A key for encryption, or one that names one algorithm, must not verify anything else."""
    key = public("one", issuer.keys["one"])
    for change, algorithm, good in (
        ({}, "RS512", True),
        ({"alg": "RS256"}, "RS256", True),
        ({"alg": "RS256"}, "RS512", False),
        ({"alg": "HS256"}, "RS256", False),
        ({"alg": "none"}, "RS256", False),
        ({"use": "enc"}, "RS256", False),
    ):
        issuer.answers = {"/keys": {"keys": [{**key, **change}]}}
        assert (await Oidc(settings).redeem(issuer.token(algorithm=algorithm)) is not None) is good, (change, algorithm)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer_url": "http://issuer.example"}, "https://"),
        ({"issuer_url": "https://issuer.example?x=1"}, "https://"),
        ({"issuer_url": "https://"}, "https://"),
        ({"client_id": ""}, "client id"),
        ({"ca_file": Path("/nowhere/ca.pem")}, "/nowhere/ca.pem"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], said: str) -> None:
    """A control plane that starts with such settings would let nobody in, without a word."""
    settings = OidcSettings("https://issuer.example", "tulle")
    with pytest.raises(Refused, match=said):
        Oidc(replace(settings, **change))


async def test_the_api_server_takes_them(issuer: Issuer, settings: OidcSettings) -> None:
    """`kubectl --token` with an OIDC token; a flood of bad ones is slowed and harms no good one and no certificate."""
    oidc = Oidc(replace(settings, username_prefix="oidc:", groups_claim="groups", groups_prefix="tulle:"))
    async with running(foreign=oidc, limits=Limits(failures=2.0)) as served:
        good = issuer.token(groups=["viewers"])
        async with Person(served, token=good) as vera:
            assert await vera.status("GET", "/api/v1/services") == 200
            assert await vera.status("GET", "/api/v1/secrets") == 403
            _, me = await vera.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
            assert me["status"]["userInfo"]["username"] == "oidc:alice"
            async with (
                Person(served, token=issuer.token(exp=time.time() - 60)) as late,
                Person(served, "admin", "system:masters") as admin,
            ):
                seen = [await late.status("GET", "/api/v1/services") for _ in range(10)]
                assert seen[0] == 401
                assert seen[-1] == 429
                assert await vera.status("GET", "/api/v1/services") == 200
                assert await admin.status("GET", "/api/v1/services") == 200
                body = {"spec": {"token": good}}
                _, review = await admin.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
                assert review["status"]["user"]["groups"] == ["tulle:viewers", "system:authenticated"]


async def test_another_authority_is_no_issuer(settings: OidcSettings) -> None:
    """Who can stand in the way must not be taken for the issuer."""
    async with issuing(Ca()) as impostor:
        assert await Oidc(replace(settings, issuer_url=impostor.url)).redeem(impostor.token()) is None
