"""The filters of a rule of the Gateway API, or of one of its backends → what is done to a request and its response."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

import msgspec

from tulle.api.gateway.http_route import CORS, ExternalAuth, HTTPRouteFilter, PathModifier, RequestRedirect
from tulle.api.gateway.routes import GRPCRouteFilter
from tulle.api.gateway.shared import HeaderModifier, RequestMirror
from tulle.core.compile import backends
from tulle.core.compile.headers import Said, edited
from tulle.core.compile.mistakes import warning
from tulle.core.flow import Fetch
from tulle.core.model.external_auth import EVERY
from tulle.core.model.external_auth import ExternalAuth as Asks
from tulle.core.model.route import UNCHANGED, Cors, Headers, MatchKind, Mirror, PathEdit, PathKind, Redirect, Rewrite, TextMatch
from tulle.kit.problem import Problem, Ref

Filter = HTTPRouteFilter | GRPCRouteFilter

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


class Steps(msgspec.Struct, frozen=True):
    """What filters do. `closed`: one of them cannot be applied, and no request may pass without it; `refused`: as we lack it."""

    headers: Headers = UNCHANGED
    authority: str = ""
    path: PathEdit | None = None
    redirect: Redirect | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    auth: Asks | None = None
    problems: tuple[Problem, ...] = ()
    closed: bool = False
    refused: bool = False

    @property
    def rewrite(self) -> Rewrite | None:
        """The change to authority and path."""
        return Rewrite(self.authority, self.path) if self.authority or self.path else None

    @property
    def of_a_route(self) -> bool:
        """Whether this is more than can be done for one of several destinations."""
        return bool(self.path or self.redirect or self.mirrors or self.cors or self.auth)


def steps(fetch: Fetch, ref: Ref, filters: Sequence[Filter], path: str, asked: Asks | None = None) -> Steps:
    """What the filters at `path` of the route `ref` do; `asked` is who has been asked before they come to bear."""
    request, response = Said(at=path), Said(at=path)
    found = Steps()
    mirrors: list[Mirror] = []
    problems: list[Problem] = []
    for index, one in enumerate(filters):
        at = f"{path}[{index}]"
        if one.request_header_modifier:
            request = _said(one.request_header_modifier, f"{at}.requestHeaderModifier")
        elif one.response_header_modifier:
            response = _said(one.response_header_modifier, f"{at}.responseHeaderModifier")
        elif one.request_mirror:
            mirrors += _mirror(fetch, ref, one.request_mirror, f"{at}.requestMirror", problems)
        elif isinstance(one, HTTPRouteFilter) and one.request_redirect:
            found = msgspec.structs.replace(found, redirect=_redirect(one.request_redirect))
        elif isinstance(one, HTTPRouteFilter) and one.url_rewrite:
            change = one.url_rewrite
            found = msgspec.structs.replace(found, authority=change.hostname or "", path=_path(change.path))
        elif isinstance(one, HTTPRouteFilter) and one.cors:
            found = msgspec.structs.replace(found, cors=_cors(one.cors))
        elif isinstance(one, HTTPRouteFilter) and one.external_auth and not (asked or found.auth):
            auth = _auth(fetch, ref, one.external_auth, f"{at}.externalAuth")
            if isinstance(auth, Problem):
                problems.append(auth)
                found = msgspec.structs.replace(found, closed=True)
            else:
                found = msgspec.structs.replace(found, auth=auth)
        elif isinstance(one, HTTPRouteFilter) and one.external_auth:
            message = "found a second ExternalAuth on the way of one request, which is not supported; answered 500"
            problems.append(warning(ref, at, "NotYetSupported", message))
            found = msgspec.structs.replace(found, closed=True, refused=True)
        else:
            message = f"the filter {one.type} is not supported yet; answered 500"
            problems.append(warning(ref, at, "NotYetSupported", message))
            found = msgspec.structs.replace(found, closed=True, refused=True)
    changed = edited(ref, request, response, placeholders=False)
    return msgspec.structs.replace(
        found,
        headers=changed.headers,
        authority=found.authority or changed.authority,
        mirrors=tuple(mirrors),
        problems=(*problems, *changed.problems),
    )


def _said(said: HeaderModifier, path: str) -> Said:
    pairs = [tuple(sorted({one.name.lower(): one.value for one in reversed(some)}.items())) for some in (said.set, said.add)]
    return Said(pairs[0], pairs[1], said.remove, path)


def _mirror(fetch: Fetch, ref: Ref, said: RequestMirror, path: str, problems: list[Problem]) -> Iterator[Mirror]:
    percent = 100.0
    if said.percent is not None:
        percent = float(said.percent)
    elif said.fraction:
        percent = 100.0 * said.fraction.numerator / said.fraction.denominator
    found = backends.refer(fetch, ref, said.backend_ref, f"{path}.backendRef")
    if isinstance(found, Problem):
        problems.append(found)
    elif percent > 0:
        yield Mirror(found, percent)


def _auth(fetch: Fetch, ref: Ref, said: ExternalAuth, path: str) -> Asks | Problem:
    found = backends.authorizer(fetch, ref, said.backend_ref, f"{path}.backendRef", grpc=said.protocol == "GRPC")
    if isinstance(found, Problem):
        return found
    told = said.grpc or said.http
    return Asks(
        destination=found,
        grpc=said.protocol == "GRPC",
        path=plain_path(said.http.path or "") if said.http else "",
        shown=_names(told.allowed_headers) if told else (),
        copied=_names(said.http.allowed_response_headers) or (EVERY,) if said.http else (),
        most_body=(said.forward_body.max_size or 0) if said.forward_body else 0,
    )


def _names(said: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({name.lower() for name in said}))


def plain_path(said: str) -> str:
    """A path that another is put behind: it begins with "/", ends without, and leads to nothing above or beside it."""
    parts = [part for part in said.split("/") if unquote(part) not in ("", ".", "..")]
    return "".join(f"/{part}" for part in parts)


def _redirect(said: RequestRedirect) -> Redirect:
    return Redirect(
        scheme=said.scheme or "",
        host=said.hostname or "",
        port=said.port or 0,
        own_port=said.port is None,
        path=_path(said.path),
        status=said.status_code,
    )


def _path(said: PathModifier | None) -> PathEdit | None:
    if said is None:
        return None
    if said.replace_full_path is not None:
        return PathEdit(PathKind.FULL, said.replace_full_path)
    return PathEdit(PathKind.PREFIX, said.replace_prefix_match or "")


def _cors(said: CORS) -> Cors:
    # A caller that sends credentials is not served by a wildcard: all methods are named. What the gateway is asked to
    # answer, the application is not asked.
    return Cors(
        origins=tuple(map(_origin, said.allow_origins)),
        methods=_METHODS if "*" in said.allow_methods else said.allow_methods,
        headers=said.allow_headers,
        expose=said.expose_headers,
        max_age=float(said.max_age),
        credentials=bool(said.allow_credentials),
        forward_unmatched=False,
        echo="*" in said.allow_headers and bool(said.allow_credentials),
    )


def _origin(said: str) -> TextMatch:
    if said == "*" or "*" not in said:
        return TextMatch(MatchKind.EXACT, said)
    return TextMatch(MatchKind.REGEX, re.escape(said).replace(r"\*", ".*"))
