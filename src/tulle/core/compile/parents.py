"""Routes of the Gateway API → what became of each of their parentRefs: the listeners that take the route, or why none does.

What is served (`gateway_hosts`), the problems of a route and its status are all read off here.
"""

from __future__ import annotations

import msgspec

from tulle.api.gateway.gateway import Listener
from tulle.api.gateway.shared import GROUP_NAME, ParentRef
from tulle.core.compile.backends import no_port
from tulle.core.compile.gateway_workloads import is_ours
from tulle.core.compile.grants import from_namespace
from tulle.core.compile.hostname import Key, meet
from tulle.core.compile.kinds import L4, RULES
from tulle.core.compile.listeners import KINDS, Fault, gateway_fault, verdicts_of
from tulle.core.compile.mistakes import meant, no_service
from tulle.core.compile.objects import ROUTES, Route, gateways, istio_gateways, listener_sets, parent_key
from tulle.core.compile.places import places
from tulle.core.compile.services import service
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Severity


class Attachment(msgspec.Struct, frozen=True):
    """What became of a parentRef (by its place).

    `ours`: False where another controller answers for the parent. `listeners` are the places of the listeners of its Gateway
    (`places`) that take the route; `fault` says why nothing does, with the field below the route that is wrong.
    """

    index: int
    ours: bool = True
    gateway: Key | None = None
    listeners: tuple[int, ...] = ()
    fault: Fault | None = None


@table
def attachments_of(fetch: Fetch, key: tuple[str, Key]) -> tuple[Attachment, ...]:
    """What became of each parentRef of (kind, route)."""
    kind, name = key
    row = fetch(ROUTES[kind], name)
    if row is None:
        return ()
    return tuple(_attachment(fetch, kind, row, parent, index) for index, parent in enumerate(row.spec.parent_refs))


def _attachment(fetch: Fetch, kind: str, row: Route, parent: ParentRef, index: int) -> Attachment:
    group, parent_kind, namespace, name = parent_key(parent, row.metadata.namespace)
    path = f"spec.parentRefs[{index}]"
    if (group, parent_kind) == ("", "Service"):
        return Attachment(index, fault=_service(fetch, kind, parent, (namespace, name), path))
    if (group, parent_kind) == (GROUP_NAME, "Gateway"):
        return _gateway(fetch, kind, row, parent, (namespace, name), index, path)
    if (group, parent_kind) == (GROUP_NAME, "ListenerSet"):
        return _set(fetch, kind, row, parent, (namespace, name), index, path)
    found = f"{parent_kind}.{group}" if group else parent_kind
    fault = Fault("InvalidKind", f"found {found}; needed a Gateway, or a Service for the mesh", f"{path}.kind")
    return Attachment(index, ours=False, fault=fault)


def _service(fetch: Fetch, kind: str, parent: ParentRef, key: Key, path: str) -> Fault | None:
    called = fetch(service, key)
    if called is None:
        return Fault("NoMatchingParent", no_service(fetch, key), f"{path}.name", "HostNotFound")
    udp = kind == "UDPRoute"
    there = called.udp if udp else called.ports
    port = next((one for one in there if one.number == parent.port), None)
    if parent.port and port is None:
        message = no_port(key, parent.port, [one.number for one in there], "UDP " if udp else "")
        return Fault("NoMatchingParent", message, f"{path}.port", "PortNotFound")
    if udp and not there:
        message = f"Service {key[0]}/{key[1]} has no UDP port; needed one"
        return Fault("NoMatchingParent", message, path, "NoUdpPort", Severity.WARNING)
    ports = [port] if port else called.ports
    if kind in L4 and all(one.protocol.is_http for one in ports):
        which = f"port {parent.port}" if parent.port else "every port"
        message = f"{which} of Service {key[0]}/{key[1]} is declared as HTTP; needed one that is not, or an HTTPRoute"
        return Fault("NoMatchingParent", message, path, "NoTcpPort", Severity.WARNING)
    if kind in RULES and not any(one.protocol.may_be_http for one in ports):
        which = f"port {parent.port}" if parent.port else "no port"
        message = f"{which} of Service {key[0]}/{key[1]} is {'not ' if port else ''}declared as HTTP; needed appProtocol: http"
        return Fault("NoMatchingParent", message, path, "NoHttpPort", Severity.WARNING)
    return None


def _gateway(fetch: Fetch, kind: str, row: Route, parent: ParentRef, key: Key, index: int, path: str) -> Attachment:
    gateway = fetch(gateways, key)
    if gateway is None:
        near = meant(key[1], (other for _space, other in fetch.keys(gateways, "namespace", key[0])))
        if fetch(istio_gateways, key):
            near = "; there is one of networking.istio.io, to which VirtualServices attach"
        fault = Fault("NoMatchingParent", f"no Gateway {key[1]} in namespace {key[0]}{near}", f"{path}.name", "GatewayNotFound")
        return Attachment(index, gateway=key, fault=fault)
    if not fetch(is_ours, gateway.spec.gateway_class_name):
        return Attachment(index, ours=False, gateway=key)
    there = fetch(places, key) or ()
    own = [place for place, one in enumerate(there) if one.set is None]
    found = _listeners(fetch, kind, row, parent, key, own, f"Gateway {key[0]}/{key[1]}", path)
    if isinstance(found, Fault):
        return Attachment(index, gateway=key, fault=found)
    return Attachment(index, gateway=key, listeners=found)


