"""WorkloadEntry, and the Services that select it → a workload: what its proxy's own listeners need to know."""

from __future__ import annotations

from tulle.core.compile.callers import caller_labels
from tulle.core.compile.endpoints import identity_of, instance
from tulle.core.compile.gateway_listeners import gateway_listeners
from tulle.core.compile.hostname import Key
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import (
    CAPTURE,
    IPV6,
    NODE,
    PROXY_PORTS,
    app_ports,
    has_proxy,
    json_note,
    labels_of,
    settled,
    workload_entries,
)
from tulle.core.compile.services import service
from tulle.core.compile.sidecars import ingress, registry_only, sidecar_of
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.service import Protocol
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
        listeners=fetch(gateway_listeners, key) or () if gateway else (),
        registry_only=not gateway and registry_only(fetch, sidecar_of(fetch, key)),
        callers=() if gateway else fetch(caller_labels, key) or (),
    )


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
    if (listeners := ingress(sidecar_of(fetch, key))) is not None:
        ports = (InboundPort(number, app, protocol, said.of(number, app)) for number, app, protocol in listeners)
        return tuple(sorted(ports))
    found: dict[int, InboundPort] = {}
    for one in fetch(services_of, key) or ():
        row = fetch(service, one)
        for port in row.ports if row else ():
            number = here.port(port)
            app_port = inside.get(number, number)
            if number not in found or found[number].protocol is Protocol.AUTO:
                found[number] = InboundPort(number, app_port, port.protocol, said.of(number, app_port))
    return tuple(sorted(found.values()))
