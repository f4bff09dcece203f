"""Random routing objects as a user might write them, and random requests that have a chance to match them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tulle.core.evaluate import Request

Json = dict[str, Any]

NAMES = ("a", "b", "c", "d", "e", "f")
HOSTS = ("one.example", "two.example", "x.one.example", "y.x.one.example", "example", "else.where", "ONE.example:8080", "a.b:80")
PATTERNS = ("one.example", "*.example", "*.one.example", "*.x.one.example", "two.example", "x.one.example")

PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/A", "/a/b/c", "/b", "/a.b", "/a-1")
SENT = (
    *(*PATHS, "/a/../b", "/a/./b", "/a//b", "/%61", "/a%2Fb", "/a/%2e%2e/b", "/..", "/a/b/..", "/%7e/{x}", "/a\\b", "/.a"),
    *("/a/b%20c", "/a;b=c"),
)
TEXTS = ("a", "ab", "b", "A", "a,b", "x-y", "1")
REGEXES = (
    *("a.*", "/a.*", "/(a|b)", "/a/[^/]+", "(?i)/A", "[[:alpha:]]+", r"\d", r"/\w+/b", "a|b", ".*", "/a(/.*)?$", "^/a"),
    *(r"/a\.b", "/[ab]{1,2}", "(?i:A)b?", r"\Q/a.b\E", "/a(?i)B|/ab", "[^a]", r"/\pL", r"[\d-]+|a", "/a/?(b|B)?"),
)
HEADERS = ("x-a", "x-b", "end-user")
PARAMETERS = ("q", "r", "a")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")


def some(strategy: st.SearchStrategy[Any], limit: int, least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=least, max_size=limit)


def string_match(texts: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Istio's StringMatch."""
    text, regex = st.sampled_from(texts), st.sampled_from(REGEXES)
    return st.one_of(
        text.map(lambda one: {"exact": one}), text.map(lambda one: {"prefix": one}), regex.map(lambda one: {"regex": one})
    )


def texts_by_name(names: tuple[str, ...], match: st.SearchStrategy[Json], limit: int = 2) -> st.SearchStrategy[Json]:
    return st.dictionaries(st.sampled_from(names), match, max_size=limit)


def sparse(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Some of the fields; empty ones are left out."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda one: {name: value for name, value in one.items() if value != {}})


def istio_match() -> st.SearchStrategy[Json]:
    """HTTPMatchRequest."""
    return sparse(
        uri=string_match(PATHS),
        ignoreUriCase=st.booleans(),
        method=string_match(("GET", "POST", "P")),
        authority=string_match(("a", "b", "one.example")),
        scheme=string_match(("http", "https")),
        headers=texts_by_name(HEADERS, st.one_of(string_match(TEXTS), st.just({}))),
        withoutHeaders=texts_by_name(HEADERS, st.one_of(string_match(TEXTS), st.just({})), 1),
        queryParams=texts_by_name(PARAMETERS, string_match(TEXTS), 1),
    )


def istio_destinations() -> st.SearchStrategy[list[Json]]:
    destination = st.builds(
        lambda host, subset, weight: {
            "destination": {"host": f"{host}.default.svc.cluster.local", "port": {"number": 9080}}
            | ({"subset": subset} if subset else {}),
            "weight": weight,
        },
        st.sampled_from(NAMES),
        st.sampled_from(("", "v1", "v2")),
        st.integers(1, 100),
    )
    return some(destination, 3, 1)


def changes() -> st.SearchStrategy[Json]:
    """What a rule of a VirtualService changes of requests and responses."""
    pairs = st.dictionaries(st.sampled_from((*HEADERS, "x-new")), st.sampled_from(TEXTS), max_size=2)
    operations = sparse(set=pairs, add=pairs, remove=some(st.sampled_from(HEADERS), 1, 1))
    rewrite = st.one_of(
        sparse(uri=st.sampled_from(("/", "/n", "/n/")), authority=st.just("new.host")),
        st.just({"uriRegexRewrite": {"match": "/(a|b)(/?)", "rewrite": r"/\2\1x"}}),
    )
    return sparse(headers=sparse(request=operations, response=operations), rewrite=rewrite)


def istio_rule() -> st.SearchStrategy[Json]:
    """HTTPRoute of a VirtualService."""
    answer = st.sampled_from((200, 404, 503)).map(lambda status: {"directResponse": {"status": status}})
    abort = st.sampled_from((400, 503, 555)).map(
        lambda code: {"fault": {"abort": {"httpStatus": code, "percentage": {"value": 100}}}}
    )
    forward = st.builds(
        lambda route, more: {"route": route} | more, istio_destinations(), st.one_of(st.just({}), changes(), abort)
    )
    redirect = sparse(
        uri=st.sampled_from(("/n", "/")),
        authority=st.just("new.host"),
        scheme=st.sampled_from(("http", "https")),
        port=st.sampled_from((80, 8443)),
        redirectCode=st.sampled_from((301, 307)),
    ).map(lambda one: {"redirect": one or {"uri": "/n"}})
    answer = st.one_of(answer, redirect)
    return st.builds(
        lambda match, action, name: action | ({"match": match} if match else {}) | name,
        some(istio_match(), 3),
        st.one_of(forward, forward, forward, answer),
        st.sampled_from(({}, {}, {"name": "named"})),
    )


def virtual_service(name: str, hosts: list[str], rules: list[Json], gateways: list[str]) -> Json:
    spec: Json = {"hosts": hosts, "http": rules} | ({"gateways": gateways} if gateways else {})
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name}, "spec": spec}


