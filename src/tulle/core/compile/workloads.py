"""WorkloadEntry, and the Services that select it → a workload: what its proxy's own listeners need to know."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tulle.api.istio.sidecar import IngressListener
from tulle.core.compile.callers import Source, caller_labels
from tulle.core.compile.counters import connections_at, counted_listeners, counter
from tulle.core.compile.egress import RESERVED, own_egress
from tulle.core.compile.endpoints import Instance, identity_of, instance
from tulle.core.compile.federation import believed
from tulle.core.compile.gateway_listeners import gateway_listeners
from tulle.core.compile.gateway_udp import udp_listeners
from tulle.core.compile.guards import guard, guarded_listeners, is_guarded
from tulle.core.compile.handshakes import mesh_mtls
from tulle.core.compile.hostname import Key
from tulle.core.compile.istio_tls import ENDED_BY_SIDECARS, served
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import settled, workload_entries
from tulle.core.compile.proxy_settings import edge, limits
from tulle.core.compile.revoked import Revoked, revoked
from tulle.core.compile.route_limits import counted, counted_in_mesh, gateway_limited
from tulle.core.compile.services import service
from tulle.core.compile.sidecars import behind, inbound_pool, ingress, protocol_of, registry_only, sidecar_of
from tulle.core.compile.telemetry import telemetry_at, told_listeners
from tulle.core.compile.unknown import egress_proxy
from tulle.core.compile.workload_notes import CAPTURE, IPV6, NODE, PROXY_PORTS, app_ports, has_proxy, json_note, labels_of
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.authorization import OPEN
from tulle.core.model.edge import ENVOYS_LIMITS, NOBODY_IN_FRONT
from tulle.core.model.gateway import GatewayListener, UdpListener
from tulle.core.model.handshake import USUAL
from tulle.core.model.rate_limit import NO_ROUTES
from tulle.core.model.service import Protocol
from tulle.core.model.tcp_route import Carriage
from tulle.core.model.workload import Capture, InboundPort, ProxyPorts, Workload


@table
def workload(fetch: Fetch, key: Key) -> Workload | None:
    """A workload that has a proxy."""
    entry = fetch(workload_entries, key)
    if entry is None or not has_proxy(entry):
        return None
    notes = entry.metadata.annotations
    said = notes.get(CAPTURE, Capture.NETNS)
    capture = Capture(said) if said in set(Capture) else Capture.NETNS
    gateway = capture is Capture.NONE
    return Workload(
        id=f"{key[0]}/{key[1]}",
        namespace=key[0],
        name=key[1],
        identity=identity_of(entry, settled(fetch).trust_domain),
        address=entry.spec.address,
        node=notes.get(NODE, ""),
        labels=labels_of(entry),
        capture=capture,
        ports=json_note(entry, PROXY_PORTS, ProxyPorts) or ProxyPorts(),
        mtls=(fetch(modes, key) or Modes()).default,
        inbound=() if gateway else fetch(inbound, key) or (),
        ipv6=notes.get(IPV6) == "true",
        listeners=_listeners(fetch, key) if gateway else (),
        udp=_udp(fetch, key) if gateway else (),
        registry_only=not gateway and registry_only(fetch, sidecar_of(fetch, key)),
        unknown=None if gateway else egress_proxy(fetch, sidecar_of(fetch, key)),
        callers=() if gateway else fetch(caller_labels, key) or (),
        limits=counted(fetch(limits, key) or ENVOYS_LIMITS, _counted(fetch, key, gateway)),
        edge=fetch(edge, key) or NOBODY_IN_FRONT if gateway else NOBODY_IN_FRONT,
        handshake=fetch(mesh_mtls, None) or USUAL,
        guard=OPEN if gateway else fetch(guard, (key, "")) or OPEN,
        cut=(fetch(revoked, None) or Revoked()).cut,
        egress=() if gateway else own_egress(fetch, key, Source(key[0], fetch(caller_labels, key) or ())),
        telemetry=telemetry_at(fetch, key),
        believes=believed(fetch),
    )


def _counted(fetch: Fetch, key: Key, gateway: bool) -> bool | None:
    """Whether a route of the workload may have a limit."""
    return fetch(gateway_limited, key) != NO_ROUTES if gateway else fetch(counted_in_mesh, None)


def _listeners(fetch: Fetch, key: Key) -> tuple[GatewayListener, ...]:
    """What a gateway binds."""
    found: tuple[GatewayListener, ...] | None = fetch(gateway_listeners, key)
    return told_listeners(fetch, key, guarded_listeners(fetch, key, counted_listeners(fetch, key, found or ())))


def _udp(fetch: Fetch, key: Key) -> tuple[UdpListener, ...]:
    """What a gateway forwards as UDP; nothing where a policy guards the port, for nobody could ask it of a packet."""
    found: tuple[UdpListener, ...] | None = fetch(udp_listeners, key)
    return tuple(one for one in found or () if not is_guarded(fetch, key, one.port))


def _called(fetch: Fetch, key: Key, here: Instance) -> dict[int, str]:
    """The oldest service that calls a workload at each of its ports."""
    found: dict[int, str] = {}
    for one in fetch(services_of, key) or ():
        row = fetch(service, one)
        for port in row.ports if row else ():
            found.setdefault(here.port(port), row.hostname if row else "")
    return found


@table
def inbound(fetch: Fetch, key: Key) -> tuple[InboundPort, ...]:
    """The ports on which services call a workload, or those that its Sidecar says.

    Where two services call one port, a declared protocol counts, then the age.
    """
    here, entry = fetch(instance, key), fetch(workload_entries, key)
    if here is None or entry is None:
        return ()
    said = fetch(modes, key) or Modes()
    inside = app_ports(entry)
    sidecar = sidecar_of(fetch, key)

    def port_of(number: int, app_port: int, protocol: Protocol) -> InboundPort:
        mode, before = said.of(number, app_port), fetch(guard, (key, str(number))) or OPEN
        told = telemetry_at(fetch, key, str(number)).server
        found = InboundPort(number, app_port, protocol, mode, before, service=called.get(number, ""), telemetry=told)
        if counts := connections_at(fetch, key, str(number)):
            found = msgspec.structs.replace(found, connection_counters=counts)
        if protocol.may_be_http:
            found = msgspec.structs.replace(found, counter=counter(fetch, key, str(number)))
        if (pool := inbound_pool(sidecar, number)) is None:
            return found
        carriage = Carriage(idle_timeout=pool.tcp_idle_timeout, max_duration=pool.connections.max_duration)
        timeout = pool.connect_timeout if pool.connect_timeout is not None else found.connect_timeout
        return msgspec.structs.replace(
            found, connections=pool.connections, requests=pool.requests, carriage=carriage, connect_timeout=timeout
        )

    called = _called(fetch, key, here)
    if (listeners := ingress(sidecar)) is not None:
        made = (_listened(fetch, key, one, port_of, here.address) for one in listeners)
        return tuple(sorted(made, key=lambda one: one.port))
    found: dict[int, InboundPort] = {}
    for one in fetch(services_of, key) or ():
        row = fetch(service, one)
        for port in row.ports if row else ():
            number = here.port(port)
            app_port = inside.get(number, number)
            if number not in found or found[number].protocol is Protocol.AUTO:
                found[number] = port_of(number, app_port, port.protocol)
    return tuple(found[number] for number in sorted(found))


def _listened(
    fetch: Fetch, key: Key, one: IngressListener, port_of: Callable[[int, int, Protocol], InboundPort], address: str
) -> InboundPort:
    """A port as an ingress listener of a Sidecar says: where the application is, where calls come in, and in which TLS."""
    host, app_port, path = behind(one, address)
    protocol = protocol_of(one)
    tls = None
    if one.tls is not None and one.tls.mode in ENDED_BY_SIDECARS:
        # What HTTPS or TLS is outside is HTTP, or bytes, once it has ended here.
        protocol = {"HTTPS": Protocol.HTTP, "TLS": Protocol.TCP}.get(one.port.protocol.upper(), protocol)
        tls = served(fetch, one.tls, key[0], http=protocol.is_http)
    found = port_of(one.port.number, app_port, protocol)
    bound = one.capture_mode == "NONE" and one.port.number not in RESERVED
    return msgspec.structs.replace(
        found, host=host, path=path, tls=tls, at="" if bound else one.bind, bind=(one.bind or address) if bound else ""
    )
