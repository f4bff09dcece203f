"""Who else is asked whether a request may pass → Envoy's filter for that, by itself or for single routes.

A route says in its own bytes whom it asks and how: a filter that is off everywhere else runs what the route brings along. So a
new authorizer changes no listener, and connections stay open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.source import seconds
from tulle.core.model.authorization import HTTP
from tulle.core.model.external_auth import EVERY, ExternalAuth
from tulle.pb import pack
from tulle.pb.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2, extension_pb2, grpc_service_pb2, http_uri_pb2
from tulle.pb.envoy.extensions.common.matching.v3 import extension_matcher_pb2
from tulle.pb.envoy.extensions.filters.http.composite.v3 import composite_pb2
from tulle.pb.envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from tulle.pb.envoy.extensions.filters.network.ext_authz.v3 import ext_authz_pb2 as connection_pb2
from tulle.pb.envoy.type.matcher.v3 import http_inputs_pb2, metadata_pb2, regex_pb2, string_pb2, value_pb2
from tulle.pb.envoy.type.v3 import http_status_pb2
from tulle.pb.google.protobuf import any_pb2
from tulle.pb.xds.core.v3 import extension_pb2 as xds_extension_pb2
from tulle.pb.xds.type.matcher.v3 import matcher_pb2
from tulle.pb.xds.type.matcher.v3 import string_pb2 as xds_string_pb2

EXT_AUTHZ = "envoy.filters.http.ext_authz"
# The filter of a listener that runs what a route brings along.
OF_ROUTES = "envoy.filters.http.composite"
HTTP_TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
TCP_TYPE = "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
# What RBAC's shadow rules write down of a request that they match, behind their prefix.
_NOTE = "shadow_engine_result"

# What an authorizer's answer says of itself, as a message: of the request these say something else, and it would break.
_FRAMING = "content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|proxy-connection"
_ALL = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex="[^:].*"))
_CONNECTS = matcher_pb2.Matcher.MatcherList.Predicate(
    single_predicate=matcher_pb2.Matcher.MatcherList.Predicate.SinglePredicate(
        input=xds_extension_pb2.TypedExtensionConfig(
            name="method", typed_config=pack(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":method"))
        ),
        value_match=xds_string_pb2.StringMatcher(exact="CONNECT"),
    )
)
_RBAC, _TCP_RBAC = "envoy.filters.http.rbac", "envoy.filters.network.rbac"
_FORBIDDEN = 403


def for_route(asks: ExternalAuth) -> any_pb2.Any:
    """The configuration of `OF_ROUTES` for a route whose requests need somebody's word."""
    packed: any_pb2.Any = pack(composite_pb2.CompositePerRoute(matcher=_choice(ext_authz(asks))))
    return packed


def _choice(message: ext_authz_pb2.ExtAuthz) -> matcher_pb2.Matcher:
    """What asks. CONNECT has no body; what comes after it comes when it was answered, and would be waited for until then."""
    matcher = matcher_pb2.Matcher(on_no_match=_runs(message))
    if message.HasField("with_request_body"):
        bare = ext_authz_pb2.ExtAuthz()
        bare.CopyFrom(message)
        bare.ClearField("with_request_body")
        matcher.matcher_list.matchers.add(predicate=_CONNECTS, on_match=_runs(bare))
    return matcher


def _runs(message: ext_authz_pb2.ExtAuthz) -> matcher_pb2.Matcher.OnMatch:
    own = extension_pb2.TypedExtensionConfig(name=EXT_AUTHZ, typed_config=pack(message))
    run = pack(composite_pb2.ExecuteFilterAction(typed_config=own))
    return matcher_pb2.Matcher.OnMatch(action=xds_extension_pb2.TypedExtensionConfig(name=EXT_AUTHZ, typed_config=run))


