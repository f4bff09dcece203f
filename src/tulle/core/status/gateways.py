"""Gateway of the Gateway API → its status: addresses, and for each listener what became of it and how many routes it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tulle.api.gateway import Gateway
from tulle.api.gateway.shared import GROUP_NAME
from tulle.core.analyze.secrets import not_valid
from tulle.core.compile.client_certificates import client_certificate_fault
from tulle.core.compile.gateway_starts import start_said
from tulle.core.compile.gateway_workloads import chosen_workloads, gateway_address, gateway_workloads, is_ours
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import Fault, Verdict, gateway_fault, verdicts_of
from tulle.core.compile.objects import ROUTES, gateways
from tulle.core.compile.parents import attachments_of
from tulle.core.compile.places import Place, places
from tulle.core.flow import Fetch, table
from tulle.core.status.routes import route_fault
from tulle.core.status.rows import Condition, Part, Status, false, refused, true

_SERVED = "the gateway workload has acknowledged it"


@table
def gateway_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a Gateway; None where its class is another controller's."""
    row = fetch(gateways, key)
    if row is None or not fetch(is_ours, row.spec.gateway_class_name):
        return None
    verdicts = fetch(verdicts_of, key) or ()
    fault = fetch(gateway_fault, key)
    programmed = programmed_of(fetch, key, row, fault)
    fields: dict[str, Any] = {"addresses": [{"type": "IPAddress", "value": one} for one in _addresses(fetch, key, fault)]}
    there = fetch(places, key) or ()
    if row.spec.allowed_listeners is not None:
        accepted = {one.set for one, verdict in zip(there, verdicts, strict=True) if one.set and verdict.served}
        fields["attachedListenerSets"] = len(accepted)
    counts = fetch(attached_counts, key) or ()
    own = [index for index, one in enumerate(there) if one.set is None]
    listeners = tuple(listener_part(fetch, there[index], verdicts[index], counts[index], programmed) for index in own)
    mine = [(there[index], verdicts[index]) for index in own]
    conditions = (_accepted(mine, fault), programmed, _resolved(fetch, row, mine), *_insecure(row))
    return Status(conditions, {"listeners": listeners}, fields)


def listener_part(fetch: Fetch, place: Place, verdict: Verdict, attached: int, programmed: Condition) -> Part:
    """The status of a listener, of a Gateway or a ListenerSet."""
    kinds = [{"group": GROUP_NAME, "kind": kind} for kind in verdict.kinds]
    fields = {"name": place.listener.name, "supportedKinds": kinds, "attachedRoutes": attached}
    return Part(fields, _listener(verdict, references_fault(fetch, verdict), programmed))


def references_fault(fetch: Fetch, verdict: Verdict) -> Fault | None:
    """What is wrong with the references of a listener, be it only at this time: what has ended is served all the same."""
    if verdict.refs is not None or verdict.tls is None:
        return verdict.refs
    for one in verdict.tls.certificates:
        for _kind, namespace, name in one.objects:
            if why := fetch(not_valid, (namespace, name)):
                return Fault("InvalidCertificateRef", f"Secret {namespace}/{name}: {why}; it is served all the same")
    return None


def _insecure(row: Gateway) -> tuple[Condition, ...]:
    """Said where any certificate of a client will do, and none: so the API wants it."""
    frontend = row.spec.tls.frontend if row.spec.tls else None
    said = [one.validation for one in (frontend.default, *(port.tls for port in frontend.per_port))] if frontend else []
    if not any(one and one.mode == "AllowInsecureFallback" for one in said):
        return ()
    return (true("InsecureFrontendValidationMode", "ConfigurationChanged", "clients need no valid certificate everywhere"),)


def _accepted(mine: list[tuple[Place, Verdict]], fault: Fault | None) -> Condition:
    if fault and fault.reason != "ListenersNotValid":
        return refused("Accepted", fault)
    wrong = [f"{place.listener.name}: {verdict.refused.message}" for place, verdict in mine if verdict.refused]
    if not wrong:
        return true("Accepted", message="all listeners are valid")
    # One that cannot be served leaves the others be; where there are no others, the Gateway is nothing.
    return Condition("Accepted", "False" if fault else "True", "ListenersNotValid", "; ".join(wrong))


