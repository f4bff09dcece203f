"""What an application says of itself, where `prometheus.io` annotations of its workload say that it does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

import aiohttp
import msgspec

from tulle.node.network import Sandbox, SocketSpec

SCRAPE, PORT, PATH_, SCHEME = (f"prometheus.io/{word}" for word in ("scrape", "port", "path", "scheme"))
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=1)
_MOST = 4 << 20  # bytes


class Exposition(msgspec.Struct, frozen=True):
    """Where an application's metrics are."""

    port: int
    path: str = "/metrics"


def exposition(annotations: Mapping[str, str], ports: tuple[int, ...] = ()) -> Exposition | None:
    """As Kubernetes' users annotate pods; the port is the first one that the workload declares where none is said."""
    if annotations.get(SCRAPE) != "true":
        return None
    said = annotations.get(PORT, "")
    port = int(said) if said.isascii() and said.isdigit() else next(iter(ports), 80)
    path = annotations.get(PATH_, "") or "/metrics"
    return Exposition(port, path if path.startswith("/") else f"/{path}") if 0 < port < 65536 else None


async def scraped(box: Sandbox, where: Exposition) -> str:
    """The application's own metrics, asked where it runs, so that nothing captured stands between; "" where it has none."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError):
        (made,) = await box.sockets(SocketSpec("tcp"))
        connector = aiohttp.TCPConnector(socket_factory=lambda _address: made)
        url = f"http://127.0.0.1:{box.app_ports.get(where.port, where.port)}{where.path}"
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            session.get(url, headers={"Accept": _ACCEPT}) as answer,
        ):
            if answer.status == 200:
                return fitting((await _beginning(answer.content)).decode(errors="replace"))
    return ""


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """What is read of an answer: no more than `_MOST` bytes."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) >= _MOST:
            break
    return bytes(body[:_MOST])


# A line of the text format 0.0.4. Nothing in it is tried twice: it takes a time in proportion to the line.
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*+[ \t]*+=[ \t]*+"(?:[^"\\\n]|\\[\\"n])*+"[ \t]*+'
_LINE = re.compile(
    rf"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*+)(?:[ \t]*+\{{[ \t]*+(?:{_LABEL}(?:,[ \t]*+{_LABEL})*+,?[ \t]*+)?\}}[ \t]*+|[ \t]++)"
    r"(?:[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?|[-+]?[Ii]nf|NaN)(?:[ \t]++-?[0-9]++)?[ \t]*+"
)
_COMMENT = re.compile(r"# (?:TYPE (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) (?:counter|gauge|histogram|summary|untyped)|HELP .*)[ \t]*+")
_OURS = ("istio_", "envoy_", "tulle_")


def fitting(text: str) -> str:
    """What of an application's metrics can stand on a page with others: lines that Prometheus takes, and none under our names.

    One bad line would have Prometheus refuse the whole page; and calls are not counted by those who are called.
    """
    found: list[str] = []
    left_out = 0
    for line in text.split("\n"):
        said = line.rstrip("\r")
        match = _COMMENT.fullmatch(said) if said.startswith("#") else _LINE.fullmatch(said)
        if match is not None and not (match["name"] or "").startswith(_OURS):
            found.append(said)
        elif said.strip() and not said.startswith("#"):
            left_out += 1
    if left_out:
        found += ("# TYPE tulle_application_lines_left_out gauge", f"tulle_application_lines_left_out {left_out}")
    return "".join(f"{line}\n" for line in found)
