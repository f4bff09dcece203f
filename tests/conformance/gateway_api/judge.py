"""Whether an answer is what a row expects, by the rules of upstream's suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

Raw = dict[str, Any]

REDIRECTS = (301, 302, 303, 307, 308)
FAILURES = (500, 502, 503)


class Got(NamedTuple):
    """An answer over HTTP; `body` is what the echo said, where it was reached. Status 0 and `error`: there was none."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: Raw | None = None
    error: str = ""


class Sent(NamedTuple):
    """What was asked: the scheme and path that a redirect keeps where the row says nothing else."""

    scheme: str
    path: str


def compare(row: Raw, sent: Sent, got: Got) -> str:
    """What is wrong; "" where nothing is."""
    response = row.get("Response") or {}
    wanted = response.get("StatusCodes") or [response.get("StatusCode") or 200]
    if got.status not in wanted:
        return f"status {got.status}{got.error and f' ({got.error})'}, needed {' or '.join(map(str, wanted))}"
    if got.status == 200:
        return _echoed(row, got) or _headers("response", _joined(got.headers), response, response)
    if got.status in REDIRECTS and row.get("RedirectRequest"):
        return _redirect(row["RedirectRequest"], sent, _joined(got.headers).get("location", ""))
    return ""


def _echoed(row: Raw, got: Got) -> str:
    """What the pod saw; the request itself where the row does not say what should have become of it."""
    body = got.body
    if body is None:
        return "the answer is not the echo's"
    request = row.get("Request", {})
    expected = row.get("ExpectedRequest") or {"Request": request}
    seen = {"Path": "/", **expected.get("Request", {})}
    pairs = [
        ("path", body["path"], seen["Path"]),
        ("method", body["method"], seen.get("Method") or "GET"),
        ("namespace", body["namespace"], row.get("Namespace") or body["namespace"]),
        ("host", body["host"], seen.get("Host") or body["host"]),
        ("SNI", (body.get("tls") or {}).get("serverName", ""), seen.get("SNI") or (body.get("tls") or {}).get("serverName", "")),
    ]
    for what, found, needed in pairs:
        if found != needed:
            return f"{what} {found!r}, needed {needed!r}"
    if not body["pod"].startswith(row.get("Backend") or ""):
        return f"pod {body['pod']}, needed {row['Backend']}"
    if request.get("Protocol", "").startswith("H2C") and body["proto"] != "HTTP/2.0":
        return f"protocol {body['proto']}, needed HTTP/2.0"
    headers = {name.lower(): ",".join(values) for name, values in body["headers"].items()}
    return _headers("request", headers, seen, expected)


def _headers(what: str, found: Mapping[str, str], present: Raw, absent: Raw) -> str:
    for name, needed in (present.get("Headers") or {}).items():
        if found.get(name.lower()) != needed:
            return f"{what} header {name} {found.get(name.lower())!r}, needed {needed!r}"
    for name in absent.get("AbsentHeaders") or ():
        if name.lower() in found:
            return f"{what} header {name} {found[name.lower()]!r}, needed none"
    return ""


def _joined(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _redirect(needed: Raw, sent: Sent, location: str) -> str:
    url = urlsplit(location)
    scheme, port = url.scheme or sent.scheme, str(url.port or "")
    pairs = [
        ("scheme", scheme, needed.get("Scheme") or sent.scheme),
        ("host", url.hostname or "", needed.get("Host") or url.hostname or ""),
        ("path", url.path, needed.get("Path") or sent.path.partition("?")[0]),
    ]
    for what, found, wanted in pairs:
        if found != wanted:
            return f"redirect to {what} {found!r}, needed {wanted!r} ({location})"
    if not needed.get("Port"):
        known = {"http": "80", "https": "443"}[scheme]
        return "" if port in ("", known) else f"redirect to port {port}, needed {known} or none ({location})"
    return "" if port == needed["Port"] else f"redirect to port {port or 'none'}, needed {needed['Port']} ({location})"
