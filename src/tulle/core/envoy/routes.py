"""Route tables and their virtual hosts → RouteConfiguration and VirtualHost.

A table is an empty RouteConfiguration that never changes and says where its virtual hosts come from (VHDS over ADS); each
virtual host is a resource of its own. A changed route is then one small message, and no listener or table is touched.

How Envoy 1.40 does delta VHDS (tests/unit/core/envoy/test_vhds.py holds it to this), which whoever serves it must know:

- Its one VHDS subscription names nothing, ever: the first request has no names, and a further table brings no further
  request. It stands for the virtual hosts of every table that the proxy has.
- A virtual host belongs to the table before the last `/` of its resource name. One that comes before Envoy has acknowledged
  its table is acknowledged and dropped: a table's hosts are sent after the table's ACK, whatever was sent before.
- A listener warms until its table has had one virtual host, or one name in `removed_resources` (any `TABLE/x`); an empty
  response does not do. So a table without hosts answers nobody until `_PATIENCE` is over.
- A removal takes effect only if VirtualHost.name is the resource's name.
"""

from __future__ import annotations

from functools import lru_cache

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.clusters import PASSTHROUGH
from tulle.core.envoy.source import FALSE, metadata, seconds, uint32
from tulle.core.model.route import (
    MatchKind,
    NamedMatch,
    Retry,
    Route,
    RouteMatch,
    RouteTableKey,
    TextMatch,
    VirtualHost,
)
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from tulle.pb.envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from tulle.pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from tulle.pb.envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from tulle.pb.envoy.type.matcher.v3 import regex_pb2, string_pb2
from tulle.pb.envoy.type.v3 import percent_pb2
from tulle.pb.google.protobuf import any_pb2

FAULT = "envoy.filters.http.fault"

# Where the virtual hosts of a table come from, and how long (seconds) its listener stays closed when none comes.
_PATIENCE = 5.0
_HOSTS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    initial_fetch_timeout=seconds(_PATIENCE),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)

# How often a retry may draw again when it drew an endpoint that has already failed this request; Istio's number.
_DRAWS = 5

PREVIOUS_HOSTS = route_components_pb2.RetryPolicy.RetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate())
)

_NOT_IN_MESH = route_components_pb2.DirectResponseAction(
    status=502,
    body_format=substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(
            inline_string="%REQ(:AUTHORITY)% is not a service of this mesh, and this proxy forwards to nothing else\n"
        )
    ),
)


def encode_table(key: RouteTableKey) -> Encoded:
    """The table itself: its virtual hosts are asked for by the table's name."""
    table = route_pb2.RouteConfiguration(
        name=key.name,
        vhds=route_pb2.Vhds(config_source=_HOSTS),
        # A route whose cluster is missing answers 503; it must not take the whole table with it.
        validate_clusters=FALSE,
        # A sidecar's table or a gateway's belongs to one port: whatever port a client writes into Host, it got here.
        # The forward proxy's table has all ports, and tells services apart by it.
        ignore_port_in_host_matching=key.port != 0,
    )
    return encode(type_urls.ROUTE, key.name, table.SerializeToString(deterministic=True), ((type_urls.VIRTUAL_HOST, key.name),))


def encode_host(key: RouteTableKey, host: VirtualHost) -> Encoded:
    """A virtual host of a table, in the order of its routes."""
    message = route_components_pb2.VirtualHost(
        name=key.host_resource(host.name),
        domains=host.domains,
        routes=[_route(route) for route in host.routes],
        include_request_attempt_count=True,
    )
    if host.passthrough:
        message.routes.append(_passthrough(key))
    return encode(type_urls.VIRTUAL_HOST, key.host_resource(host.name), message.SerializeToString(deterministic=True))


def _passthrough(key: RouteTableKey) -> route_components_pb2.Route:
    """Everything else goes where it was going; a forward proxy was told no such place, and says so."""
    message = route_components_pb2.Route(name="allow_any", match=route_components_pb2.RouteMatch(prefix="/"))
    if key.port == 0 or key.gateway:
        message.name = "not_in_mesh"
        message.direct_response.CopyFrom(_NOT_IN_MESH)
    else:
        message.route.cluster = PASSTHROUGH
        message.route.timeout.CopyFrom(seconds(0))
    return message


