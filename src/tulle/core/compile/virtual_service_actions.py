"""What a rule of a VirtualService does with a request → the model's route, but for its matches.

Destinations that are not there stay in the route, and Envoy answers 503 for their share, as in Istio.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from tulle.api.istio.http import (
    GRPC_STATUSES,
    CorsPolicy,
    Destination,
    HeaderOperations,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRouteDestination,
)
from tulle.api.istio.http import Headers as HeadersSpec
from tulle.api.istio.shared import Percent, StringMatch
from tulle.api.istio.virtual_service import HTTPRoute as Rule
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.headers import Edited, Said, clean, edited, pairs
from tulle.core.compile.hostname import full_name, service_key
from tulle.core.compile.mistakes import error, unsaid, warning
from tulle.core.compile.regexes import substitution_fault
from tulle.core.compile.services import named_at
from tulle.core.flow import Fetch
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import (
    DEFAULT_RETRY,
    MOST_BODY,
    Abort,
    Cors,
    Delay,
    MatchKind,
    Mirror,
    PathEdit,
    PathKind,
    Redirect,
    Retry,
    Rewrite,
    Route,
    TextMatch,
    WeightedDestination,
)
from tulle.kit.problem import Problem, Ref


class Action:
    """Makes the route of a rule at `path` of the object `ref`, called at the port `called`; `problems` gathers what is wrong."""

    def __init__(self, fetch: Fetch, ref: Ref, path: str, called: int) -> None:
        self.problems: list[Problem] = []
        self._fetch = fetch
        self._ref = ref
        self._path = path
        self._called = called

    def route(self, rule: Rule) -> Route:
        """Everything but the matches and the names."""
        changed = self._headers(rule.headers, f"{self._path}.headers")
        common = Route(headers=changed.headers, cors=self._cors(rule.cors_policy, f"{self._path}.corsPolicy"))
        if rule.redirect:
            return msgspec.structs.replace(common, redirect=self._redirect(rule.redirect, f"{self._path}.redirect"))
        delay, abort = self._fault(rule.fault, f"{self._path}.fault")
        common = msgspec.structs.replace(common, delay=delay, abort=abort)
        if rule.direct_response:
            body = self._body(rule.direct_response, f"{self._path}.directResponse.body")
            return msgspec.structs.replace(common, status=rule.direct_response.status, body=body)
        shares = self._shares(rule.route)
        rewrite = self._rewrite(rule.rewrite, f"{self._path}.rewrite") or Rewrite()
        if changed.authority and not rewrite.authority:
            rewrite = msgspec.structs.replace(rewrite, authority=changed.authority)
        return msgspec.structs.replace(
            common,
            destinations=shares,
            status=0 if shares else 503,
            rewrite=None if rewrite == Rewrite() else rewrite,
            mirrors=self._mirrors(rule),
            timeout=seconds(rule.timeout) if rule.timeout else 0.0,
            retry=self._retry(rule.retries),
        )

    def _say(self, path: str, reason: str, message: str) -> None:
        self.problems.append(error(self._ref, path, reason, message))

    def _shares(self, route: tuple[HTTPRouteDestination, ...]) -> tuple[WeightedDestination, ...]:
        shares: list[WeightedDestination] = []
        broken = 0
        for index, one in enumerate(route):
            at = f"{self._path}.route[{index}]"
            weight = one.weight if len(route) > 1 else 1
            changed = self._headers(one.headers, f"{at}.headers")
            found = self._find(one.destination, f"{at}.destination")
            if isinstance(found, Problem):
                self.problems.append(found)
                broken += 1
                found = self._missing(one.destination)
            if weight > 0:
                at_port = named_at(self._fetch, found)
                shares.append(WeightedDestination(found, weight, changed.headers, changed.authority, at_port))
        if route and not shares:
            message = "found weights whose sum is 0; needed a weight above 0 for at least one destination"
            self._say(f"{self._path}.route", "WeightSumZero", message)
        return () if broken == len(route) else tuple(shares)

    def _find(self, one: Destination, path: str) -> backends.Found:
        port = one.port.number if one.port else None
        return backends.find(self._fetch, self._ref, path, one.host, port, one.subset, self._called)

    def _missing(self, one: Destination) -> DestinationKey:
        """A destination that is nowhere: its share of the requests is answered 503."""
        key = service_key(one.host, self._ref.namespace)
        return DestinationKey(full_name(key) if key else one.host, one.port.number if one.port else self._called, one.subset)

    def _headers(self, said: HeadersSpec | None, path: str) -> Edited:
        if said is None:
            return Edited()
        changed = edited(
            self._ref, _said(said.request, f"{path}.request"), _said(said.response, f"{path}.response"), placeholders=True
        )
        self.problems += changed.problems
        return changed

    def _body(self, said: HTTPDirectResponse, path: str) -> bytes:
        if said.body is None:
            return b""
        body = (said.body.string or "").encode()
        if said.body.bytes is not None:
            try:
                body = base64.b64decode(said.body.bytes, validate=True)
            except binascii.Error:
                self._say(f"{path}.bytes", "BadFormat", "found text that is not base64; needed bytes in base64: no body is sent")
        if len(body) > MOST_BODY:
            self._say(path, "TooLong", f"found {len(body)} bytes; needed at most {MOST_BODY}: no body is sent")
            return b""
        return body

    def _redirect(self, said: HTTPRedirect, path: str) -> Redirect:
        for field, value in (("uri", said.uri), ("authority", said.authority), ("prefixRewrite", said.prefix_rewrite)):
            if not clean(value):
                self._say(f"{path}.{field}", "BadFormat", "found a control character; needed none: this field has no effect")
        edit: PathEdit | None = None
        if said.uri and clean(said.uri):
            edit = PathEdit(PathKind.FULL, said.uri)
        elif said.prefix_rewrite and clean(said.prefix_rewrite):
            edit = PathEdit(PathKind.PREFIX, said.prefix_rewrite)
        return Redirect(
            scheme=said.scheme,
            host=said.authority if clean(said.authority) else "",
            port=self._called if said.derive_port == "FROM_REQUEST_PORT" else said.port or 0,
            path=edit,
            status=said.redirect_code or 301,
        )

    def _rewrite(self, said: HTTPRewrite | None, path: str) -> Rewrite | None:
        if said is None:
            return None
        edit: PathEdit | None = None
        if said.uri:
            edit = PathEdit(PathKind.PREFIX, said.uri)
        elif said.uri_regex_rewrite:
            pattern, value = said.uri_regex_rewrite.match, said.uri_regex_rewrite.rewrite
            if fault := substitution_fault(pattern, value):
                self._say(f"{path}.uriRegexRewrite.rewrite", "BadFormat", f"{fault}: the path is not rewritten")
            elif pattern:
                edit = PathEdit(PathKind.REGEX, value, pattern)
        if edit and not clean(edit.value):
            self._say(path, "BadFormat", "found a control character; needed none: the path is not rewritten")
            edit = None
        if not clean(said.authority):
            self._say(f"{path}.authority", "BadFormat", "found a control character; needed none: this field has no effect")
            return Rewrite("", edit)
        return Rewrite(said.authority, edit)

    def _mirrors(self, rule: Rule) -> tuple[Mirror, ...]:
        older = rule.mirror_percent if rule.mirror_percent is not None else rule.mirror_percent_older
        said = [(rule.mirror, _percent(rule.mirror_percentage, older), f"{self._path}.mirror")] if rule.mirror else []
        said += (
            (one.destination, _percent(one.percentage), f"{self._path}.mirrors[{index}].destination")
            for index, one in enumerate(rule.mirrors)
        )
        mirrors: list[Mirror] = []
        for destination, percent, path in said:
            found = self._find(destination, path)
            if isinstance(found, Problem):
                self.problems.append(found)
            elif percent > 0:
                mirrors.append(Mirror(found, percent))
        return tuple(mirrors)

    def _cors(self, said: CorsPolicy | None, path: str) -> Cors | None:
        if said is None:
            return None
        origins = [text_match(origin) for origin in said.allow_origins]
        origins += (TextMatch(MatchKind.EXACT, origin) for origin in said.allow_origin if not said.allow_origins)
        if said.allow_origins and said.allow_origin:
            message = "found it beside allowOrigins, which counts; this one has no effect"
            self.problems.append(warning(self._ref, f"{path}.allowOrigin", "NotYetSupported", message))
        return Cors(
            origins=tuple(origins),
            methods=said.allow_methods,
            headers=said.allow_headers,
            expose=said.expose_headers,
            max_age=seconds(said.max_age) if said.max_age else None,
            credentials=bool(said.allow_credentials),
            forward_unmatched=said.unmatched_preflights != "IGNORE",
            echo="*" in said.allow_headers and bool(said.allow_credentials),
        )

    def _fault(self, said: HTTPFaultInjection | None, path: str) -> tuple[Delay | None, Abort | None]:
        delay: Delay | None = None
        abort: Abort | None = None
        if said and said.delay:
            self.problems += unsaid(self._ref, said.delay, f"{path}.delay", ("fixed_delay", "percentage", "percent"))
            if said.delay.fixed_delay:
                delay = Delay(seconds(said.delay.fixed_delay), _percent(said.delay.percentage, said.delay.percent))
        if said and said.abort:
            self.problems += unsaid(self._ref, said.abort, f"{path}.abort", ("http_status", "grpc_status", "percentage"))
            percent = _percent(said.abort.percentage)
            if said.abort.http_status:
                abort = Abort(said.abort.http_status, percent)
            elif said.abort.grpc_status:
                abort = Abort(0, percent, GRPC_STATUSES.index(said.abort.grpc_status))
        return delay, abort

    def _retry(self, said: HTTPRetry | None) -> Retry | None:
        if said is None:
            return DEFAULT_RETRY
        if said.attempts == 0:
            return None
        words = [word for part in said.retry_on.split(",") if (word := part.strip())]
        statuses = tuple(int(word) for word in words if word.isdigit())
        on = tuple(word for word in words if not word.isdigit())
        if statuses:
            on = tuple(dict.fromkeys((*on, "retriable-status-codes")))
        return Retry(
            attempts=said.attempts,
            on=on if words else DEFAULT_RETRY.on,
            safe=() if words else DEFAULT_RETRY.safe,
            statuses=statuses if words else DEFAULT_RETRY.statuses,
            per_try_timeout=seconds(said.per_try_timeout) if said.per_try_timeout else 0.0,
            backoff=seconds(said.backoff) if said.backoff else 0.0,
            elsewhere=said.retry_ignore_previous_hosts is not False,
            other_localities=bool(said.retry_remote_localities),
        )


def _said(operations: HeaderOperations | None, path: str) -> Said:
    if operations is None:
        return Said(at=path)
    return Said(pairs(operations.set), pairs(operations.add), operations.remove, path)


def _percent(percentage: Percent | None, older: int | None = None) -> float:
    if percentage is not None:
        return percentage.value
    return 100.0 if older is None else float(older)


def text_match(said: StringMatch, ignore_case: bool = False) -> TextMatch:
    """A comparison of a text; one that says nothing holds for every text."""
    if said.exact is not None:
        return TextMatch(MatchKind.EXACT, said.exact, ignore_case)
    if said.prefix is not None:
        return TextMatch(MatchKind.PREFIX, said.prefix, ignore_case)
    if said.regex is not None:
        return TextMatch(MatchKind.REGEX, said.regex, ignore_case)
    return TextMatch(MatchKind.PRESENT)
