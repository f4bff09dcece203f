"""What a route names as its destination → a destination, or the sentence that says why there is none."""

from __future__ import annotations

from tulle.api.gateway.shared import BackendObjectRef
from tulle.core.compile.backend_tls import backend_tls
from tulle.core.compile.destination_rules import policy, subset_labels
from tulle.core.compile.exports import EXPORT_TO
from tulle.core.compile.grants import granted, no_grant
from tulle.core.compile.hostname import Key, full_name, shown
from tulle.core.compile.mistakes import error, meant, no_service
from tulle.core.compile.services import called as meant_by
from tulle.core.compile.services import service
from tulle.core.flow import Fetch
from tulle.core.model.destination import DestinationKey
from tulle.core.model.service import Protocol, Service, ServicePort
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
    if not row.seen_from(ref.namespace):
        return error(ref, f"{path}.host", "NotExported", not_exported(key, row, ref.namespace))
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
        return _unspoken(ref, key, port.number, path)
    return DestinationKey(full_name(key), port.number)


def authorizer(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str, grpc: bool) -> Found:
    """The destination that a backendRef at `path` means which is asked whether requests may pass."""
    found = refer(fetch, ref, backend, path)
    if isinstance(found, Problem):
        return found
    return asked(fetch, ref, found, path, grpc=grpc)


def asked(fetch: Fetch, ref: Ref, found: DestinationKey, path: str, *, grpc: bool) -> Found:
    """A destination that is asked whether requests may pass, where its port speaks what that needs."""
    key = meant_by(fetch, found.hostname, ref.namespace)
    row = fetch(service, key) if key else None
    port = row.port(found.port) if row else None
    if key is None or port is None:
        return found
    if port.protocol is Protocol.TLS and not _originated(fetch, (key, port.number)):
        return _unspoken(ref, key, port.number, path)
    if grpc and port.protocol not in (Protocol.GRPC, Protocol.HTTP2):
        message = f"port {port.number} of {shown(key)} is not declared as gRPC, and is called in HTTP/1"
        return error(ref, f"{path}.port", "UnsupportedProtocol", f"{message}; needed a port with appProtocol: grpc")
    return found


def _unspoken(ref: Ref, key: Key, port: int, path: str) -> Problem:
    message = f"port {port} of {shown(key)} is declared as TLS, and nothing says how to speak it"
    return error(ref, f"{path}.port", "UnsupportedProtocol", f"{message}; needed a BackendTLSPolicy, or a port of HTTP")


def _originated(fetch: Fetch, key: tuple[Key, int]) -> bool:
    """Whether a BackendTLSPolicy or a DestinationRule says with what TLS a port is spoken to."""
    said = fetch(policy, (*key, ""))
    return fetch(backend_tls, key) is not None or (said is not None and said.tls is not None)


def tcp(fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str) -> Found:
    """The destination that a backendRef at `path` of a TLSRoute or TCPRoute means: bytes go to a port of any protocol.

    That of a UDPRoute is a UDP port.
    """
    found = _port(fetch, ref, backend, path, udp=ref.kind == "UDPRoute")
    return found if isinstance(found, Problem) else DestinationKey(full_name(found[0]), found[1].number)


def _port(
    fetch: Fetch, ref: Ref, backend: BackendObjectRef, path: str, *, udp: bool = False
) -> tuple[Key, ServicePort] | Problem:
    """The Service and its port that a backendRef names and may name."""
    key = target(fetch, ref, backend, path)
    if isinstance(key, Problem):
        return key
    row = fetch(service, key)
    if row is None:
        return error(ref, f"{path}.name", "BackendNotFound", no_service(fetch, key))
    if not row.seen_from(ref.namespace):
        return error(ref, f"{path}.name", "NotExported", not_exported(key, row, ref.namespace))
    number = backend.port or 0
    port = row.datagrams(number) if udp else row.port(number)
    if port is None:
        transport, numbers = ("UDP ", row.udp) if udp else ("", row.ports)
        return error(ref, f"{path}.port", "PortNotFound", no_port(key, number, [one.number for one in numbers], transport))
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


def not_exported(key: Key, row: Service, namespace: str) -> str:
    """Why a namespace's routes cannot name a Service."""
    where = "spec.exportTo" if row.entry else f"annotation {EXPORT_TO}"
    return f"{shown(key)} is not exported to namespace {namespace}; needed that, or *, in its {where}"


def no_port(key: Key, port: int, numbers: list[int], transport: str = "") -> str:
    """`9999 is not a port of Service shop/cart; it has 80, 8080`."""
    return f"{port} is not a {transport}port of {shown(key)}; it has {_list(numbers) or 'none'}"


def _list(values: list[int] | list[str]) -> str:
    return ", ".join(str(value) for value in values)
