"""Which virtual host of a table a request is for."""

from __future__ import annotations

from collections.abc import Iterable

from tulle.core.model.route import RouteTableKey, VirtualHost


def choose_host(key: RouteTableKey, hosts: Iterable[VirtualHost], authority: str) -> tuple[VirtualHost, str] | None:
    """The virtual host, and the domain by which it was found.

    The whole name goes before wildcards, a longer wildcard before a shorter one, `*.example` before `example.*`, `*` last. The
    port that the client wrote counts only in the table of all ports.
    """
    name = authority.lower()
    if key.port:
        name = without_port(name)
    best: tuple[tuple[int, int], VirtualHost, str] | None = None
    for host in hosts:
        for domain in host.domains:
            rank = _rank(domain.lower(), name)
            if rank is not None and (best is None or rank < best[0]):
                best = rank, host, domain
    return best[1:] if best else None


def _rank(domain: str, name: str) -> tuple[int, int] | None:
    if domain == name:
        return 0, 0
    if domain == "*":
        return 3, 0
    if len(name) < len(domain):
        return None  # a wildcard stands for one character at least
    if domain.startswith("*") and name.endswith(domain[1:]):
        return 1, -len(domain)
    if domain.endswith("*") and name.startswith(domain[:-1]):
        return 2, -len(domain)
    return None


def without_port(authority: str) -> str:
    """`reviews:9080` → `reviews`; `[::1]:80` → `[::1]`."""
    name, colon, port = authority.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return authority
    return authority if ":" in name and not name.endswith("]") else name
