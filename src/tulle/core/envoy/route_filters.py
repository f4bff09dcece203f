"""What a route asks of the filters before the router: CORS, authorization, faults, sessions. `core.envoy.http` has them there."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from tulle.core.envoy.ext_authz import OF_ROUTES, for_route
from tulle.core.envoy.finding import NAMED_HOST, named_host
from tulle.core.envoy.rate_limits import counted
from tulle.core.envoy.route_matches import text_matcher
from tulle.core.envoy.source import FALSE, TRUE, percent, seconds
from tulle.core.model.route import UNCOUNTED, Abort, Cors, Delay, Route, Session
from tulle.pb import pack
from tulle.pb.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2
from tulle.pb.envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from tulle.pb.envoy.extensions.filters.http.cors.v3 import cors_pb2
from tulle.pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from tulle.pb.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from tulle.pb.envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from tulle.pb.envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from tulle.pb.envoy.extensions.http.stateful_session.header.v3 import header_pb2
from tulle.pb.envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2
from tulle.pb.google.protobuf import any_pb2

CORS = "envoy.filters.http.cors"
FAULT = "envoy.filters.http.fault"
HEADERS = "envoy.filters.http.header_mutation"
SESSION = "envoy.filters.http.stateful_session"


# The answer to a preflight is the CORS filter's, which no route can change; a filter before it can.
_ECHO = pack(
    header_mutation_pb2.HeaderMutationPerRoute(
        mutations=header_mutation_pb2.Mutations(
            response_mutations=[
                mutation_rules_pb2.HeaderMutation(
                    append=base_pb2.HeaderValueOption(
                        header=base_pb2.HeaderValue(
                            key="access-control-allow-headers", value="%REQ(access-control-request-headers)%"
                        ),
                        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS,
                    )
                )
            ]
        )
    )
)


def filters(route: Route) -> Iterator[tuple[str, any_pb2.Any]]:
    """The configuration of each filter that the route uses, by the filter's name."""
    if route.cors:
        yield CORS, pack(_cors(route.cors))
        if route.cors.echo:
            yield HEADERS, _ECHO
    if route.auth:
        yield OF_ROUTES, for_route(route.auth)
    if route.limits != UNCOUNTED:
        yield from counted(route.limits)
    if route.delay or route.abort:
        yield FAULT, pack(_fault(route.delay, route.abort))
    if route.session and (route.session.cookie or route.session.header):
        yield SESSION, pack(_session(route.session))
    if at_port := next((share.named_at for share in route.destinations if share.named_at), 0):
        yield NAMED_HOST, named_host(at_port)


def _cors(said: Cors) -> cors_pb2.CorsPolicy:
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[text_matcher(origin) for origin in said.origins],
        allow_methods=",".join(said.methods),
        allow_headers=",".join(said.headers),
        expose_headers=",".join(said.expose),
        max_age="" if said.max_age is None else str(int(said.max_age)),
        allow_credentials=TRUE if said.credentials else None,
        forward_not_matching_preflights=TRUE if said.forward_unmatched else FALSE,
    )


def _fault(delay: Delay | None, abort: Abort | None) -> fault_pb2.HTTPFault:
    fault = fault_pb2.HTTPFault()
    if delay:
        held = common_fault_pb2.FaultDelay(fixed_delay=seconds(delay.duration), percentage=percent(delay.percent))
        fault.delay.CopyFrom(held)
    if abort:
        fault.abort.percentage.CopyFrom(percent(abort.percent))
        if abort.grpc is None:
            fault.abort.http_status = abort.status
        else:
            fault.abort.grpc_status = abort.grpc
    return fault


def _session(said: Session) -> stateful_session_pb2.StatefulSessionPerRoute:
    state: Message
    if said.header:
        name, state = "header", header_pb2.HeaderBasedSessionState(name=said.header)
    else:
        cookie = http_cookie_pb2.Cookie(name=said.cookie, path=said.path)
        if said.lifetime:
            cookie.ttl.CopyFrom(seconds(said.lifetime))
        name, state = "cookie", cookie_pb2.CookieBasedSessionState(cookie=cookie)
    extension = extension_pb2.TypedExtensionConfig(name=f"envoy.http.stateful_session.{name}", typed_config=pack(state))
    return stateful_session_pb2.StatefulSessionPerRoute(
        stateful_session=stateful_session_pb2.StatefulSession(session_state=extension)
    )