def _kind(kind: str) -> Callable[[str], Json]:
    return lambda value: {"type": kind, "value": value}


def gateway_match() -> st.SearchStrategy[Json]:
    """HTTPRouteMatch."""
    path = st.one_of(
        st.builds(_kind("Exact"), st.sampled_from(PATHS)),
        st.builds(_kind("PathPrefix"), st.sampled_from(PATHS)),
        st.builds(_kind("RegularExpression"), st.sampled_from(REGEXES)),
    )

    def named(names: tuple[str, ...]) -> st.SearchStrategy[list[Json]]:
        exact = st.sampled_from(TEXTS).map(lambda one: {"type": "Exact", "value": one})
        regex = st.sampled_from(REGEXES).map(lambda one: {"type": "RegularExpression", "value": one})
        pair = st.builds(lambda name, text: {"name": name, **text}, st.sampled_from(names), st.one_of(exact, regex))
        return st.lists(pair, max_size=2, unique_by=lambda one: one["name"])

    return sparse(path=path, method=st.sampled_from(("GET", "POST")), headers=named(HEADERS), queryParams=named(PARAMETERS)).map(
        lambda one: {name: value for name, value in one.items() if value != []}
    )


def gateway_rule() -> st.SearchStrategy[Json]:
    backend = st.builds(
        lambda name, weight: {"name": name, "port": 9080, "weight": weight}, st.sampled_from(NAMES), st.integers(0, 10)
    )
    return st.builds(
        lambda matches, backends: {"backendRefs": backends} | ({"matches": matches} if matches else {}),
        some(gateway_match(), 3),
        some(backend, 3, 1),
    )


def http_route(name: str, parent: Json, hosts: list[str], rules: list[Json]) -> Json:
    spec: Json = {"parentRefs": [parent], "rules": rules} | ({"hostnames": hosts} if hosts else {})
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}


@st.composite
def mesh_objects(draw: st.DrawFn) -> list[Json]:
    """A VirtualService, an HTTPRoute, both or neither for each of the services."""
    found = []
    for name in NAMES:
        if draw(st.integers(0, 3)):
            found.append(virtual_service(name, [name], draw(some(istio_rule(), 4, 1)), []))
        if not draw(st.integers(0, 2)):
            found.append(http_route(name, {"group": "", "kind": "Service", "name": name}, [], draw(some(gateway_rule(), 3, 1))))
    return found


@st.composite
def gateway_objects(draw: st.DrawFn) -> list[Json]:
    """HTTPRoutes and VirtualServices at a gateway, for names that overlap."""
    found = []
    hosts = st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True)
    api = {"name": "api", "namespace": "tulle-system"}
    found += [http_route(f"r{n}", api, draw(hosts), draw(some(gateway_rule(), 3, 1))) for n in range(draw(st.integers(0, 3)))]
    for index in range(draw(st.integers(0, 3))):
        names = draw(hosts) or ["*"]
        found.append(virtual_service(f"v{index}", names, draw(some(istio_rule(), 3, 1)), ["tulle-system/istio"]))
    return found


@st.composite
def requests(draw: st.DrawFn, authorities: tuple[str, ...]) -> tuple[Request, int]:
    """A request, and the number by which its share of a weighted route is drawn."""
    authority = draw(st.sampled_from(authorities))
    if authorities is NAMES:
        authority += draw(st.sampled_from(("", "", ":9080", ":80", ".default", ".default.svc.cluster.local:9080", ".nowhere")))
    query = draw(st.sampled_from(("", "", "?q=a", "?q=ab&r=b", "?a", "?r=1&q=b&q=a", "?", "?q=%61", "?q=a=b&&r=")))
    headers = draw(some(st.tuples(st.sampled_from(HEADERS), st.sampled_from(TEXTS)), 3))
    request = Request(
        authority=authority,
        method=draw(st.sampled_from(METHODS)),
        path=draw(st.sampled_from(SENT)) + query,
        headers=tuple(headers),
    )
    return request, draw(st.integers(0, 400))
