"""Limits of requests → filters that count, and what they are told.

The rules of a place are one resource (ECDS): a `composite` that runs, for each rule that a request matches, Envoy's
`local_ratelimit` (or its `ratelimit`, which asks the service). What a request takes out of the buckets of shared limits is
another, `set_metadata`: Envoy makes full buckets wherever a filter's configuration becomes another, and a share becomes another
all the time, but this one has no buckets. docs/decisions/rate-limits.md says what was measured.

What each rule answers is in headers between its filter and the connection manager, which makes the body of it (`REFUSED`); they
never leave the proxy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from google.protobuf.message import Message

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.limit_matches import predicate
from tulle.core.envoy.source import ADS, FALSE, percent, seconds, uint32
from tulle.core.envoy.tokens import PAYLOAD, TOKENS
from tulle.core.model.rate_limit import (
    ADDRESS_ENTRY,
    DOMAIN,
    KEY_ENTRY,
    LIMITER,
    MOST,
    ROUTES,
    RULE_ENTRY,
    RULES,
    Costs,
    Counter,
    Counting,
    KeyKind,
    Limit,
    Limited,
    LimitKey,
    Override,
    RouteLimited,
    room,
    unit,
)
from tulle.core.model.route import RouteCounters
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from tulle.pb.envoy.config.core.v3 import (
    base_pb2,
    config_source_pb2,
    extension_pb2,
    grpc_service_pb2,
    substitution_format_string_pb2,
)
from tulle.pb.envoy.config.ratelimit.v3 import rls_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from tulle.pb.envoy.extensions.common.matching.v3 import extension_matcher_pb2
from tulle.pb.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from tulle.pb.envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from tulle.pb.envoy.extensions.filters.http.composite.v3 import composite_pb2
from tulle.pb.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from tulle.pb.envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from tulle.pb.envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2
from tulle.pb.envoy.extensions.filters.http.set_metadata.v3 import set_metadata_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2
from tulle.pb.envoy.type.metadata.v3 import metadata_pb2
from tulle.pb.envoy.type.v3 import http_status_pb2, token_bucket_pb2
from tulle.pb.google.protobuf import any_pb2, struct_pb2
from tulle.pb.xds.core.v3 import extension_pb2 as xds_extension_pb2
from tulle.pb.xds.type.matcher.v3 import matcher_pb2

COMPOSITE_TYPE = "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite"
COSTS_TYPE = "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config"

# Where in a request's metadata its costs are, by the limit's id.
_COSTS = "tulle.limits"
# Buckets by key that a proxy keeps for one rule; the one that was not used for longest goes for the next.
_MOST_KEYS = 10_000
# How long (seconds) the service may take before it counts as away.
_SERVICE_WITHIN = 0.25
# Envoy fills buckets no more often than this (seconds).
_LEAST_WINDOW = 0.05
# Header names between a filter here and `REFUSED`.
_BODY, _TYPE = "x-tulle-refusal-body", "x-tulle-refusal-type"
_HEADERS = ("limit", "remaining", "reset")

_Rate = route_components_pb2.RateLimit
_Action = route_components_pb2.RateLimit.Action
_Set = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_ALL = base_pb2.RuntimeFractionalPercent(default_value=percent(100))
_NONE = base_pb2.RuntimeFractionalPercent(default_value=percent(0))
# What no rule speaks of has no limit.
_UNLIMITED = token_bucket_pb2.TokenBucket(max_tokens=MOST, tokens_per_fill=uint32(MOST), fill_interval=seconds(1))

# The answer to who was refused by a limit has the body of the rule. (Envoy sets its flag for that only afterwards.)
REFUSED = http_connection_manager_pb2.ResponseMapper(
    filter=accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="refused",
            typed_config=pack(
                cel_pb2.ExpressionFilter(
                    expression='response.code_details == "local_rate_limited" || response.code_details == "request_rate_limited"'
                )
            ),
        )
    ),
    body_format_override=substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=f"%RESP({_BODY})%")
    ),
)


def counting_filters(counter: Counter | None) -> Iterator[http_connection_manager_pb2.HttpFilter]:
    """The filters that stand where requests are counted."""
    if counter is None:
        return
    if counter.shared:
        yield _slot(counter.costs, COSTS_TYPE)
    yield _slot(counter.resource, COMPOSITE_TYPE)


def route_counting_filters() -> Iterator[http_connection_manager_pb2.HttpFilter]:
    """The same for routes: off, but for those that say under which names they are counted (`counted`)."""
    for name, type_url in ((ROUTES.costs, COSTS_TYPE), (ROUTES.resource, COMPOSITE_TYPE), (RULES.resource, COMPOSITE_TYPE)):
        yield _slot(name, type_url, disabled=True)


def counted(by: RouteCounters) -> Iterator[tuple[str, any_pb2.Any]]:
    """What a route says to these filters, by their names."""
    yield ROUTES.costs, pack(route_components_pb2.FilterConfig(config=pack(set_metadata_pb2.Config())))
    for counter, name in ((ROUTES, by.whole), (RULES, by.rule)):
        if name:
            run = composite_pb2.ExecuteFilterAction(filter_chain_name=name)
            yield counter.resource, pack(composite_pb2.CompositePerRoute(matcher=_always(run)))


def _slot(name: str, type_url: str, *, disabled: bool = False) -> http_connection_manager_pb2.HttpFilter:
    found = config_source_pb2.ExtensionConfigSource(config_source=ADS, type_urls=[type_url])
    return http_connection_manager_pb2.HttpFilter(name=name, config_discovery=found, disabled=disabled)


def encode_limited(row: Limited) -> tuple[Encoded, ...]:
    """The rules of a place."""
    run = composite_pb2.ExecuteFilterAction(filter_chain=_chain(row.limits, row.members))
    return (_extension(row.counter.resource, composite_pb2.Composite(matcher=_always(run))),)


def encode_route_limited(row: RouteLimited) -> tuple[Encoded, ...]:
    """The rules of routes: a chain of filters under each name. So a route may change (its weights), and buckets stay."""
    return tuple(
        _extension(
            counter.resource,
            composite_pb2.Composite(named_filter_chains={name: _chain(limits, row.members) for name, limits in chains.items()}),
        )
        for counter, chains in ((ROUTES, row.whole), (RULES, row.rules))
    )


def encode_mesh_limited(row: RouteLimited) -> tuple[Encoded, ...]:
    """Those of the mesh, which nobody shares."""
    return (*encode_route_limited(row), *encode_costs(Costs(ROUTES, {})))


def encode_costs(row: Costs) -> tuple[Encoded, ...]:
    """What a request takes from each shared limit of a place."""
    values = struct_pb2.Struct(fields={name: struct_pb2.Value(number_value=cost) for name, cost in row.costs.items()})
    one = set_metadata_pb2.Metadata(metadata_namespace=_COSTS, value=values, allow_overwrite=True)
    return (_extension(row.counter.costs, set_metadata_pb2.Config(metadata=[one])),)


def _extension(name: str, message: Message) -> Encoded:
    config = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
    return encode(type_urls.EXTENSION, name, config.SerializeToString(deterministic=True))


def _chain(limits: Iterable[Limit], members: Mapping[str, int]) -> composite_pb2.FilterChainConfiguration:
    """The filters of rules, one rule after the other."""
    filters = (one for limit in limits for one in _counting(limit, members.get(limit.id, 1)))
    named = [extension_pb2.TypedExtensionConfig(name=str(index), typed_config=pack(one)) for index, one in enumerate(filters)]
    return composite_pb2.FilterChainConfiguration(typed_config=named)


def _always(run: composite_pb2.ExecuteFilterAction) -> matcher_pb2.Matcher:
    does = matcher_pb2.Matcher.OnMatch(action=xds_extension_pb2.TypedExtensionConfig(name="run", typed_config=pack(run)))
    return matcher_pb2.Matcher(on_no_match=does)


def _counting(limit: Limit, members: int) -> Iterator[Message]:
    """The filters of a rule: what it says to whom passes, then the counting. (A `composite` would not do for the choice: inside
    another one it takes what a route says to that for its own.)
    """
    filters = (_told(limit, members), _exact(limit) if limit.counting is Counting.EXACT else _local(limit, members))
    of = predicate(limit.matches)
    for one in filters:
        yield one if of is None else _for(of, one)


def _for(of: matcher_pb2.Matcher.MatcherList.Predicate, filter_: Message) -> extension_matcher_pb2.ExtensionWithMatcher:
    """A filter for the requests that something is true of, and for no other."""
    others = matcher_pb2.Matcher.MatcherList.Predicate(not_matcher=of)
    skip = xds_extension_pb2.TypedExtensionConfig(name="skip", typed_config=pack(skip_action_pb2.SkipFilter()))
    one = matcher_pb2.Matcher.MatcherList.FieldMatcher(predicate=others, on_match=matcher_pb2.Matcher.OnMatch(action=skip))
    return extension_matcher_pb2.ExtensionWithMatcher(
        xds_matcher=matcher_pb2.Matcher(matcher_list=matcher_pb2.Matcher.MatcherList(matchers=[one])),
        extension_config=extension_pb2.TypedExtensionConfig(name="filter", typed_config=pack(filter_)),
    )


def _local(limit: Limit, members: int) -> local_rate_limit_pb2.LocalRateLimit:
    """Counted by the proxy."""
    shared = limit.counting is Counting.SHARED
    rate = _rate(limit)
    rate.x_ratelimit_option = _Rate.DRAFT_VERSION_03
    if shared:
        rate.hits_addend.format = f"%DYNAMIC_METADATA({_COSTS}:{limit.id})%"
    return local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=limit.stat_prefix,
        status=_status(limit.refusal.status),
        token_bucket=_UNLIMITED,
        always_consume_default_token_bucket=FALSE,
        filter_enabled=_ALL,
        filter_enforced=_NONE if limit.shadow else _ALL,
        rate_limited_as_resource_exhausted=True,
        enable_retry_after_header=limit.refusal.headers and not shared,
        max_dynamic_descriptors=uint32(_MOST_KEYS),
        rate_limits=[rate],
        descriptors=_descriptors(limit, members),
        response_headers_to_add=[*_refusal(limit), *(_again(limit, members) if shared else ())],
    )


def _exact(limit: Limit) -> rate_limit_pb2.RateLimit:
    """Counted by the service."""
    service = grpc_service_pb2.GrpcService(envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=LIMITER))
    return rate_limit_pb2.RateLimit(
        domain=DOMAIN,
        stat_prefix=limit.stat_prefix,
        timeout=seconds(_SERVICE_WITHIN),
        failure_mode_deny=limit.denies and not limit.shadow,
        status_on_error=_status(503),
        rate_limited_status=_status(limit.refusal.status),
        rate_limited_as_resource_exhausted=True,
        filter_enforced=_NONE if limit.shadow else _ALL,
        disable_x_envoy_ratelimited_header=True,
        enable_x_ratelimit_headers=rate_limit_pb2.RateLimit.DRAFT_VERSION_03 if limit.refusal.headers else None,
        rate_limits=[_rate(limit)],
        rate_limit_service=rls_pb2.RateLimitServiceConfig(grpc_service=service, transport_api_version="V3"),
        response_headers_to_add=_refusal(limit),
    )


def _status(code: int) -> http_status_pb2.HttpStatus:
    return http_status_pb2.HttpStatus(code=http_status_pb2.StatusCode.Name(cast("http_status_pb2.StatusCode", code)))


def _rate(limit: Limit) -> route_components_pb2.RateLimit:
    """What of a request tells its bucket."""
    rule = _Action(generic_key=_Action.GenericKey(descriptor_key=RULE_ENTRY, descriptor_value=limit.id))
    return _Rate(actions=[rule, _key(limit.key)] if limit.key else [rule])


def _key(key: LimitKey) -> route_components_pb2.RateLimit.Action:
    """The key's value; where a request has none it has no part in the descriptor, or (`skip`) there is no descriptor."""
    match key.kind:
        case KeyKind.HEADER:
            return _Action(
                request_headers=_Action.RequestHeaders(
                    header_name=key.name[0], descriptor_key=KEY_ENTRY, skip_if_absent=not key.skip
                )
            )
        case KeyKind.CLAIM:
            path = [metadata_pb2.MetadataKey.PathSegment(key=one) for one in (PAYLOAD, *key.name)]
            return _Action(
                metadata=_Action.MetaData(
                    descriptor_key=KEY_ENTRY,
                    metadata_key=metadata_pb2.MetadataKey(key=TOKENS, path=path),
                    skip_if_absent=not key.skip,
                )
            )
        case KeyKind.SOURCE_IP:
            return _Action(remote_address=_Action.RemoteAddress())
        case KeyKind.ROUTE:
            return _expression("xds.route_name", skip=key.skip)
        case KeyKind.IDENTITY:
            return _expression("connection.uri_san_peer_certificate", skip=key.skip)


