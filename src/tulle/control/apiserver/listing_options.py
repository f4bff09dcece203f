"""What a GET of a collection asks for: how fresh, from where to where, as a list or as a watch. Kubernetes' `ListOptions`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tulle.control.apiserver import errors
from tulle.control.apiserver.target import Target, flag, number
from tulle.ports import Key

_VERSION = "meta.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Continue:
    """Where a list goes on: after the key `after`, as of revision `at` (None: as it is now, after `at` was compacted)."""

    at: int | None
    after: Key


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`at`: the exact revision, None for now. `least`: the revision that must have been reached (0: any)."""

    limit: int = 0
    at: int | None = None
    least: int = 0
    start: Continue | None = None


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """`since`: events after this revision, None for from now on; `state`: what is there comes first, as events.

    `marked`: a bookmark tells where the state ends. `bookmarks`: an idle watch hears of revisions. `seconds`: 0 where not asked.
    """

    since: int | None
    state: bool
    marked: bool
    bookmarks: bool
    seconds: float


def listing(query: Mapping[str, str], target: Target) -> ListOptions:
    """The options of a list. Raises a `Denial`."""
    text, match, token = query.get("resourceVersion", ""), query.get("resourceVersionMatch", ""), query.get("continue", "")
    limit = max(0, number(query, "limit"))
    number(query, "timeoutSeconds")  # for watches only, but not anything
    if "sendInitialEvents" in query:
        raise _forbidden("sendInitialEvents", "is for watches only")
    if match:
        _match(match, ("Exact", "NotOlderThan"), token)
        if not text:
            raise _forbidden("resourceVersionMatch", "needs a resourceVersion beside it")
        if match == "Exact" and text == "0":
            raise _forbidden("resourceVersionMatch", 'found Exact; needed NotOlderThan for resourceVersion "0"')
    version = resource_version(text)
    if token:
        if version:
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        return ListOptions(limit, start=_continued(token, target))
    # A page of a list at a version is at that version, as clients were used to before they could say so.
    exact = match == "Exact" or (not match and version and limit)
    return ListOptions(limit, version if exact else None, 0 if exact else version)


def watching(query: Mapping[str, str]) -> WatchOptions:
    """The options of a watch. Raises a `Denial`."""
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    asked = "sendInitialEvents" in query
    initial = flag(query, "sendInitialEvents")
    if asked and match != "NotOlderThan":
        raise _forbidden("resourceVersionMatch", "sendInitialEvents needs resourceVersionMatch=NotOlderThan beside it")
    if match:
        if not asked:
            raise _forbidden("resourceVersionMatch", "is for watches with sendInitialEvents only")
        _match(match, ("NotOlderThan",), query.get("continue", ""))
    version = resource_version(text)
    state = initial if asked else not version
    bookmarks = flag(query, "allowWatchBookmarks")
    seconds = float(number(query, "timeoutSeconds"))
    return WatchOptions(version or None, state, initial and bookmarks, bookmarks, seconds)


def _forbidden(field: str, why: str) -> errors.Denial:
    return errors.bad_options("ListOptions", field, f"Forbidden: {field} {why}", "FieldValueForbidden")


def _match(match: str, known: tuple[str, ...], token: str) -> None:
    if match not in known:
        message = f'Unsupported value: "{match}": supported values: {", ".join(known)}'
        raise errors.bad_options("ListOptions", "resourceVersionMatch", message, "FieldValueNotSupported")
    if token:
        raise _forbidden("resourceVersionMatch", "is not for the next page of a list, which is at its first page's version")


def resource_version(text: str) -> int:
    """A resource version; 0 where there is none."""
    if text and (not (text.isascii() and text.isdecimal()) or len(text) > 18):
        raise errors.bad_request(f"invalid resource version: found {text!r}; needed a whole number")
    return int(text or 0)


def continue_token(at: int | None, last: Key) -> str:
    """The token for what comes after `last`, at revision `at` or (None) as it is then."""
    value = {"v": _VERSION, "rv": -1 if at is None else at, "start": f"{last.namespace}/{last.name}"}
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _continued(token: str, target: Target) -> Continue:
    try:
        found = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        namespace, _, name = found["start"].partition("/")
        revision = found["rv"]
        if found["v"] != _VERSION or type(revision) is not int or not -1 <= revision < 10**18 or not revision:
            raise ValueError(token)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise errors.bad_request("continue key is not valid: found something else than a list's own token") from error
    return Continue(None if revision < 0 else revision, Key(target.kind.resource, namespace, name))
