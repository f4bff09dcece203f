"""Random HTTPRoutes and GRPCRoutes as a user might write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.property.routing_words import (
    HEADERS,
    METHODS_OF,
    NAMES,
    PARAMETERS,
    PATHS,
    REGEXES,
    SERVICES,
    TEXTS,
    Json,
    some,
    sparse,
)


def _kind(kind: str) -> Callable[[str], Json]:
    return lambda value: {"type": kind, "value": value}


def _named(names: tuple[str, ...]) -> st.SearchStrategy[list[Json]]:
    exact = st.sampled_from(TEXTS).map(_kind("Exact"))
    regex = st.sampled_from(REGEXES).map(_kind("RegularExpression"))
    pair = st.builds(lambda name, text: {"name": name, **text}, st.sampled_from(names), st.one_of(exact, regex))
    return st.lists(pair, max_size=2, unique_by=lambda one: one["name"])


def _filled(one: Json) -> Json:
    return {name: value for name, value in one.items() if value != []}


def http_match() -> st.SearchStrategy[Json]:
    """HTTPRouteMatch."""
    path = st.one_of(
        st.sampled_from(PATHS).map(_kind("Exact")),
        st.sampled_from(PATHS).map(_kind("PathPrefix")),
        st.sampled_from(REGEXES).map(_kind("RegularExpression")),
    )
    return sparse(
        path=path, method=st.sampled_from(("GET", "POST")), headers=_named(HEADERS), queryParams=_named(PARAMETERS)
    ).map(_filled)


def grpc_match() -> st.SearchStrategy[Json]:
    """GRPCRouteMatch."""

    def method(kind: str, services: tuple[str, ...], methods: tuple[str, ...]) -> st.SearchStrategy[Json]:
        said = sparse(service=st.sampled_from(services), method=st.sampled_from(methods))
        return said.map(lambda one: {"type": kind, **(one or {"service": services[0]})})

    exact = method("Exact", SERVICES, METHODS_OF)
    regex = method("RegularExpression", ("a.*", "a|a[.]B", "[^/]*B"), ("C|D", "C?", ".+"))
    return sparse(method=st.one_of(exact, regex), headers=_named(HEADERS)).map(_filled)


def header_filters() -> st.SearchStrategy[list[Json]]:
    """Filters that both kinds of routes have."""
    pairs = st.dictionaries(st.sampled_from((*HEADERS, "x-new")), st.sampled_from(TEXTS), max_size=2).map(
        lambda one: [{"name": name, "value": value} for name, value in one.items()]
    )
    edit = sparse(set=pairs, add=pairs, remove=some(st.sampled_from(HEADERS), 1)).map(_filled)
    mirror = st.sampled_from(NAMES).map(lambda name: {"backendRef": {"name": name, "port": 9080, "namespace": "default"}})
    return sparse(requestHeaderModifier=edit, responseHeaderModifier=edit, requestMirror=mirror).map(_filters)


def http_filters(prefix: bool) -> st.SearchStrategy[list[Json]]:
    """Filters that HTTPRoutes alone have, with those of both; a prefix is replaced where one is matched."""
    kinds = ("ReplaceFullPath", "ReplacePrefixMatch") if prefix else ("ReplaceFullPath",)
    path = st.builds(
        lambda kind, value: {"type": kind, kind[0].lower() + kind[1:]: value},
        st.sampled_from(kinds),
        st.sampled_from(("/", "/n", "/n/", "")),
    )
    rewrite = sparse(hostname=st.just("new.host"), path=path)
    cors = sparse(
        allowOrigins=st.sampled_from((["*"], ["http://a"], ["http://*.a"])),
        allowMethods=st.just(["*"]),
        allowCredentials=st.booleans(),
    )
    more = sparse(urlRewrite=rewrite, cors=cors).map(_filters)
    return st.builds(lambda some, others: [*some, *others], header_filters(), more)


def redirects(prefix: bool) -> st.SearchStrategy[list[Json]]:
    """A redirect, alone."""
    kinds = ("ReplaceFullPath", "ReplacePrefixMatch") if prefix else ("ReplaceFullPath",)
    path = st.builds(lambda kind: {"type": kind, kind[0].lower() + kind[1:]: "/n"}, st.sampled_from(kinds))
    said = sparse(
        scheme=st.sampled_from(("http", "https")),
        hostname=st.just("new.host"),
        path=path,
        port=st.sampled_from((80, 8443)),
        statusCode=st.sampled_from((301, 302, 303, 307, 308)),
    )
    return said.map(lambda one: [{"type": "RequestRedirect", "requestRedirect": one}])


_TYPES = {
    "requestHeaderModifier": "RequestHeaderModifier",
    "responseHeaderModifier": "ResponseHeaderModifier",
    "requestMirror": "RequestMirror",
    "urlRewrite": "URLRewrite",
    "cors": "CORS",
}


def _filters(said: Json) -> list[Json]:
    return [{"type": _TYPES[field], field: value} for field, value in said.items()]


def backends(own: st.SearchStrategy[list[Json]]) -> st.SearchStrategy[list[Json]]:
    """Backends with their shares; some have filters of their `own`."""
    ref = st.builds(
        lambda name, weight, filters: {"name": name, "namespace": "default", "port": 9080, "weight": weight, **filters},
        st.sampled_from(NAMES),
        st.integers(0, 10),
        st.one_of(st.just({}), st.just({}), own.map(lambda one: {"filters": one} if one else {})),
    )
    return st.one_of(some(ref, 3, 1), some(ref, 3, 1), st.just([{"name": "not-there", "port": 9080}]))


@st.composite
def http_rule(draw: st.DrawFn) -> Json:
    """HTTPRouteRule."""
    matches = draw(some(http_match(), 3))
    prefix = not matches or (len(matches) == 1 and matches[0].get("path", {"type": "PathPrefix"})["type"] == "PathPrefix")
    found: Json = {"matches": matches} if matches else {}
    if not draw(st.integers(0, 4)):
        return found | {"filters": draw(redirects(prefix))}
    if draw(st.booleans()):
        found["filters"] = draw(http_filters(prefix))
    return found | {"backendRefs": draw(backends(http_filters(prefix)))}


@st.composite
def grpc_rule(draw: st.DrawFn) -> Json:
    """GRPCRouteRule."""
    found: Json = {"matches": matches} if (matches := draw(some(grpc_match(), 2))) else {}
    if draw(st.booleans()):
        found["filters"] = draw(header_filters())
    return found | {"backendRefs": draw(backends(header_filters()))}


def http_route(name: str, parent: Json, hosts: list[str], rules: list[Json], **metadata: Any) -> Json:
    return _route("HTTPRoute", name, parent, hosts, rules, metadata)


def grpc_route(name: str, parent: Json, hosts: list[str], rules: list[Json], **metadata: Any) -> Json:
    return _route("GRPCRoute", name, parent, hosts, rules, metadata)


def _route(kind: str, name: str, parent: Json, hosts: list[str], rules: list[Json], metadata: Json) -> Json:
    spec: Json = {"parentRefs": [parent], "rules": rules} | ({"hostnames": hosts} if hosts else {})
    about = {"name": name, **metadata}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": about, "spec": spec}
