"""Host names: which service a host in an object means, what callers may call it, and which of two names is the more specific.

Services are known by their host names, whatever object brought them. A service's `Key` is its full host name taken apart, so that
keys and host names are one thing in two forms: `(namespace, name)` for names of the cluster's domain, which is what a Service
object's are, and `("", host)` for all others, which are hosts of ServiceEntries.
"""

from __future__ import annotations

import functools
import ipaddress

# An object's (namespace, name); a service's host name taken apart.
Key = tuple[str, str]

DOMAIN = "svc.cluster.local"


def full_name(key: Key) -> str:
    """`reviews.default.svc.cluster.local`, `httpbin.org`."""
    return f"{key[1]}.{key[0]}.{DOMAIN}" if key[0] else key[1]


def shown(key: Key) -> str:
    """A service as messages name it: `Service default/reviews`, or the host itself."""
    return f"Service {key[0]}/{key[1]}" if key[0] else key[1]


def entry_key(host: str, namespace: str) -> Key:
    """The service that a host of a ServiceEntry in `namespace` is; one with a single part, or that ends in `.svc`, is short."""
    parts = host.lower().rstrip(".").split(".")
    if len(parts) == 1 and parts[0] != "*":
        return namespace, parts[0]
    if ".".join(parts[2:]) in ("svc", DOMAIN) and "*" not in parts:
        return parts[1], parts[0]
    return "", ".".join(parts)


@functools.lru_cache(maxsize=16384)
def meanings(host: str, namespace: str) -> tuple[Key, ...]:
    """The services that a host may mean to an object of `namespace`, the first that is there counts; none for an address.

    `reviews`, `reviews.shop`, `reviews.shop.svc` and `reviews.shop.svc.cluster.local` are names of the cluster, as they resolve
    in Kubernetes; a name of two parts is one of the internet where there is no such Service.
    """
    if is_address(host):
        return ()
    name = host.lower().rstrip(".")
    parts = name.split(".")
    if len(parts) == 2 and "*" not in parts:
        return (parts[1], parts[0]), ("", name)
    return (entry_key(name, namespace),)


def service_key(host: str, namespace: str) -> Key | None:
    """The first of the services that a host may mean, whether or not it exists; None for wildcards and addresses."""
    found = () if host.startswith("*") else meanings(host, namespace)
    return found[0] if found else None


def short_names(key: Key, viewer: str) -> tuple[str, ...]:
    """Every name by which callers in the namespace `viewer` may call a service, the full one last."""
    namespace, name = key
    if not namespace:
        return (name,)
    own = (name,) if namespace == viewer else ()
    return *own, f"{name}.{namespace}", f"{name}.{namespace}.svc", full_name(key)


@functools.lru_cache(maxsize=65536)
def is_address(host: str) -> bool:
    """Whether the host is an IP address."""
    if ":" not in host and not host[-1:].isdigit():  # nearly every name, of which there may be more than are kept here
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def tells_tls(host: str) -> bool:
    """Whether TLS can be told by a host: a proxy compares server names whole, or by whole labels behind a wildcard."""
    return not host.startswith("*") or host == "*" or host.startswith("*.")


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
