"""What Envoy's response flags and response-code details mean here: a sentence, who decided, and what to do.

Sentences go on from "... got 503: ". Words in braces are filled in by `paragraph.py`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class By(StrEnum):
    """Who decided: a kind of object, an end of the call, or the proxy itself."""

    ROUTE = "route"
    HOST = "host"
    POLICY = "policy"
    TOKENS = "tokens"
    AUTHORIZER = "authorizer"
    ENDPOINTS = "endpoints"
    RULE = "rule"
    LIMIT = "limit"
    APPLICATION = "application"
    CALLER = "caller"
    PROXY = "proxy"


class Cause(msgspec.Struct, frozen=True):
    """`why` it was, what to `do`. `field` of the deciding object: of a DestinationRule, or below the rule of a route.

    `gateway_field` is that of a route of the Gateway API, where it has another name.
    """

    by: By
    why: str
    do: str
    field: str = ""
    gateway_field: str = ""


_POOL = "spec.trafficPolicy.connectionPool"

NO_ENDPOINT = Cause(
    By.ENDPOINTS,
    "no endpoint of {goal} could be called: {endpoints}",
    "start the application, or wait until it listens and is ready; `tulle get workloadentries` shows the endpoints",
)
NO_ROUTE = Cause(
    By.HOST,
    "the proxy of {caller} has no route for {authority} with this path and these headers",
    "`tulle describe request {method} http://{authority}{path} --from {caller}` shows which routes there are and why none holds",
)
NO_CLUSTER = Cause(
    By.ROUTE,
    "the route leads to {goal}, which does not exist for the proxy",
    "name a Service and port (and a subset of its DestinationRule) that exist",
    "route[].destination",
    "backendRefs",
)
TIMEOUT = Cause(
    By.ROUTE,
    "{goal} had not answered when the time of the route was over{timeout}",
    "give the route more time, or find out what makes {goal} slow",
    "timeout",
    "timeouts.request",
)
TRY_TIMEOUT = Cause(
    By.ROUTE,
    "no try of the request was answered within the time of one try{per_try}",
    "give each try more time, or find out what makes {goal} slow",
    "retries.perTryTimeout",
    "timeouts.backendRequest",
)
RETRIES = Cause(
    By.ROUTE,
    "the request was tried {attempts} times, and the last try failed as well",
    "find out why {goal} fails; more tries are load on what fails already",
    "retries.attempts",
    "retry.attempts",
)
OVERFLOW = Cause(
    By.RULE,
    "as many requests or connections to {goal} were under way, or waited, as its limits allow",
    "raise the limits, or have more instances of {goal}",
    f"{_POOL}",
)
UNREACHABLE = Cause(
    By.ENDPOINTS,
    "no connection to {endpoint} of {goal} could be made{why}",
    "see whether the application listens there, and whether something between the hosts keeps connections away",
)
UNTRUSTED = Cause(
    By.ENDPOINTS,
    "{endpoint} of {goal} and the proxy of {caller} did not agree on TLS{why}",
    "`tulle certs` shows the certificates of both; `tulle mtls` and the DestinationRule of the host say who speaks TLS",
    "spec.trafficPolicy.tls",
)
CUT = Cause(
    By.ENDPOINTS,
    "{endpoint} of {goal} closed the connection before it had answered{why}",
    "look for a crash or a restart of the application at that time, and for connections that it closes when they are idle",
)
RESET = Cause(
    By.ENDPOINTS,
    "{endpoint} of {goal} took the request back without an answer{why}",
    "look into the application's log of that time",
)
BAD_ANSWER = Cause(
    By.APPLICATION,
    "what {endpoint} of {goal} answered is no HTTP that the proxy takes{why}",
    "see which protocol the application speaks, and that the Service's port says the same (`appProtocol` or the port's name)",
)
LEFT = Cause(
    By.CALLER,
    "the caller went away before the answer was there, after {milliseconds}",
    "look at the caller's own timeout, and at what makes {goal} slow",
)
QUIET = Cause(
    By.ROUTE,
    "nothing was sent in either direction for as long as the proxy waits",
    "raise the idle timeout, or have the ends send something from time to time",
    "spec.trafficPolicy.connectionPool.http.idleTimeout",
)
TOO_LONG = Cause(
    By.RULE,
    "the request, or its connection, had lasted as long as it may",
    "raise the longest duration where it is configured",
    f"{_POOL}.tcp.maxConnectionDuration",
)
BAD_REQUEST = Cause(
    By.CALLER,
    "what the caller sent is no HTTP that the proxy takes{details}",
    "see which protocol the caller speaks at this port, and what it sends",
)
LARGE_HEADERS = Cause(
    By.CALLER,
    "the request has more headers, or larger ones, than the proxy takes{details}",
    "send less (cookies grow), or raise the limits of the proxy's MeshConfig",
)
LARGE_BODY = Cause(
    By.CALLER,
    "the body of the request is larger than what the gateway takes",
    "send less, or raise `requestLimits.maxRequestBytes` of the MeshConfig",
)
ABORTED = Cause(
    By.ROUTE,
    "the route answers so on purpose: it injects a fault into a share of the requests",
    "take the fault out of the object when the experiment is over",
    "fault.abort",
)
DELAYED = Cause(
    By.ROUTE,
    "the route held the request for a while on purpose: it injects a delay into a share of the requests",
    "take the fault out of the object when the experiment is over",
    "fault.delay",
)
LIMITED = Cause(
    By.LIMIT,
    "more requests came than a rate limit allows",
    "call less often, or raise the limit in the RateLimit object; `tulle get ratelimits` shows them",
)
LIMIT_SERVICE = Cause(
    By.LIMIT,
    "the service that counts for a rate limit did not answer",
    "see that the rate limit service runs and is reached",
)
DENIED_BY = Cause(
    By.POLICY,
    "the policy denies it",
    "change the rule, or call as somebody for whom it does not hold",
)
DENIED = Cause(
    By.POLICY,
    "no policy that allows calls to {destination} allows this one{allows}",
    "add a rule that allows {principal} to {method} {path}",
)
SHUT_OUT = Cause(
    By.POLICY,
    "the policies of {destination} shut out {principal}, whose connection was ended before a word was said",
    "`tulle authz check` tells by which rule",
)
BAD_TOKEN = Cause(
    By.TOKENS,
    "the token of the request is not good, or there is none where one is needed{details}",
    "send a token of an issuer, and for an audience, that the RequestAuthentication names; look at when it ends",
)
REFUSED_BY = Cause(
    By.AUTHORIZER,
    "the external authorizer said no",
    "ask whoever runs the authorizer; the CUSTOM AuthorizationPolicy says for which requests it is asked",
)
AUTHORIZER_AWAY = Cause(
    By.AUTHORIZER,
    "the external authorizer did not answer, and without its word nothing passes",
    "see that the authorizer runs and is reached; `failOpen` of the provider lets requests pass without it",
)
DIRECT = Cause(
    By.ROUTE,
    "the route answers so itself and calls nobody{problems}",
    "change the route where that is not wanted",
    "directResponse",
    "filters",
)
APPLICATION = Cause(
    By.APPLICATION,
    "the application of {goal} answered so itself, and no proxy on the way changed it",
    "look into the application's log for the request ID {id}",
)
OVERLOADED = Cause(
    By.PROXY,
    "the proxy is at the limit of its memory or of its connections and refuses work",
    "give the proxy more (`--envoy-heap-mb` of the node), or send it less",
)
DROPPED = Cause(
    By.PROXY,
    "the proxy was told to drop a share of the requests to {goal}",
    "see which object sets a share to drop",
)
HEALTH = Cause(By.PROXY, "the proxy is about to end and fails its health check", "call another instance; this one is going away")
WARMING = Cause(
    By.PROXY,
    "a part of the proxy's configuration has not come yet, so nothing passes",
    "see with `tulle proxy status` whether the proxy is connected and in sync",
)
NAMELESS = Cause(
    By.ENDPOINTS,
    "the name of {goal} could not be resolved",
    "see whether the host of the ServiceEntry exists in DNS, as the proxy's host sees it",
)
UPGRADE = Cause(
    By.CALLER,
    "the request asks for another protocol (`Upgrade`, CONNECT) that is not served here",
    "ask for WebSocket over HTTP/1.1, or have a route for CONNECT",
)
BAD_UPGRADE = Cause(
    By.APPLICATION,
    "the application did not switch to the protocol that the request asked for",
    "look into the application's log; not every path of it takes WebSockets",
)
NO_CHAIN = Cause(
    By.PROXY,
    "the proxy listens for other connections at this port (plaintext where it takes mutual TLS only, or another server name)",
    "see the PeerAuthentication of the workload, or the hosts of the gateway's listener",
)
FILTER_BROKE = Cause(
    By.ROUTE,
    "the changes to headers that are configured took away what HTTP cannot be without",
    "leave `:method`, `:path`, `:authority` and `:status` to the proxy",
    "headers",
    "filters",
)
MIRRORED = Cause(By.PROXY, "the proxy itself answered, for its administration", "no application was asked")
REDIRECTED = Cause(By.ROUTE, "the proxy followed a redirect by itself", "see where the route leads")
RETRY_BUFFER = Cause(
    By.ROUTE,
    "the body of the request is larger than what the proxy keeps to repeat it",
    "send less, or do without retries there",
    "retries",
    "retry",
)
CACHED = Cause(By.PROXY, "the answer came out of a cache of the proxy", "no application was asked")
STRICT_HEADERS = Cause(
    By.CALLER, "the request has `x-envoy-*` headers with values that are not theirs", "leave these headers to the proxies"
)
BAD_PATH = Cause(
    By.CALLER, "the path of the request, or its host, is missing or is none that the proxy takes{details}", "send a plain path"
)
CLOSED = Cause(
    By.PROXY,
    "the proxy closed the connection{details}",
    "look at whether the proxy was being stopped, or the connection was idle for long",
)

FLAGS: dict[str, Cause] = {
    "LH": HEALTH,
    "UH": NO_ENDPOINT,
    "UT": TIMEOUT,
    "LR": CUT,
    "UR": RESET,
    "UF": UNREACHABLE,
    "UC": CUT,
    "UO": OVERFLOW,
    "NR": NO_ROUTE,
    "DI": DELAYED,
    "FI": ABORTED,
    "RL": LIMITED,
    "UAEX": REFUSED_BY,
    "RLSE": LIMIT_SERVICE,
    "DC": LEFT,
    "URX": RETRIES,
    "SI": QUIET,
    "IH": STRICT_HEADERS,
    "DPE": BAD_REQUEST,
    "UMSDR": TOO_LONG,
    "RFCF": CACHED,
    "NFCF": WARMING,
    "DT": TOO_LONG,
    "UPE": BAD_ANSWER,
    "NC": NO_CLUSTER,
    "OM": OVERLOADED,
    "DF": NAMELESS,
    "DO": DROPPED,
    "DR": LEFT,
    "UDO": DROPPED,
}

# Why a request that went to an endpoint came back, inside of `upstream_reset_...{}`.
RESETS: dict[str, Cause] = {
    "local_connection_failure": UNREACHABLE,
    "remote_connection_failure": UNREACHABLE,
    "connection_failure": UNREACHABLE,
    "connection_timeout": msgspec.structs.replace(
        UNREACHABLE,
        by=By.RULE,
        why="{endpoint} of {goal} did not take the connection in time{why}",
        field=f"{_POOL}.tcp.connectTimeout",
    ),
    "connection_termination": CUT,
    "local_reset": RESET,
    "local_refused_stream_reset": RESET,
    "remote_reset": RESET,
    "remote_refused_stream_reset": RESET,
    "connect_error": RESET,
    "overflow": OVERFLOW,
    "protocol_error": BAD_ANSWER,
    "overload_manager": OVERLOADED,
    "http1_premature_upstream_half_close": CUT,
}

DETAILS: dict[str, Cause] = {
    "via_upstream": APPLICATION,
    "absolute_path_rejected": BAD_PATH,
    "admin_filter_response": MIRRORED,
    "cluster_not_found": NO_CLUSTER,
    "cors_response": msgspec.structs.replace(DIRECT, field="corsPolicy", why="the route answers preflights of CORS itself"),
    "direct_response": DIRECT,
    "dns_resolution_failure": NAMELESS,
    "downstream_header_timeout": BAD_REQUEST,
    "downstream_local_disconnect": CLOSED,
    "downstream_remote_disconnect": LEFT,
    "downstream_remote_reset": LEFT,
    "drop_overload": DROPPED,
    "duration_timeout": TOO_LONG,
    "early_connect_data": UPGRADE,
    "ext_authz_denied": REFUSED_BY,
    "ext_authz_error": AUTHORIZER_AWAY,
    "fault_filter_abort": ABORTED,
    "filter_added_invalid": FILTER_BROKE,
    "filter_chain_not_found": NO_CHAIN,
    "filter_removed_required": FILTER_BROKE,
    "http1.": BAD_REQUEST,
    "http1.headers_too_large": LARGE_HEADERS,
    "http1.too_many_headers": LARGE_HEADERS,
    "http2.": BAD_REQUEST,
    "http2.remote_": LEFT,
    "http2.too_many_headers": LARGE_HEADERS,
    "http3.": BAD_REQUEST,
    "http3.headers_too_large": LARGE_HEADERS,
    "http3.too_many_headers": LARGE_HEADERS,
    "http3.too_many_trailers": LARGE_HEADERS,
    "http3.remote_reset": LEFT,
    "http.": BAD_REQUEST,
    "internal_redirect": REDIRECTED,
    "invalid_path": BAD_PATH,
    "jwt_authn_access_denied": BAD_TOKEN,
    "local_rate_limited": LIMITED,
    "low_version": BAD_REQUEST,
    "maintenance_mode": DROPPED,
    "max_duration_timeout": TOO_LONG,
    "missing_host_header": BAD_PATH,
    "missing_path_rejected": BAD_PATH,
    "no_healthy_upstream": NO_ENDPOINT,
    "overload": OVERLOADED,
    "path_normalization_failed": BAD_PATH,
    "rate_limiter_error": LIMIT_SERVICE,
    "rbac_access_denied": DENIED,
    "rbac_access_denied_early": SHUT_OUT,
    "rejecting_because_detection_failed": BAD_REQUEST,
    "request_header_timeout": BAD_REQUEST,
    "request_headers_failed_strict_check": STRICT_HEADERS,
    "request_overall_timeout": TOO_LONG,
    "request_payload_exceeded_retry_buffer_limit": RETRY_BUFFER,
    "request_payload_too_large": LARGE_BODY,
    "request_rate_limited": LIMITED,
    "response_payload_too_large": BAD_ANSWER,
    "response_timeout": TIMEOUT,
    "route_configuration_not_found": WARMING,
    "route_not_found": NO_ROUTE,
    "stream_idle_timeout": QUIET,
    "unconditional_drop_overload": DROPPED,
    "upgrade_failed": UPGRADE,
    "upstream_max_stream_duration_reached": TOO_LONG,
    "upstream_per_try_idle_timeout": TRY_TIMEOUT,
    "upstream_per_try_timeout": TRY_TIMEOUT,
    "upstream_response_timeout": TIMEOUT,
    "websocket_handshake_unsuccessful": BAD_UPGRADE,
}
_RESET = ("upstream_reset_before_response_started", "upstream_reset_after_response_started")
_NONE_MATCHED = "[none]"
_TLS = ("TLS", "CERTIFICATE", "SSL")


def cause(details: str, flags: str, code: str, why: str = "") -> Cause | None:
    """What it means that a request ended so; None where there is nothing to say: nothing went wrong.

    `details` are Envoy's response-code details, `why` what it says of TLS with the endpoint.
    """
    found = _of_details(details, why)
    flagged = next((FLAGS[flag] for flag in flags.split(",") if flag in FLAGS), None)
    if found is None or (found is APPLICATION and flagged is not None):
        return flagged or found
    if found is APPLICATION and code < "4":
        return None
    return found


def _of_details(details: str, why: str) -> Cause | None:
    head, _brace, inside = details.partition("{")
    if head in _RESET:
        reason = inside.rstrip("}").partition("|")[0]
        found = RESETS.get(reason, RESET)
        return UNTRUSTED if found is UNREACHABLE and any(word in f"{why}{inside}".upper() for word in _TLS) else found
    if details.startswith("rbac_access_denied") and _NONE_MATCHED not in details and "policy[" in details:
        return DENIED_BY
    fitting = [name for name in DETAILS if details.startswith(name)]
    return DETAILS[max(fitting, key=len)] if fitting else None
