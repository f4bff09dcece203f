"""Rules for tokens → Envoy's `jwt_authn`, whose metadata the policies read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.clusters import BLACK_HOLE
from tulle.core.envoy.source import seconds
from tulle.core.model.authorization import TokenRule
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import extension_pb2, http_uri_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from tulle.pb.google.protobuf import empty_pb2

TOKENS = "envoy.filters.http.jwt_authn"
TOKENS_TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
# Where in the metadata of a request the payload of its token is.
PAYLOAD = "payload"

_Requirement = config_pb2.JwtRequirement


def encode_tokens(name: str, rules: Sequence[TokenRule]) -> Encoded:
    """The filter's configuration as a resource."""
    message = config_pb2.JwtAuthentication(providers={rule.name: _provider(rule) for rule in rules})
    if rules:
        message.rules.add(match=route_components_pb2.RouteMatch(prefix="/"), requires=_requires(rules))
    config = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
    return encode(type_urls.EXTENSION, name, config.SerializeToString(deterministic=True))


def _requires(rules: Sequence[TokenRule]) -> config_pb2.JwtRequirement:
    """A token of any rule, and a bad one of none; besides, one of each rule that is required."""
    missing = _Requirement(allow_missing=empty_pb2.Empty())
    anyone = _any([*(_Requirement(provider_name=rule.name) for rule in rules), missing])
    required = [_Requirement(provider_name=rule.name) for rule in rules if rule.required]
    return _Requirement(requires_all=config_pb2.JwtRequirementAndList(requirements=[*required, anyone])) if required else anyone


def _any(requirements: Iterable[config_pb2.JwtRequirement]) -> config_pb2.JwtRequirement:
    return _Requirement(requires_any=config_pb2.JwtRequirementOrList(requirements=requirements))


def _provider(rule: TokenRule) -> config_pb2.JwtProvider:
    normal = config_pb2.JwtProvider.NormalizePayload(space_delimited_claims=rule.spaced)
    made = config_pb2.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        forward=rule.forward,
        from_headers=[
            config_pb2.JwtHeader(name=one.name, value_prefix=one.prefix) for one in rule.places if one.kind == "header"
        ],
        from_params=[one.name for one in rule.places if one.kind == "param"],
        from_cookies=[one.name for one in rule.places if one.kind == "cookie"],
        forward_payload_header=rule.payload_header,
        payload_in_metadata=PAYLOAD,
        normalize_payload_in_metadata=normal,
        claim_to_headers=[
            config_pb2.JwtClaimToHeader(header_name=header, claim_name=claim) for claim, header in rule.claim_headers
        ],
    )
    if rule.keys:
        made.local_jwks.inline_string = rule.keys
    else:
        # Envoy takes no empty set: keys that are nowhere to be had are none.
        made.remote_jwks.http_uri.CopyFrom(
            http_uri_pb2.HttpUri(uri="https://keys.invalid/", cluster=BLACK_HOLE, timeout=seconds(1))
        )
    return made
