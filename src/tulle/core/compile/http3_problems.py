"""Where HTTP/3 is asked for in vain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.api.object import Object
from tulle.core.compile.gateway_udp import udp_bound
from tulle.core.compile.gateway_workloads import bound_port
from tulle.core.compile.hostname import Key
from tulle.core.compile.http3 import ANNOTATION, asks_http3, no_http3
from tulle.core.compile.mistakes import error, warning
from tulle.core.flow import Fetch
from tulle.core.model.gateway import ServerTls
from tulle.kit.problem import Problem

_PATH = f'metadata.annotations["{ANNOTATION}"]'


class Https(msgspec.Struct, frozen=True):
    """A listener or server whose TLS ends at a gateway: the field that says how, and its port as clients know it."""

    path: str
    port: int
    tls: ServerTls


def http3_problems(fetch: Fetch, row: Object, workloads: tuple[Key, ...], https: Iterable[Https]) -> Iterator[Problem]:
    """What is wrong with the wish of an object with these listeners, at these gateway workloads."""
    said = row.metadata.annotations.get(ANNOTATION, "false")
    if said not in ("true", "false"):
        yield error(row.ref, _PATH, "BadAnnotation", f'found "{said}"; needed "true" or "false"')
    if not asks_http3(row):
        return
    there = list(https)
    if not there:
        message = "HTTP/3 is asked for, and no listener is there for it; needed one of protocol HTTPS with a certificate"
        yield warning(row.ref, _PATH, "QuicNotServed", message)
    for one in there:
        for why in sorted({_why_not(fetch, workload, one) for workload in workloads} - {""}):
            yield warning(row.ref, one.path, "QuicNotServed", f"HTTP/3 is asked for, and not spoken here: {why}")


def _why_not(fetch: Fetch, workload: Key, one: Https) -> str:
    port = bound_port(fetch, workload, one.port)
    if port in {bound.port for bound in fetch(udp_bound, workload) or ()}:
        return f"a UDPRoute has port {one.port} of UDP"
    return no_http3(fetch, workload, one.tls)