def _expression(text: str, *, skip: bool) -> route_components_pb2.RateLimit.Action:
    made = expr_pb2.Descriptor(descriptor_key=KEY_ENTRY, text=text, skip_if_error=not skip)
    return _Action(extension=extension_pb2.TypedExtensionConfig(name="key", typed_config=pack(made)))


def _descriptors(limit: Limit, members: int) -> Iterator[ratelimit_pb2.LocalRateLimitDescriptor]:
    """A bucket for each value that has another limit, one for each other value, one for requests without any."""
    if limit.key is not None:
        for override in limit.overrides:
            yield from (_descriptor(limit, override, members, value) for value in override.values)
        yield _descriptor(limit, limit, members, "")
    if limit.key is None or not limit.key.skip:
        yield _descriptor(limit, limit, members, None)


def _descriptor(limit: Limit, said: Limit | Override, members: int, value: str | None) -> ratelimit_pb2.LocalRateLimitDescriptor:
    """The bucket of a key's value ("": of any other; None: of no value)."""
    _Entry = ratelimit_pb2.RateLimitDescriptor.Entry
    entries = [_Entry(key=RULE_ENTRY, value=limit.id)]
    if value is not None:
        by_address = limit.key is not None and limit.key.kind is KeyKind.SOURCE_IP
        entries.append(_Entry(key=ADDRESS_ENTRY if by_address else KEY_ENTRY, value=value))
    return ratelimit_pb2.LocalRateLimitDescriptor(entries=entries, token_bucket=_bucket(limit, said, members))


