"""Host names: which Service a host in an object means, what callers may call it, and which of two names is the more specific."""

from __future__ import annotations

import functools
import ipaddress

# An object's (namespace, name).
Key = tuple[str, str]

DOMAIN = "svc.cluster.local"


def full_name(key: Key) -> str:
    """`reviews.default.svc.cluster.local`."""
    return f"{key[1]}.{key[0]}.{DOMAIN}"


def service_key(host: str, namespace: str) -> Key | None:
    """The Service that a host means to an object of `namespace`, whether or not it exists; None for a name outside the mesh.

    `reviews`, `reviews.shop`, `reviews.shop.svc` and `reviews.shop.svc.cluster.local` are names of Services, as they resolve in
    Kubernetes. A name of two parts might also be one of the internet; nothing but the Service can tell.
    """
    if host.startswith("*") or is_address(host):
        return None
    parts = host.lower().rstrip(".").split(".")
    if len(parts) == 1:
        return namespace, parts[0]
    if len(parts) == 2 or ".".join(parts[2:]) in ("svc", DOMAIN):
        return parts[1], parts[0]
    return None


def short_names(key: Key, viewer: str) -> tuple[str, ...]:
    """Every name by which callers in the namespace `viewer` may call a Service, the full one last."""
    namespace, name = key
    own = (name,) if namespace == viewer else ()
    return *own, f"{name}.{namespace}", f"{name}.{namespace}.svc", full_name(key)


@functools.lru_cache(maxsize=65536)
def is_address(host: str) -> bool:
    """Whether the host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def covers(pattern: str, host: str) -> bool:
    """Whether a host name, or one with a leading wildcard, holds for `host` (which may have a wildcard itself)."""
    if pattern == "*" or pattern == host:
        return True
    return pattern.startswith("*") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1


def meet(one: str, other: str) -> str | None:
    """The name for which both hold: the more specific of the two, or None."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def specificity(host: str) -> tuple[int, int]:
    """Sorts the most specific first: whole names, then wildcards by length, `*` last."""
    return (1 if host.startswith("*") else 0), -len(host)
