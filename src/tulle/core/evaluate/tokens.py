"""Tokens of a request and the rules for them → the claims that are believed, or the answer. As Envoy's `jwt_authn` decides."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import jwt
import msgspec

from tulle.core.evaluate.request import Request
from tulle.core.model.authorization import TokenPlace, TokenRule

# Where tokens usually are.
_USUAL = (TokenPlace("header", "authorization", "Bearer "), TokenPlace("param", "access_token"))
_BASE64 = re.compile(r"[A-Za-z0-9\-_]+")
_NO_TOKEN = re.compile(r"^[^A-Za-z0-9\-_.]+")
_ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA")
)
_KINDS = ("header", "param", "cookie")
_LEEWAY = 60.0  # seconds that clocks may differ


class Believed(msgspec.Struct, frozen=True):
    """What comes of the tokens: `claims` of one that is good; or the `status` with which the request is answered, and why.

    `stranger`: the token is of another issuer than the rule's.
    """

    claims: Mapping[str, Any] | None = None
    status: int = 0
    why: str = ""
    stranger: bool = False


def believe(rules: Sequence[TokenRule], request: Request, now: float) -> Believed:
    """One of each required rule has to be there, and of what is left then one has to be good for one of the rules, if any is."""
    known = Believed()
    for rule in (one for one in rules if one.required):
        known = _of_rule(rule, request, now)
        if known.claims is None:
            return Believed(status=known.status or 401, why=known.why or f"found no token of {rule.issuer or rule.name}")
        request = request if rule.forward else _without(rule, request)
    answers = [_of_rule(rule, request, now) for rule in rules]
    good = [found for found in answers if found.claims is not None]
    bad = [found for found in answers if found.status]
    # What is said of a token by whom it is of counts more than that it is of no other.
    bad = [found for found in bad if not found.stranger] or bad
    return good[0] if good else bad[-1] if bad else known


def _without(rule: TokenRule, request: Request) -> Request:
    """A request without the tokens of a rule, which Envoy has taken out of it: those in cookies it leaves there."""
    for place in (place for place in rule.places or _USUAL if list(_found(place, request))):
        if place.kind == "header":
            headers = tuple(one for one in request.headers if one[0].lower() != place.name)
            request = msgspec.structs.replace(request, headers=headers)
        elif place.kind == "param":
            path, mark, query = request.path.partition("?")
            parts = [part for part in query.split("&") if unquote(part.partition("=")[0]) != place.name]
            request = msgspec.structs.replace(request, path=path + (mark + "&".join(parts) if parts else ""))
    return request


def _of_rule(rule: TokenRule, request: Request, now: float) -> Believed:
    places = sorted(rule.places or _USUAL, key=lambda place: (_KINDS.index(place.kind), place.name + place.prefix))
    found = Believed()
    # Envoy begins with the last, and takes the claims of the first.
    for token in reversed([token for place in places for token in _found(place, request)]):
        found = _checked(rule, token, now)
        if found.status:
            return found
    return found


def _found(place: TokenPlace, request: Request) -> Iterable[str]:
    if place.kind == "param":
        pairs = (part.partition("=") for part in request.path.partition("?")[2].split("&") if part)
        return [unquote(value) for name, _equals, value in pairs if unquote(name) == place.name][:1]
    if place.kind == "cookie":
        return [value for name, value in _cookies(request) if name == place.name][:1]
    values = request.header(place.name)
    if place.name == "authorization" and values:
        values = (",".join(values),)
    if not place.prefix:
        return values
    # Wherever the prefix is, and from the first character behind it that a token can have.
    found = (value.partition(place.prefix) for value in values)
    return [_NO_TOKEN.sub("", rest) for _before, prefix, rest in found if prefix]


def _cookies(request: Request) -> Iterator[tuple[str, str]]:
    for header in request.header("cookie"):
        for one in header.split(";"):
            name, _equals, value = one.strip().partition("=")
            yield name, value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _checked(rule: TokenRule, token: str, now: float) -> Believed:
    try:
        head, said = _parsed(token)
    except (ValueError, TypeError, RecursionError):
        return Believed(status=401, why="the token is none that can be read")
    if rule.issuer and said.get("iss") != rule.issuer:
        why = f"the token is of the issuer {said.get('iss')}, and none with it is believed"
        return Believed(status=401, why=why, stranger=True)
    for name, fault in (("nbf", said.get("nbf", 0) > now + _LEEWAY), ("exp", said.get("exp", now) < now - _LEEWAY)):
        if fault:
            return Believed(status=401, why=f"the token is not valid now ({name})")
    named = _texts(said.get("aud", []))
    if rule.audiences and not {one.rstrip("/") for one in rule.audiences} & {one.rstrip("/") for one in named}:
        why = f"the token is for {', '.join(named) or 'nobody'}; needed {', '.join(rule.audiences)}"
        return Believed(status=403, why=why)
    if not any(_signed(token, head, key) for key in json.loads(rule.keys or "{}").get("keys", ())):
        return Believed(status=401, why="no key of the issuer has signed the token")
    spaced = {name: said[name].split(" ") for name in rule.spaced if isinstance(said.get(name), str) and " " in said[name]}
    return Believed({**said, **spaced})


def _parsed(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload, as Envoy reads them; ValueError or TypeError where it does not."""
    parts = [part for part in token.split(".") if part]
    if len(parts) != 3:
        raise ValueError("not three parts")
    head, said, _signature = (json.loads(_bytes(parts[0])), json.loads(_bytes(parts[1])), _bytes(parts[2]))
    if not isinstance(head, dict) or not isinstance(said, dict):
        raise TypeError("no objects")
    texts = (
        head.get("alg"),
        *(head[name] for name in ("kid",) if name in head),
        *(said[name] for name in _WORDS if name in said),
    )
    if not all(isinstance(one, str) for one in texts) or head["alg"] not in _ALGORITHMS:
        raise ValueError("words that are none")
    numbers = (said[name] for name in ("iat", "nbf", "exp") if name in said)
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < 2**63 for one in numbers):
        raise ValueError("times that are none")
    _texts(said.get("aud", []))
    return head, said


_WORDS = ("iss", "sub", "jti")


def _bytes(part: str) -> bytes:
    if not _BASE64.fullmatch(part):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _texts(said: Any) -> list[str]:
    """An audience, or a list of such."""
    named = said if isinstance(said, list) else [said]
    if not all(isinstance(one, str) for one in named):
        raise TypeError("no texts")
    return named


def _signed(token: str, head: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    algorithm = str(head.get("alg"))
    if "kid" in head and "kid" in key and head["kid"] != key["kid"]:
        return False
    if algorithm == "none" or key.get("alg", algorithm) != algorithm:
        return False
    try:
        jwt.api_jws.PyJWS().decode(token, jwt.PyJWK({**key, "alg": algorithm}), algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True
