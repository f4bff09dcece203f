"""What a route asks of a request → Envoy's matchers."""

from __future__ import annotations

from tulle.core.envoy.source import FALSE, percent
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.type.matcher.v3 import regex_pb2, string_pb2


def request_match(match: RouteMatch) -> route_components_pb2.RouteMatch:
    """All that must hold for a request."""
    message = route_components_pb2.RouteMatch(
        headers=[_header(header) for header in match.headers],
        query_parameters=[_query(parameter) for parameter in match.query],
    )
    if match.percent < 100.0:
        message.runtime_fraction.default_value.CopyFrom(percent(match.percent))
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


def for_connect(route: route_components_pb2.Route) -> route_components_pb2.Route:
    """The same route for CONNECT, which has no path and is matched by nothing else: what is asked for is passed on as it is."""
    message = route_components_pb2.Route()
    message.CopyFrom(route)
    message.match.connect_matcher.SetInParent()
    if message.HasField("route"):
        message.route.upgrade_configs.add(upgrade_type="CONNECT")
        # A CONNECT with a path would be no request that Envoy could send.
        for rewritten in ("prefix_rewrite", "regex_rewrite", "path_rewrite_policy"):
            message.route.ClearField(rewritten)
    return message


def _header(named: NamedMatch) -> route_components_pb2.HeaderMatcher:
    if named.match.kind is MatchKind.PRESENT:
        return route_components_pb2.HeaderMatcher(name=named.name, present_match=True, invert_match=named.invert)
    return route_components_pb2.HeaderMatcher(
        name=named.name,
        string_match=text_matcher(named.match),
        invert_match=named.invert,
        # Envoy does not ask an inverted matcher about a header that is absent, unless absent counts as empty.
        treat_missing_header_as_empty=named.invert,
    )


def _query(named: NamedMatch) -> route_components_pb2.QueryParameterMatcher:
    if named.match.kind is MatchKind.PRESENT:
        return route_components_pb2.QueryParameterMatcher(name=named.name, present_match=True)
    return route_components_pb2.QueryParameterMatcher(name=named.name, string_match=text_matcher(named.match))


def text_matcher(match: TextMatch) -> string_pb2.StringMatcher:
    """A comparison of a text that is there."""
    if match.kind is MatchKind.REGEX:
        return string_pb2.StringMatcher(safe_regex=_regex(match))
    if match.kind is MatchKind.EXACT:
        return string_pb2.StringMatcher(exact=match.value, ignore_case=match.ignore_case)
    if not match.value:  # an empty prefix is no prefix to Envoy, and every text has it
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".*"))
    return string_pb2.StringMatcher(prefix=match.value, ignore_case=match.ignore_case)


def _regex(match: TextMatch) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=f"(?i){match.value}" if match.ignore_case else match.value)