def _bucket(limit: Limit, said: Limit | Override, members: int) -> token_bucket_pb2.TokenBucket:
    shared = limit.counting is Counting.SHARED
    one = unit(limit, members) if shared else 1
    times = max(1, math.ceil(_LEAST_WINDOW / limit.window))
    return token_bucket_pb2.TokenBucket(
        max_tokens=min(MOST, room(said, members if shared else 1) * one),
        tokens_per_fill=uint32(min(MOST, said.limit * one * times)),
        fill_interval=seconds(limit.window * times),
    )


def _refusal(limit: Limit) -> list[base_pb2.HeaderValueOption]:
    """What `REFUSED` makes the answer of."""
    said = limit.refusal
    return [_header(_BODY, said.body or "rate limited"), _header(_TYPE, said.content_type)]


def _again(limit: Limit, members: int) -> list[base_pb2.HeaderValueOption]:
    """When there is enough for a request again: Envoy says when there is enough for a unit."""
    if not limit.refusal.headers:
        return []
    each = limit.window / (limit.limit * unit(limit, members))
    cost = f"double(metadata.filter_metadata[{json.dumps(_COSTS)}][{json.dumps(limit.id)}])"
    when = f"%CEL(1 + int({cost} * {each:.9f}))%"
    return [_raw("retry-after", when), _raw("ratelimit-reset", when)]


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return _raw(name, value.replace("%", "%%"))