def programmed_of(fetch: Fetch, key: Key, row: Gateway, fault: Fault | None) -> Condition:
    """Whether the gateway workloads of a Gateway serve it."""
    if fault:
        return false("Programmed", "Invalid", "the Gateway is not accepted")
    chosen = fetch(chosen_workloads, key) or ()
    there = {fetch(gateway_address, one) for one in chosen}
    wanted = [address.value for address in row.spec.addresses if address.value]
    unusable = [address for address in wanted if address not in there]
    if unusable:
        starting = start_said(fetch, key)
        message = f"no gateway workload has the address {', '.join(unusable)}; needed an address of one"
        return false("Programmed", "AddressNotUsable", f"{message}; {starting}" if starting else message)
    if not chosen:
        if starting := start_said(fetch, key):
            return false("Programmed", "NoResources", f"no gateway workload serves it: {starting}")
        none = "no workload is a gateway" if not fetch(gateway_workloads, None) else "no gateway workload is labelled"
        return false("Programmed", "NoResources", f"{none} istio: ingressgateway; start one")
    if not any(there):
        return false("Programmed", "AddressNotAssigned", "no gateway workload has an IP address")
    return true("Programmed", message=_SERVED, waits=tuple(f"{namespace}/{name}" for namespace, name in chosen))


def _addresses(fetch: Fetch, key: Key, fault: Fault | None) -> Iterator[str]:
    """The addresses at which a Gateway is served, at most 16."""
    found = {fetch(gateway_address, one) or "" for one in fetch(chosen_workloads, key) or ()} - {""}
    yield from () if fault else sorted(found)[:16]


def _resolved(fetch: Fetch, row: Gateway, mine: list[tuple[Place, Verdict]]) -> Condition:
    fault = fetch(client_certificate_fault, (row.metadata.namespace, row.metadata.name))
    if fault:
        reason = "RefNotPermitted" if fault.reason == "RefNotPermitted" else "InvalidClientCertificateRef"
        return false("ResolvedRefs", reason, f"{fault.path}: {fault.message}")
    wrong = [place.listener.name for place, verdict in mine if references_fault(fetch, verdict)]
    if wrong:
        return false("ResolvedRefs", "ListenersNotResolved", f"see the listeners {', '.join(wrong)}")
    return true("ResolvedRefs", message="all references were found and are permitted")


def _listener(verdict: Verdict, refs: Fault | None, programmed: Condition) -> tuple[Condition, ...]:
    conflicted = false("Conflicted", "NoConflicts", "no other listener is in its way")
    if verdict.conflict:
        conflicted = true("Conflicted", verdict.conflict.reason, verdict.conflict.message)
    resolved = true("ResolvedRefs", message="all references were found and are permitted")
    accepted = true("Accepted", message="the listener is valid")
    if verdict.refused:
        accepted = refused("Accepted", verdict.refused)
        programmed = false("Programmed", "Invalid", "the listener is not accepted")
    elif verdict.broken:
        programmed = false("Programmed", "Invalid", "it has no certificate that could be served")
    overlapping: tuple[Condition, ...] = ()
    if verdict.overlap and verdict.bound:
        message = (
            f"some of its hostnames are those of {verdict.overlap} too; a request that comes by the wrong one is answered 421"
        )
        overlapping = (true("OverlappingTLSConfig", "OverlappingHostnames", message),)
    return accepted, conflicted, refused("ResolvedRefs", refs) if refs else resolved, programmed, *overlapping


@table
def attached_counts(fetch: Fetch, key: Key) -> tuple[int, ...]:
    """How many accepted routes, of all kinds, each listener of a Gateway has, by its place."""
    there = fetch(places, key) or ()
    counts = [0] * len(there)
    owners = {(one.kind, *one.owner) for one in there}
    for kind, source in ROUTES.items():
        for route in {route for owner in sorted(owners) for route in fetch.keys(source, "parent", (GROUP_NAME, *owner))}:
            if fetch(route_fault, (kind, route)):
                continue
            attached = fetch(attachments_of, (kind, route)) or ()
            for index in {index for one in attached if one.gateway == key for index in one.listeners}:
                counts[index] += 1
    return tuple(counts)