def _route(route: Route) -> route_components_pb2.Route:
    origin = route.origin
    chosen = [share for share in route.destinations if share.weight > 0]
    message = route_components_pb2.Route(
        name=route.name,
        match=_match(route.match),
        metadata=metadata(
            {
                "service": chosen[0].destination.hostname if chosen else "",
                "origin": str(origin.ref) if origin else "",
                "path": origin.path if origin else "",
            }
        ),
    )
    if chosen:
        action = message.route
        if len(chosen) == 1:
            action.cluster = chosen[0].destination.cluster
        else:
            for share in chosen:
                action.weighted_clusters.clusters.add(name=share.destination.cluster, weight=uint32(share.weight))
        action.timeout.CopyFrom(seconds(route.timeout))
        if route.retry and route.retry.attempts:
            action.retry_policy.CopyFrom(_retry(route.retry))
    else:
        message.direct_response.status = route.status or 500
    if route.delay or route.abort:
        message.typed_per_filter_config[FAULT].CopyFrom(_fault(route))
    return message


def _match(match: RouteMatch) -> route_components_pb2.RouteMatch:
    message = route_components_pb2.RouteMatch(
        headers=[_header(header) for header in match.headers],
        query_parameters=[_query(parameter) for parameter in match.query],
    )
    path = match.path
    if path is None or path.kind is MatchKind.PRESENT:
        message.prefix = "/"
        return message
    value = path.value
    if path.kind is MatchKind.EXACT:
        message.path = value
    elif path.kind is MatchKind.REGEX:
        message.safe_regex.CopyFrom(_regex(path))
        return message
    elif path.kind is MatchKind.SEGMENTS and value.rstrip("/"):
        message.path_separated_prefix = value.rstrip("/")
    else:
        message.prefix = value or "/"
    if path.ignore_case:
        message.case_sensitive.CopyFrom(FALSE)
    return message


def _header(named: NamedMatch) -> route_components_pb2.HeaderMatcher:
    if named.match.kind is MatchKind.PRESENT:
        return route_components_pb2.HeaderMatcher(name=named.name, present_match=True, invert_match=named.invert)
    return route_components_pb2.HeaderMatcher(
        name=named.name,
        string_match=_text(named.match),
        invert_match=named.invert,
        # Envoy does not ask an inverted matcher about a header that is absent, unless absent counts as empty.
        treat_missing_header_as_empty=named.invert,
    )


def _query(named: NamedMatch) -> route_components_pb2.QueryParameterMatcher:
    if named.match.kind is MatchKind.PRESENT:
        return route_components_pb2.QueryParameterMatcher(name=named.name, present_match=True)
    return route_components_pb2.QueryParameterMatcher(name=named.name, string_match=_text(named.match))


def _text(match: TextMatch) -> string_pb2.StringMatcher:
    if match.kind is MatchKind.REGEX:
        return string_pb2.StringMatcher(safe_regex=_regex(match))
    if match.kind is MatchKind.EXACT:
        return string_pb2.StringMatcher(exact=match.value, ignore_case=match.ignore_case)
    if not match.value:  # an empty prefix is no prefix to Envoy, and every text has it
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".*"))
    return string_pb2.StringMatcher(prefix=match.value, ignore_case=match.ignore_case)


def _regex(match: TextMatch) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=f"(?i){match.value}" if match.ignore_case else match.value)


@lru_cache(maxsize=256)
def _retry(retry: Retry) -> route_components_pb2.RetryPolicy:
    on = list(retry.on)
    if retry.statuses and "retriable-status-codes" not in on:
        on.append("retriable-status-codes")
    return route_components_pb2.RetryPolicy(
        retry_on=",".join(on),
        num_retries=uint32(retry.attempts),
        retriable_status_codes=retry.statuses,
        per_try_timeout=seconds(retry.per_try_timeout) if retry.per_try_timeout else None,
        retry_host_predicate=[PREVIOUS_HOSTS],
        host_selection_retry_max_attempts=_DRAWS,
    )


def _fault(route: Route) -> any_pb2.Any:
    fault = fault_pb2.HTTPFault()
    if route.delay:
        fault.delay.CopyFrom(
            common_fault_pb2.FaultDelay(fixed_delay=seconds(route.delay.duration), percentage=_percent(route.delay.percent))
        )
    if route.abort:
        fault.abort.CopyFrom(fault_pb2.FaultAbort(http_status=route.abort.status, percentage=_percent(route.abort.percent)))
    packed: any_pb2.Any = pack(fault)
    return packed


def _percent(percent: float) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(numerator=round(percent * 10_000), denominator=percent_pb2.FractionalPercent.MILLION)