def _raw(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=_Set)


def _told(limit: Limit, members: int) -> header_mutation_pb2.HeaderMutation:
    """Headers of the answer, also of the one to who passes: Envoy's under the names of the standard, in whole requests."""
    one = unit(limit, members) if limit.counting is Counting.SHARED else 1
    tells = limit.refusal.headers and not limit.shadow
    changes: list[mutation_rules_pb2.HeaderMutation] = []
    for word in _HEADERS:
        said = f"x-ratelimit-{word}"
        if tells:
            value = f"%CEL(int(response.headers['{said}']) / {one})%" if one > 1 and word != "reset" else f"%RESP({said})%"
            changes.append(_change(f"ratelimit-{word}", value, base_pb2.HeaderValueOption.ADD_IF_ABSENT))
        changes.append(mutation_rules_pb2.HeaderMutation(remove=said))
    if tells and limit.counting is Counting.EXACT:  # Envoy says it only of what it counts itself
        again = f"%CEL('{_BODY}' in response.headers ? response.headers['x-ratelimit-reset'] : response.headers['{_BODY}'])%"
        changes.insert(0, _change("retry-after", again, base_pb2.HeaderValueOption.ADD_IF_ABSENT))
    kind = f"%CEL('grpc-status' in response.headers ? 'application/grpc' : response.headers['{_TYPE}'])%"
    changes.append(_change("content-type", kind, base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS))
    changes += (mutation_rules_pb2.HeaderMutation(remove=name) for name in (_BODY, _TYPE))
    return header_mutation_pb2.HeaderMutation(mutations=header_mutation_pb2.Mutations(response_mutations=changes))


def _change(name: str, value: str, action: base_pb2.HeaderValueOption.HeaderAppendAction) -> mutation_rules_pb2.HeaderMutation:
    header = base_pb2.HeaderValue(key=name, value=value)
    return mutation_rules_pb2.HeaderMutation(append=base_pb2.HeaderValueOption(header=header, append_action=action))