def _set(fetch: Fetch, kind: str, row: Route, parent: ParentRef, key: Key, index: int, path: str) -> Attachment:
    added = fetch(listener_sets, key)
    if added is None:
        near = meant(key[1], (name for space, name in fetch.keys(listener_sets) if space == key[0]))
        return Attachment(
            index, fault=Fault("NoMatchingParent", f"no ListenerSet {key[1]} in namespace {key[0]}{near}", f"{path}.name")
        )
    target = (added.spec.parent_ref.namespace or key[0], added.spec.parent_ref.name)
    gateway = fetch(gateways, target)
    if gateway is not None and not fetch(is_ours, gateway.spec.gateway_class_name):
        return Attachment(index, ours=False, gateway=target)
    shown = f"ListenerSet {key[0]}/{key[1]}"
    there = fetch(places, target) or ()
    own = [place for place, one in enumerate(there) if one.set == key]
    if not own:
        message = f"{shown} is not accepted by its Gateway {target[0]}/{target[1]}"
        return Attachment(index, gateway=target, fault=Fault("NotAllowedByListeners", message, path))
    found = _listeners(fetch, kind, row, parent, target, own, shown, path)
    if isinstance(found, Fault):
        return Attachment(index, gateway=target, fault=found)
    return Attachment(index, gateway=target, listeners=found)


def _listeners(
    fetch: Fetch, kind: str, row: Route, parent: ParentRef, key: Key, own: list[int], shown: str, path: str
) -> tuple[int, ...] | Fault:
    """The listeners of a Gateway of ours, of those that are the parent's `own`, that take the route."""
    there, verdicts = fetch(places, key) or (), fetch(verdicts_of, key) or ()
    listeners = {place: there[place].listener for place in own}
    named = [place for place in own if names(parent, listeners[place])]
    if not named:
        has = ", ".join(f"{listener.name} ({listener.port})" for listener in listeners.values())
        field = "sectionName" if parent.section_name else "port"
        message = f"{parent.section_name or parent.port} is not a listener of {shown}; it has {has}"
        if parent.section_name and parent.port and any(one.name == parent.section_name for one in listeners.values()):
            field, message = "port", f"{parent.port} is not the port of listener {parent.section_name} of {shown}; it has {has}"
        return Fault("NoMatchingParent", message, f"{path}.{field}")
    # The owner of a Gateway that is refused as a whole is told there; the route has no place to be served at.
    if (fault := fetch(gateway_fault, key)) and fault.reason != "ListenersNotValid":
        return Fault("NoMatchingParent", f"{shown} is not accepted: {fault.path}: {fault.message}", path)
    served = [place for place in named if verdicts[place].served]
    if not served:
        first = named[0]
        refused = verdicts[first].refused
        message = f"listener {listeners[first].name} of {shown} is not served: {refused.message if refused else ''}"
        return Fault("NotAllowedByListeners", message, path)
    fitting = [place for place in served if kind in verdicts[place].kinds]
    if not fitting:
        takes = ", ".join(sorted({one for place in served for one in verdicts[place].kinds})) or "nothing"
        why = "" if any(kind in kinds for kinds in KINDS.values()) else f"; {kind}s are not supported yet"
        return Fault("NotAllowedByListeners", f"{shown} takes {takes} there, and no {kind}{why}", path)
    namespace = row.metadata.namespace
    taking = [place for place in fitting if allowed(fetch, listeners[place], there[place].owner[0], namespace)]
    if not taking:
        froms = ", ".join(sorted({listeners[place].allowed_routes.namespaces.from_ for place in fitting}))
        found = f"{shown} takes no {kind}s of namespace {namespace} (allowedRoutes.namespaces.from: {froms})"
        return Fault("NotAllowedByListeners", f"{found}; needed a listener that does", path)
    met = tuple(place for place in taking if hostnames(listeners[place], row))
    if not met:
        has = ", ".join(sorted({host for place in taking if (host := listeners[place].hostname)}))
        message = f"none of them is a hostname of {shown}; it has {has}"
        return Fault("NoMatchingListenerHostname", message, "spec.hostnames")
    return met


def names(parent: ParentRef, listener: Listener) -> bool:
    """Whether a parentRef to a Gateway means this listener of it."""
    return parent.section_name in (None, listener.name) and parent.port in (None, listener.port)


def allowed(fetch: Fetch, listener: Listener, owner: str, namespace: str) -> bool:
    """Whether a listener of a Gateway in the namespace `owner` takes routes of `namespace`."""
    takes = listener.allowed_routes.namespaces
    return from_namespace(fetch, takes.from_, takes.selector, owner, namespace)


def hostnames(listener: Listener, row: Route) -> tuple[str, ...]:
    """The names for which a route counts on a listener: where both have some, what they have in common."""
    said: tuple[str, ...] = getattr(row.spec, "hostnames", ())
    if not said:
        return (listener.hostname or "*",)
    if not listener.hostname:
        return said
    return tuple(common for name in said if (common := meet(listener.hostname, name)) is not None)
