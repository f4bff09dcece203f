"""Random VirtualServices as a user might write them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.property.routing_words import HEADERS, NAMES, PARAMETERS, PATHS, REGEXES, TEXTS, Json, some, sparse

# Whose requests: of the sidecars that are asked, of other ones, of the gateway.
_LABELS = ({"app": "curl"}, {"app": "curl"}, {"app": "nobody"}, {"istio": "ingressgateway"})
_ORIGINS = ("http://a", "http://b")


def string_match(texts: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Istio's StringMatch."""
    text, regex = st.sampled_from(texts), st.sampled_from(REGEXES)
    return st.one_of(
        text.map(lambda one: {"exact": one}), text.map(lambda one: {"prefix": one}), regex.map(lambda one: {"regex": one})
    )


def texts_by_name(names: tuple[str, ...], match: st.SearchStrategy[Json], limit: int = 2) -> st.SearchStrategy[Json]:
    return st.dictionaries(st.sampled_from(names), match, max_size=limit)


def match_request() -> st.SearchStrategy[Json]:
    """HTTPMatchRequest: what the request is, and in a third of them who asks."""
    request = {
        "uri": string_match(PATHS),
        "ignoreUriCase": st.booleans(),
        "method": string_match(("GET", "POST", "P")),
        "authority": string_match(("a", "b", "one.example")),
        "scheme": string_match(("http", "https")),
        "headers": texts_by_name(HEADERS, st.one_of(string_match(TEXTS), st.just({}))),
        "withoutHeaders": texts_by_name(HEADERS, st.one_of(string_match(TEXTS), st.just({})), 1),
        "queryParams": texts_by_name(PARAMETERS, string_match(TEXTS), 1),
    }
    caller = {
        "sourceLabels": st.sampled_from(_LABELS),
        "sourceNamespace": st.sampled_from(("default", "elsewhere")),
        "port": st.sampled_from((9080, 80)),
        "gateways": st.sampled_from((["mesh"], ["tulle-system/istio"], ["mesh", "tulle-system/istio"])),
    }
    return st.one_of(sparse(**request), sparse(**request), sparse(**request, **caller))


def destinations() -> st.SearchStrategy[list[Json]]:
    one = st.builds(
        lambda host, subset, weight: {
            "destination": {"host": f"{host}.default.svc.cluster.local", "port": {"number": 9080}}
            | ({"subset": subset} if subset else {}),
            "weight": weight,
        },
        st.sampled_from(NAMES),
        st.sampled_from(("", "v1", "v2")),
        st.integers(1, 100),
    )
    return some(one, 3, 1)


def changes() -> st.SearchStrategy[Json]:
    """What a rule changes of requests and responses, and copies of them."""
    pairs = st.dictionaries(st.sampled_from((*HEADERS, "x-new")), st.sampled_from(TEXTS), max_size=2)
    operations = sparse(set=pairs, add=pairs, remove=some(st.sampled_from(HEADERS), 1, 1))
    rewrite = st.one_of(
        sparse(uri=st.sampled_from(("/", "/n", "/n/")), authority=st.just("new.host")),
        st.just({"uriRegexRewrite": {"match": "/(a|b)(/?)", "rewrite": r"/\2\1x"}}),
    )
    cors = sparse(
        allowOrigins=st.sampled_from(([{"exact": "http://a"}], [{"regex": "http://[ac]"}], [{"prefix": "http"}])),
        allowMethods=st.just(["GET"]),
        unmatchedPreflights=st.sampled_from(("FORWARD", "IGNORE")),
    )
    mirror = st.sampled_from(NAMES).map(lambda name: {"host": f"{name}.default.svc.cluster.local", "port": {"number": 9080}})
    return sparse(headers=sparse(request=operations, response=operations), rewrite=rewrite, corsPolicy=cors, mirror=mirror)


def action() -> st.SearchStrategy[Json]:
    """What a rule does: it forwards, fails, answers or sends elsewhere."""
    answer = st.sampled_from((200, 404, 503)).map(lambda status: {"directResponse": {"status": status, "body": {"string": "x"}}})
    aborts: tuple[Json, ...] = ({"httpStatus": 400}, {"httpStatus": 503}, {"httpStatus": 555}, {"grpcStatus": "NOT_FOUND"})
    abort = st.sampled_from(aborts).map(lambda said: {"fault": {"abort": {**said, "percentage": {"value": 100}}}})
    forward = st.builds(lambda route, more: {"route": route} | more, destinations(), st.one_of(st.just({}), changes(), abort))
    redirect = sparse(
        uri=st.sampled_from(("/n", "/")),
        authority=st.just("new.host"),
        scheme=st.sampled_from(("http", "https")),
        port=st.sampled_from((80, 8443)),
        redirectCode=st.sampled_from((301, 307)),
    ).map(lambda one: {"redirect": one or {"uri": "/n"}})
    return st.one_of(forward, forward, forward, answer, redirect)


def rule(delegates: tuple[str, ...] = ()) -> st.SearchStrategy[Json]:
    """HTTPRoute of a VirtualService; it may stand for the rules of one of `delegates`."""
    given = action()
    if delegates:
        to = st.builds(
            lambda name, more: {"delegate": {"name": name, "namespace": "default"}} | more,
            st.sampled_from(delegates),
            st.one_of(st.just({}), changes()),
        )
        given = st.one_of(given, given, to)
    return st.builds(
        lambda match, action, name: action | ({"match": match} if match else {}) | name,
        some(match_request(), 3),
        given,
        st.sampled_from(({}, {}, {"name": "named"})),
    )


def virtual_service(name: str, hosts: list[str], rules: list[Json], gateways: list[str], age: Json | None = None) -> Json:
    spec: Json = {"http": rules} | ({"hosts": hosts} if hosts else {}) | ({"gateways": gateways} if gateways else {})
    metadata = {"name": name, **(age or {})}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}


@st.composite
def delegates(draw: st.DrawFn) -> list[Json]:
    """VirtualServices without hosts, for the rules of others: the second may lead to the first."""
    found: list[Json] = []
    for name in ("d0", "d1")[: draw(st.integers(0, 2))]:
        before = tuple(one["metadata"]["name"] for one in found)
        found.append(virtual_service(name, [], draw(some(rule(before), 3, 1)), []))
    return found
