"""RequestAuthentication → which tokens are believed, and with which keys they are checked.

Keys that are written out are in the object; those behind a URL are fetched by the control plane (`key_sets`). While there are
none, no token of that rule is good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tulle.api.istio import RequestAuthentication
from tulle.api.istio.authorization import JWTRule
from tulle.api.values import seconds
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems, warning
from tulle.core.compile.objects import request_authentications
from tulle.core.compile.policy_targets import target_problems
from tulle.core.flow import Fetch, Input, table
from tulle.core.model.authorization import TokenPlace, TokenRule
from tulle.kit.problem import Problem

_DISCOVERY = "/.well-known/openid-configuration"
_SPACED = ("scope", "permission")  # claims that are lists of words, as Istio has it
_TIMEOUT = 5.0


class KeySet(msgspec.Struct, frozen=True):
    """What came from a URL: a set of keys, as JSON, and why there is none or no newer one."""

    keys: str = ""
    why: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """A URL with keys, and how long (seconds) its answer may take."""

    url: str
    timeout: float


key_sets: Input[str, KeySet] = Input("key_sets")


def source_of(rule: JWTRule) -> Wanted | None:
    """Where the keys of a rule are fetched: the URL that it says, or the issuer's own page that says one."""
    if rule.jwks:
        return None
    url = rule.jwks_uri or rule.jwks_uri_older
    if not url and rule.issuer and rule.issuer.startswith(("http://", "https://")):
        url = rule.issuer.rstrip("/") + _DISCOVERY
    return Wanted(url, seconds(rule.timeout) if rule.timeout else _TIMEOUT) if url else None


@table
def wanted_keys(fetch: Fetch, _key: None) -> tuple[Wanted, ...]:
    """All URLs with keys that the mesh needs."""
    rows = fetch.rows(request_authentications)
    found = (source_of(rule) for row in rows for rule in row.spec.jwt_rules)
    longest: dict[str, float] = {}
    for one in found:
        if one is not None:
            longest[one.url] = max(one.timeout, longest.get(one.url, 0.0))
    return tuple(Wanted(url, timeout) for url, timeout in sorted(longest.items()))


@table
def token_rules(fetch: Fetch, key: Key) -> tuple[TokenRule, ...]:
    """The rules of a RequestAuthentication."""
    row = fetch(request_authentications, key)
    return tuple(_rule(fetch, row, index, rule) for index, rule in enumerate(row.spec.jwt_rules)) if row else ()


def _rule(fetch: Fetch, row: RequestAuthentication, index: int, rule: JWTRule) -> TokenRule:
    places = tuple(TokenPlace("header", one.name.lower(), one.prefix) for one in rule.from_headers)
    places += tuple(TokenPlace("param", name) for name in rule.from_params)
    places += tuple(TokenPlace("cookie", name) for name in rule.from_cookies)
    return TokenRule(
        name=f"{row.metadata.namespace}/{row.metadata.name}[{index}]",
        issuer=rule.issuer or "",
        audiences=rule.audiences,
        keys=_keys(fetch, rule),
        places=places,
        forward=rule.forward_original_token,
        payload_header=rule.output_payload_to_header,
        claim_headers=tuple((one.claim, one.header.lower()) for one in rule.output_claim_to_headers),
        required=rule.presence == "REQUIRED",
        spaced=tuple(dict.fromkeys((*_SPACED, *rule.space_delimited_claims))),
    )


def _keys(fetch: Fetch, rule: JWTRule) -> str:
    if rule.jwks:
        return usable_keys(rule.jwks).keys
    wanted = source_of(rule)
    there = fetch(key_sets, wanted.url) if wanted else None
    return there.keys if there else ""


def usable_keys(text: str) -> KeySet:
    """The keys of a JSON Web Key Set with which tokens can be checked; where there is none, why."""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return KeySet(why="found text that is no JSON; needed a JSON Web Key Set")
    keys = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(keys, list):
        return KeySet(why='found no list "keys"; needed a JSON Web Key Set')
    good = [one for one in keys if _usable(one)]
    if not good:
        return KeySet(why="found no key that tokens can be checked with; needed RSA, EC (P-256, P-384, P-521) or Ed25519")
    return KeySet(json.dumps({"keys": good}, separators=(",", ":"), sort_keys=True))


_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_CURVES = (None, "P-256", "P-384", "P-521", "Ed25519")  # that Envoy knows
_SMALLEST_RSA = 2048  # bits


def _usable(key: Any) -> bool:
    """Whether a key is public, strong, and of a kind that Envoy takes. A secret that issuer and mesh share proves no issuer."""
    import jwt  # only where there are keys: whoever looks at files without any need not wait for it

    if not isinstance(key, dict) or "d" in key:
        return False
    kind = str(key.get("kty"))
    if key.get("crv") not in _CURVES or ("alg" in key and key["alg"] not in _ALGORITHMS.get(kind, ())):
        return False
    try:
        public = jwt.PyJWK({"alg": _ALGORITHMS[kind][0], **key}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return False
    return kind != "RSA" or public.key_size >= _SMALLEST_RSA


@table
def request_authentication_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Rules without keys, for which no token is good."""
    row = fetch(request_authentications, key)
    return sorted_problems(_problems(fetch, row)) if row else ()


def _problems(fetch: Fetch, row: RequestAuthentication) -> Iterator[Problem]:
    yield from target_problems(fetch, row)
    for index, rule in enumerate(row.spec.jwt_rules):
        at = f"spec.jwtRules[{index}]"
        effect = "tokens of this rule are refused"
        if rule.jwks:
            if why := usable_keys(rule.jwks).why:
                yield warning(row.ref, f"{at}.jwks", "NoKeys", f"{why}: {effect}")
            continue
        wanted = source_of(rule)
        if wanted is None:
            message = f"found neither keys nor a URL of an issuer; needed jwks, jwksUri, or an issuer with https://: {effect}"
            yield warning(row.ref, f"{at}.issuer", "NoKeys", message)
            continue
        there = fetch(key_sets, wanted.url)
        if there is not None and there.why:
            still = "the keys of before are used" if there.keys else effect
            field = "jwksUri" if rule.jwks_uri else "jwks_uri" if rule.jwks_uri_older else "issuer"
            yield warning(row.ref, f"{at}.{field}", "NoKeys", f"{wanted.url}: {there.why}; {still}")
