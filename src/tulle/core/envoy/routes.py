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

from collections.abc import Iterator

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.clusters import PASSTHROUGH
from tulle.core.envoy.route_actions import LOST, UNREACHED, action, edit_headers, redirect, retry_policy
from tulle.core.envoy.route_filters import filters
from tulle.core.envoy.route_matches import for_connect, request_match
from tulle.core.envoy.source import FALSE, metadata, seconds, uint32
from tulle.core.model.route import (
    MOST_BODY,
    UNCHANGED,
    MatchKind,
    NamedMatch,
    Route,
    RouteMatch,
    RouteTableKey,
    TextMatch,
    VirtualHost,
)
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2

# Where the virtual hosts of a table come from, and how long (seconds) its listener stays closed when none comes.
_PATIENCE = 5.0
_HOSTS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    initial_fetch_timeout=seconds(_PATIENCE),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)

_METHODS = NamedMatch(":method", TextMatch(MatchKind.REGEX, "GET|HEAD|OPTIONS"))
(_SAFE,) = request_match(RouteMatch(headers=(_METHODS,))).headers
_CONNECT = NamedMatch(":method", TextMatch(MatchKind.EXACT, "CONNECT"))

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
        max_direct_response_body_size_bytes=uint32(MOST_BODY),
        response_headers_to_remove=[UNREACHED, LOST],  # said by one sidecar to the other
    )
    return encode(type_urls.ROUTE, key.name, table.SerializeToString(deterministic=True), ((type_urls.VIRTUAL_HOST, key.name),))


def encode_host(key: RouteTableKey, host: VirtualHost) -> Encoded:
    """A virtual host of a table, in the order of its routes."""
    message = route_components_pb2.VirtualHost(
        name=key.host_resource(host.name),
        domains=host.domains,
        routes=[message for route in host.routes for message in _routes(key, route)],
        include_request_attempt_count=True,
    )
    if host.require_tls:
        message.require_tls = route_components_pb2.VirtualHost.ALL
    if host.passthrough:
        rest = _passthrough(key)
        message.routes.extend([rest, for_connect(rest)] if rest.HasField("route") else [rest])
    return encode(type_urls.VIRTUAL_HOST, key.host_resource(host.name), message.SerializeToString(deterministic=True))


def _passthrough(key: RouteTableKey) -> route_components_pb2.Route:
    """Everything else goes where it was going; what was called outright was told no such place, and says so."""
    message = route_components_pb2.Route(name="allow_any", match=route_components_pb2.RouteMatch(prefix="/"))
    if key.port == 0 or key.gateway or key.bind:
        message.name = "not_in_mesh"
        message.direct_response.CopyFrom(_NOT_IN_MESH)
    else:
        message.route.cluster = PASSTHROUGH
        message.route.timeout.CopyFrom(seconds(0))
    return message


def _by_method(route: Route) -> Iterator[route_components_pb2.Route]:
    """Envoy has one policy of retries for all methods; so a route that repeats more of the safe ones is two routes."""
    message = _route(route)
    if route.retry and route.retry.safe and message.route.HasField("retry_policy"):
        safe = route_components_pb2.Route()
        safe.CopyFrom(message)
        safe.match.headers.append(_SAFE)
        safe.route.retry_policy.CopyFrom(retry_policy(route.retry, safe=True))
        yield safe
    yield message


def _routes(key: RouteTableKey, route: Route) -> Iterator[route_components_pb2.Route]:
    """A route, and the same for CONNECT.

    CONNECT names where it wants to go instead of whom it calls. So it is routed where all that comes is for one service, and
    where a rule asks for that very method.
    """
    any_path = route.match.path is None
    if any_path and _CONNECT in route.match.headers:
        yield for_connect(_route(route))
        return
    yield from _by_method(route)
    if any_path and key.service:
        yield for_connect(_route(route))


def _route(route: Route) -> route_components_pb2.Route:
    origin = route.origin
    chosen = [share for share in route.destinations if share.weight > 0]
    message = route_components_pb2.Route(
        name=route.name,
        match=request_match(route.match),
        metadata=metadata(
            {
                "service": chosen[0].destination.hostname if chosen else "",
                "origin": str(origin.ref) if origin else "",
                "path": origin.path if origin else "",
            }
        ),
    )
    if chosen:
        message.route.CopyFrom(action(route, chosen))
    elif route.redirect:
        message.redirect.CopyFrom(redirect(route.redirect, route.match.path))
    else:
        message.direct_response.status = route.status or 500
        if route.body:
            message.direct_response.body.inline_bytes = route.body
    if route.headers != UNCHANGED:
        edit_headers(message, route.headers)
    for name, config in filters(route):
        message.typed_per_filter_config[name].CopyFrom(config)
    return message
