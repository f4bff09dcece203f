"""What a route names as its destination → a destination, or the sentence that says why there is none."""

from __future__ import annotations

from tulle.api.gateway.shared import BackendObjectRef
from tulle.core.compile.backend_tls import backend_tls
from tulle.core.compile.destination_rules import policy, subset_labels
from tulle.core.compile.grants import granted, no_grant
from tulle.core.compile.hostname import Key, full_name, shown
from tulle.core.compile.mistakes import error, meant, no_service
from tulle.core.compile.services import called as meant_by
from tulle.core.compile.services import service
from tulle.core.flow import Fetch
from tulle.core.model.destination import DestinationKey
from tulle.core.model.service import Protocol, ServicePort
from tulle.kit.problem import Problem, Ref

# A destination, or what is wrong with it.
Found = DestinationKey | Problem


def find(fetch: Fetch, ref: Ref, path: str, host: str, port: int | None, subset: str, called: int) -> Found:
    """The destination that a VirtualService's `destination` at `path` means.

    `port` None: the Service's only port, else the port at which the caller `called` (0: any).
    """
    key = meant_by(fetch, host, ref.namespace)
    row = fetch(service, key) if key else None
    if key is None or row is None:
        message = no_service(fetch, key) if key else f"found {host}; needed the host of a Service of the mesh"
        return error(ref, f"{path}.host", "HostNotFound", message)
    numbers = [one.number for one in row.ports]
    if port is None:
        if len(numbers) == 1:
            port = numbers[0]
        elif called in numbers:
            port = called
        else:
            message = f"{shown(key)} has several ports; needed port.number, one of {_list(numbers)}"
            return error(ref, f"{path}.port", "PortRequired", message)
    elif port not in numbers:
        return error(ref, f"{path}.port.number", "PortNotFound", no_port(key, port, numbers))
    if subset:
        known = fetch(subset_labels, key) or {}
        if subset not in known:
            has = f"it has {_list(sorted(known))}" if known else "it has none"
            of = shown(key).removeprefix("Service ")
            message = f"no DestinationRule defines subset {subset} of {of}; {has}{meant(subset, known)}"
            return error(ref, f"{path}.subset", "SubsetNotFound", message)
    return DestinationKey(full_name(key), port, subset)


def refer(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str) -> Found:
    """The destination that a backendRef at `path` of an HTTPRoute means."""
    found = _port(fetch, ref, backend, path)
    if isinstance(found, Problem):
        return found
    key, port = found
    if port.protocol is Protocol.TLS and not _originated(fetch, (key, port.number)):
        message = f"port {port.number} of Service {key[0]}/{key[1]} is declared as TLS, and nothing says how to speak it"
        return error(ref, f"{path}.port", "UnsupportedProtocol", f"{message}; needed a BackendTLSPolicy, or a port of HTTP")
    return DestinationKey(full_name(key), port.number)


def _originated(fetch: Fetch, key: tuple[Key, int]) -> bool:
    """Whether a BackendTLSPolicy or a DestinationRule says with what TLS a port is spoken to."""
    said = fetch(policy, (*key, ""))
    return fetch(backend_tls, key) is not None or (said is not None and said.tls is not None)


def tcp(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str) -> Found:
    """The destination that a backendRef at `path` of a TLSRoute or TCPRoute means: bytes go to a port of any protocol."""
    found = _port(fetch, ref, backend, path)
    return found if isinstance(found, Problem) else DestinationKey(full_name(found[0]), found[1].number)


def _port(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str) -> tuple[Key, ServicePort] | Problem:
    """The Service and its port that a backendRef names and may name."""
    key = target(fetch, ref, backend, path)
    if isinstance(key, Problem):
        return key
    row = fetch(service, key)
    if row is None:
        return error(ref, f"{path}.name", "BackendNotFound", no_service(fetch, key))
    port = row.port(backend.port) if backend.port is not None else None
    if port is None:
        return error(ref, f"{path}.port", "PortNotFound", no_port(key, backend.port or 0, [one.number for one in row.ports]))
    return key, port


def target(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str) -> Key | Problem:
    """The Service that a backendRef at `path` of a route names and may name, whether or not it is there."""
    if (backend.group, backend.kind) != ("", "Service"):
        kind = f"{backend.kind}.{backend.group}" if backend.group else backend.kind
        return error(ref, f"{path}.kind", "InvalidKind", f"found {kind}; needed a Service")
    key = (backend.namespace or ref.namespace, backend.name)
    if not granted(fetch, ref.kind, ref.namespace, "Service", key):
        return error(ref, f"{path}.namespace", "RefNotPermitted", no_grant(ref.kind, ref.namespace, "Service", key))
    return key


def no_port(key: Key, port: int, numbers: list[int]) -> str:
    """`9999 is not a port of Service shop/cart; it has 80, 8080`."""
    return f"{port} is not a port of {shown(key)}; it has {_list(numbers) or 'none'}"


def _list(values: list[int] | list[str]) -> str:
    return ", ".join(str(value) for value in values)