def for_policies(name: str, asks: ExternalAuth, prefix: str, kind: str) -> Encoded:
    """The filter as a resource: it asks where the RBAC filter before it, whose notes begin with `prefix`, has matched."""
    message: ext_authz_pb2.ExtAuthz | connection_pb2.ExtAuthz = ext_authz(asks) if kind == HTTP else _of_connections(asks)
    noted = metadata_pb2.MetadataMatcher(
        filter=_RBAC if kind == HTTP else _TCP_RBAC,
        path=[metadata_pb2.MetadataMatcher.PathSegment(key=f"{prefix}{_NOTE}")],
        value=value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact="denied")),
    )
    message.filter_enabled_metadata.CopyFrom(noted)
    config = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
    if isinstance(message, ext_authz_pb2.ExtAuthz) and asks.most_body:
        chosen = extension_matcher_pb2.ExtensionWithMatcher(
            extension_config=extension_pb2.TypedExtensionConfig(name=OF_ROUTES, typed_config=pack(composite_pb2.Composite())),
            xds_matcher=_choice(message),
        )
        config.typed_config.CopyFrom(pack(chosen))
    refs = ((type_urls.CLUSTER, asks.destination.cluster),)
    return encode(type_urls.EXTENSION, name, config.SerializeToString(deterministic=True), refs)


def _of_connections(asks: ExternalAuth) -> connection_pb2.ExtAuthz:
    """The filter for connections whose bytes are not looked into: it asks when the first of these come."""
    return connection_pb2.ExtAuthz(
        stat_prefix="tcp.",
        grpc_service=_grpc(asks),
        failure_mode_allow=asks.fail_open,
        transport_api_version=config_source_pb2.ApiVersion.V3,
    )


def _grpc(asks: ExternalAuth) -> grpc_service_pb2.GrpcService:
    destination = asks.destination
    service = grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=destination.cluster, authority=destination.hostname)
    return grpc_service_pb2.GrpcService(envoy_grpc=service, timeout=seconds(asks.timeout))


def ext_authz(asks: ExternalAuth) -> ext_authz_pb2.ExtAuthz:
    """The filter itself. Where nobody answers, no request passes (403) if nothing else is said."""
    message = ext_authz_pb2.ExtAuthz(
        transport_api_version=config_source_pb2.ApiVersion.V3,
        # `:authority` and its like, and what is Envoy's own, are not the authorizer's to change either: that is the default here.
        decoder_header_mutation_rules=mutation_rules_pb2.HeaderMutationRules(
            disallow_expression=regex_pb2.RegexMatcher(regex=_FRAMING)
        ),
        failure_mode_allow=asks.fail_open,
        clear_route_cache=asks.reroute,
    )
    if asks.status != _FORBIDDEN:
        message.status_on_error.code = cast("http_status_pb2.StatusCode", asks.status)
    destination = asks.destination
    if asks.grpc:
        message.grpc_service.CopyFrom(_grpc(asks))
    else:
        uri = f"http://{destination.hostname}:{destination.port}"
        message.http_service.server_uri.CopyFrom(
            http_uri_pb2.HttpUri(uri=uri, cluster=destination.cluster, timeout=seconds(asks.timeout))
        )
        message.http_service.path_prefix = asks.path
        added = (base_pb2.HeaderValue(key=name, value=value) for name, value in asks.added)
        message.http_service.authorization_request.headers_to_add.extend(added)
        answer = message.http_service.authorization_response
        for taken, names in (
            (answer.allowed_upstream_headers, asks.copied),
            (answer.allowed_client_headers, asks.refused),
            (answer.allowed_client_headers_on_success, asks.passed),
        ):
            if names:
                taken.CopyFrom(_named(names))
    if asks.shown:
        message.allowed_headers.CopyFrom(_named(asks.shown))
    if asks.most_body:
        # Of a longer body it would judge a part, and the backend get the whole: such a request does not pass (413), unless it is
        # said that it may.
        message.with_request_body.max_request_bytes = asks.most_body
        message.with_request_body.allow_partial_message = asks.partial
        message.with_request_body.pack_as_bytes = asks.packed
    return message


def _named(names: Iterable[str]) -> string_pb2.ListStringMatcher:
    return string_pb2.ListStringMatcher(patterns=[_pattern(name) for name in names])


def _pattern(name: str) -> string_pb2.StringMatcher:
    if name == EVERY:
        return _ALL
    if name.endswith(EVERY):
        return string_pb2.StringMatcher(prefix=name.removesuffix(EVERY))
    if name.startswith(EVERY):
        return string_pb2.StringMatcher(suffix=name.removeprefix(EVERY))
    return string_pb2.StringMatcher(exact=name)
