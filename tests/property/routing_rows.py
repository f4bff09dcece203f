"""Random rows of the model, which can say more than any one API does."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.property.routing_words import HEADERS, NAMES, PARAMETERS, REGEXES, TEXTS, some
from tests.support.judge import AUTHORIZED, AUTHORIZER, AUTHORIZER_BY_GRPC
from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
from tulle.core.model.route import (
    Abort,
    Cors,
    HeaderEdit,
    Headers,
    MatchKind,
    NamedMatch,
    PathEdit,
    PathKind,
    Redirect,
    Rewrite,
    Route,
    RouteMatch,
    TextMatch,
    VirtualHost,
    WeightedDestination,
)

KEYS = [DestinationKey(f"{name}.default.svc.cluster.local", 9080, subset) for name in NAMES for subset in ("", "v1", "v2")]
VALUES = ("a", "b c", "%REQ(x-a)%", "50%%", "%REQ(x-none)%", "%REQ(x-none?:METHOD):2%", "%REQ(:method)%")
# Bodies are asked for too: CONNECT has none, and must not be waited with.
_BY_GRPC = ExternalAuth(AUTHORIZER_BY_GRPC, grpc=True, most_body=8)
_CONNECT = NamedMatch(":method", TextMatch(MatchKind.EXACT, "CONNECT"))
# A place where each lets most requests through, so that what comes after the match is reached.
WIDE = (
    None,
    TextMatch(MatchKind.PREFIX, "/a"),
    TextMatch(MatchKind.PREFIX, "/a/"),
    TextMatch(MatchKind.PREFIX, "/"),
    TextMatch(MatchKind.PREFIX, "/A", ignore_case=True),
    TextMatch(MatchKind.SEGMENTS, "/a"),
    TextMatch(MatchKind.SEGMENTS, "/a/"),
    TextMatch(MatchKind.SEGMENTS, "/"),
    TextMatch(MatchKind.SEGMENTS, "/A", ignore_case=True),
    TextMatch(MatchKind.REGEX, "/a.*"),
    TextMatch(MatchKind.REGEX, "/A.*", ignore_case=True),
    TextMatch(MatchKind.EXACT, "/a/b"),
    TextMatch(MatchKind.EXACT, "/"),
)
PATTERNS = (("a", "x"), ("/(a)/?(b)?", r"/\2\1"), ("b*", "-"), ("^/a", "/z"), ("[ab]", r"\0\0"), ("$", "/end"), ("/", r"/\\"))


def texts() -> st.SearchStrategy[TextMatch]:
    plain = st.builds(
        TextMatch, st.sampled_from((MatchKind.EXACT, MatchKind.PREFIX)), st.sampled_from(("", *TEXTS)), st.booleans()
    )
    return st.one_of(
        plain,
        st.builds(TextMatch, st.just(MatchKind.REGEX), st.sampled_from(REGEXES), st.booleans()),
        st.just(TextMatch(MatchKind.PRESENT)),
    )


def matches() -> st.SearchStrategy[RouteMatch]:
    headers = some(st.builds(NamedMatch, st.sampled_from((*HEADERS, "host")), texts(), st.booleans()), 1)
    query = some(st.builds(NamedMatch, st.sampled_from(PARAMETERS), texts()), 1)
    connects = headers.map(lambda found: RouteMatch(headers=(*found, _CONNECT)))
    others = st.builds(
        lambda path, headers, query, percent: RouteMatch(path, tuple(headers), tuple(query), percent),
        st.sampled_from(WIDE),
        headers,
        query,
        st.sampled_from((100.0, 100.0, 100.0, 0.0)),
    )
    return st.one_of(others, others, others, connects)


def authorizers() -> st.SearchStrategy[ExternalAuth | None]:
    asked = st.builds(ExternalAuth, st.just(AUTHORIZER), path=st.sampled_from(("/one", "/two")), passed=st.just((AUTHORIZED,)))
    return st.one_of(st.none(), st.none(), asked, st.just(_BY_GRPC))


def path_edits() -> st.SearchStrategy[PathEdit | None]:
    value = st.sampled_from(("", "/", "/n", "/n/", "/A/b", r"/\1"))
    return st.one_of(
        st.none(),
        st.builds(PathEdit, st.just(PathKind.FULL), value),
        st.builds(PathEdit, st.just(PathKind.PREFIX), value),
        st.sampled_from(PATTERNS).map(lambda one: PathEdit(PathKind.REGEX, one[1], one[0])),
    )


def edits() -> st.SearchStrategy[HeaderEdit]:
    pairs = some(st.tuples(st.sampled_from((*HEADERS, "x-new")), st.sampled_from(VALUES)), 2).map(tuple)
    return st.one_of(st.just(HeaderEdit()), st.builds(HeaderEdit, pairs, pairs, some(st.sampled_from(HEADERS), 1).map(tuple)))


def headers() -> st.SearchStrategy[Headers]:
    return st.builds(Headers, edits(), edits())


def routes() -> st.SearchStrategy[Route]:
    hosts = st.sampled_from(("", "", "new.host"))
    share = st.builds(WeightedDestination, st.sampled_from(KEYS), st.integers(0, 9), headers(), hosts)
    forward = st.builds(
        lambda shares, rewrite, abort: Route(destinations=tuple(shares), rewrite=rewrite, abort=abort),
        some(share, 3, 1),
        st.one_of(st.none(), st.builds(Rewrite, hosts, path_edits())),
        st.one_of(
            st.none(), st.none(), st.none(), st.builds(Abort, st.sampled_from((418, 503)), grpc=st.sampled_from((None, 5, 14)))
        ),
    )
    redirect = st.builds(
        Redirect,
        st.sampled_from(("", "https", "http")),
        hosts,
        st.sampled_from((0, 0, 80, 8443)),
        st.just(False),
        path_edits(),
        st.sampled_from((301, 302, 303, 307, 308)),
    ).map(lambda one: Route(redirect=one))
    answer = st.builds(
        lambda status, body: Route(status=status, body=body), st.sampled_from((0, 200, 404)), st.sampled_from((b"", b"x"))
    )
    return st.one_of(forward, forward, redirect, answer)


def whole(index: int) -> st.SearchStrategy[Route]:
    """A route with its name, its match and what goes with every action."""
    cors = st.builds(
        Cors, some(st.one_of(texts(), st.just(TextMatch(MatchKind.EXACT, "*"))), 2).map(tuple), forward_unmatched=st.booleans()
    )
    return st.builds(
        lambda action, match, headers, cors, auth: Route(
            name=f"r{index}",
            match=match,
            destinations=action.destinations,
            redirect=action.redirect,
            status=action.status,
            body=action.body,
            rewrite=action.rewrite,
            abort=action.abort,
            headers=headers,
            cors=cors,
            # An authorizer that speaks HTTP would be asked by CONNECT, and has no answer to that.
            auth=auth and _BY_GRPC if _CONNECT in match.headers else auth,
        ),
        routes(),
        matches(),
        headers(),
        st.one_of(st.none(), st.none(), cors),
        authorizers(),
    )


def virtual_hosts(names: tuple[str, ...]) -> st.SearchStrategy[list[VirtualHost]]:
    """One for each name."""
    rows = st.integers(1, 4).flatmap(lambda count: st.tuples(*(whole(index) for index in range(count))))
    secure = st.sampled_from((False, False, False, True))
    hosts = (st.builds(VirtualHost, st.just(name), st.just((name,)), rows, require_tls=secure) for name in names)
    return st.tuples(*hosts).map(list)
