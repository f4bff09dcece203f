"""Gateways of the Gateway API → which are ours, and what is made of each listener: served, or why not.

What a gateway workload binds (`gateways`) and what the listener's status says (`core.status`) are both read off here.
"""

from __future__ import annotations

import msgspec

from tulle.api.gateway import Gateway
from tulle.api.gateway.gateway import FrontendValidation
from tulle.api.gateway.shared import GROUP_NAME, SecretRef
from tulle.core.compile.gateway_secrets import authorities_fault, authorities_ref, pair_fault, pair_ref
from tulle.core.compile.gateway_workloads import bound_port, chosen_workloads, own_ports
from tulle.core.compile.grants import granted, no_grant
from tulle.core.compile.hostname import Key, meet
from tulle.core.compile.objects import gateways
from tulle.core.compile.places import SPOKEN, Clash, Place, clashes, places
from tulle.core.compile.tls_options import MODE, with_options
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import ServerTls
from tulle.kit.problem import Problem, Ref, Severity

# Which kinds of routes the listeners of a protocol take. A protocol that is not here is not served.
KINDS: dict[str, tuple[str, ...]] = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
_AUTHORITIES = ("ConfigMap", "Secret")


class Fault(msgspec.Struct, frozen=True):
    """Why something is not as it was wished: `reason` is a reason of the Gateway API's conditions.

    `path` is the field below the object; `problem` the reason of the `Problem`, where that is more specific.
    """

    reason: str
    message: str
    path: str = ""
    problem: str = ""
    severity: Severity = Severity.ERROR

    def of(self, ref: Ref) -> Problem:
        """As a problem of an object."""
        return Problem(ref, self.path, self.problem or self.reason, self.message, self.severity)


class Verdict(msgspec.Struct, frozen=True):
    """What is made of a listener.

    `refused`: why it is not served; None: it is. `conflict` is the reason where it cannot share its port. `kinds` are the kinds
    of routes that it takes, `refs` what is wrong with its references (it is served all the same, as far as it can be: `tls` has
    the certificates that can be used). `overlap`: other listeners of the port with TLS of their own for some of its hostnames.
    """

    refused: Fault | None = None
    conflict: Clash | None = None
    kinds: tuple[str, ...] = ()
    refs: Fault | None = None
    tls: ServerTls | None = None
    broken: bool = False
    overlap: str = ""

    @property
    def served(self) -> bool:
        """Whether it is accepted: routes attach to it."""
        return self.refused is None

    @property
    def bound(self) -> bool:
        """Whether gateway workloads bind it: it is accepted, and has a certificate where it needs one."""
        return self.refused is None and not self.broken


@table
def gateway_fault(fetch: Fetch, key: Key) -> Fault | None:
    """Why nothing of a Gateway of ours is served."""
    row = fetch(gateways, key)
    if row is None:
        return None
    infrastructure = row.spec.infrastructure
    if infrastructure and infrastructure.parameters_ref:
        found = infrastructure.parameters_ref
        message = f"found {found.kind} {found.name}; needed none: Gateways take no parameters here"
        return Fault("InvalidParameters", message, "spec.infrastructure.parametersRef")
    for index, address in enumerate(row.spec.addresses):
        if address.type != "IPAddress":
            return Fault("UnsupportedAddress", f"found {address.type}; needed IPAddress", f"spec.addresses[{index}].type")
    verdicts = fetch(verdicts_of, key) or ()
    if not any(verdict.served for verdict in verdicts):
        return Fault("ListenersNotValid", "none of the listeners can be served", "spec.listeners")
    return None


@table
def verdicts_of(fetch: Fetch, key: Key) -> tuple[Verdict, ...]:
    """What is made of each listener of a Gateway, by its place."""
    row = fetch(gateways, key)
    if row is None:
        return ()
    conflicts = fetch(clashes, key) or {}
    there = fetch(places, key) or ()
    return tuple(_verdict(fetch, row, one, conflicts.get(index), _overlap(one, there)) for index, one in enumerate(there))


def _verdict(fetch: Fetch, row: Gateway, place: Place, conflict: Clash | None, overlap: str) -> Verdict:
    listener = place.listener
    supported = KINDS.get(listener.protocol, ())
    refused = Fault(conflict.reason, conflict.message) if conflict else None
    if refused is None and not supported:
        known = ", ".join(sorted(KINDS))
        not_yet = " yet" if listener.protocol in SPOKEN else ""
        message = f"{listener.protocol} is not supported{not_yet}; needed {known}"
        refused = Fault("UnsupportedProtocol", message)
    if refused is None and listener.protocol != "UDP":
        refused = _port_fault(fetch, (row.metadata.namespace, row.metadata.name), listener.port)
    wished = listener.allowed_routes.kinds if supported else ()  # of a protocol that is not served nothing more is said
    unknown = sorted({kind.kind for kind in wished if (kind.group, kind.kind) not in {(GROUP_NAME, one) for one in supported}})
    kinds = tuple(kind for kind in supported if not wished or (GROUP_NAME, kind) in {(one.group, one.kind) for one in wished})
    refs = None
    if unknown:
        takes = ", ".join(supported) or "none yet"
        message = f"found {', '.join(unknown)}; kinds of routes that a listener of protocol {listener.protocol} takes: {takes}"
        refs = Fault("InvalidRouteKinds", message)
    if listener.protocol not in ("HTTPS", "TLS") or (listener.tls and listener.tls.mode == "Passthrough"):
        return Verdict(refused, conflict, kinds, refs)
    tls, wrong = _certificates(fetch, place)
    tls, unusable = with_options(fetch, place, tls)
    if unusable:
        wrong = wrong or Fault("InvalidCertificateRef", unusable)
    checked, unchecked = _frontend(fetch, row, listener.port, tls) if listener.protocol == "HTTPS" else (tls, None)
    if checked is None:
        refused = refused or Fault(
            "NoValidCACertificate", unchecked.message if unchecked else "", unchecked.path if unchecked else ""
        )
    broken = bool(unusable) or checked is None or not (tls.certificates or tls.mesh)
    return Verdict(refused, conflict, kinds, refs or wrong or unchecked, None if broken else checked, broken, overlap)


def _certificates(fetch: Fetch, place: Place) -> tuple[ServerTls, Fault | None]:
    """TLS with those certificates of a listener that can be served, and what is wrong with the first that cannot."""
    tls, fault = place.listener.tls, None
    named = tls.certificate_refs if tls else ()
    if not named and not (tls and tls.options.get(MODE) == "ISTIO_MUTUAL"):  # then it is the mesh's own
        fault = Fault("InvalidCertificateRef", "found no certificate; needed one in tls.certificateRefs")
    found = []
    for ref in named:
        wrong = certificate_fault(fetch, place.owner[0], ref, place.kind)
        fault = fault or wrong
        if wrong is None:
            found.append(pair_ref((ref.namespace or place.owner[0], ref.name)))
    alpn = ("h2", "http/1.1") if place.listener.protocol == "HTTPS" else ()
    return ServerTls(certificates=tuple(dict.fromkeys(found)), alpn=alpn), fault


def frontend_of(row: Gateway, port: int) -> tuple[FrontendValidation | None, str]:
    """How a Gateway wants the certificates of a port's clients checked, and the field that says so."""
    frontend = row.spec.tls.frontend if row.spec.tls else None
    if frontend is None:
        return None, ""
    for index, one in enumerate(frontend.per_port):
        if one.port == port:
            return one.tls.validation, f"spec.tls.frontend.perPort[{index}].tls.validation"
    return frontend.default.validation, "spec.tls.frontend.default.validation"


def _frontend(fetch: Fetch, row: Gateway, port: int, tls: ServerTls) -> tuple[ServerTls | None, Fault | None]:
    """TLS that checks clients as the Gateway wishes (None: it cannot), and what is wrong with the first reference that is."""
    said, path = frontend_of(row, port)
    if said is None:
        return tls, None
    found: list[tuple[str, Key]] = []
    fault = None
    for index, ref in enumerate(said.ca_certificate_refs):
        field = f"{path}.caCertificateRefs[{index}]"
        key = (ref.namespace or row.metadata.namespace, ref.name)
        wrong = None
        if ref.group or ref.kind not in _AUTHORITIES:
            wrong = Fault("InvalidCACertificateKind", f"found {ref.kind} {ref.name}; needed a ConfigMap or a Secret", field)
        elif not granted(fetch, "Gateway", row.metadata.namespace, ref.kind, key):
            wrong = Fault("RefNotPermitted", no_grant("Gateway", row.metadata.namespace, ref.kind, key), field)
        elif message := authorities_fault(fetch, ref.kind, key):
            wrong = Fault("InvalidCACertificateRef", message, field)
        else:
            found.append((ref.kind, key))
        fault = fault or wrong
    if not found:
        return None, fault
    loose = said.mode == "AllowInsecureFallback"
    checked = msgspec.structs.replace(tls, authorities=authorities_ref(found), require=not loose, fallback=loose)
    return checked, fault


def _overlap(place: Place, among: tuple[Place, ...]) -> str:
    """The listeners of the port whose TLS ends here too, for some of the same hostnames."""
    if place.listener.protocol != "HTTPS":
        return ""
    others = [one for one in among if one is not place and one.listener.port == place.listener.port]
    others = [one for one in others if one.listener.protocol == "HTTPS" and one.listener.hostname != place.listener.hostname]
    return ", ".join(one.name for one in others if meet(place.listener.hostname or "*", one.listener.hostname or "*"))


def _port_fault(fetch: Fetch, key: Key, number: int) -> Fault | None:
    """A port that the proxy of every gateway workload has for itself: a listener there could not be opened."""
    for one in fetch(chosen_workloads, key) or ():
        if bound_port(fetch, one, number) not in own_ports(fetch, one):
            return None
        message = f"the proxy {one[0]}/{one[1]} has port {bound_port(fetch, one, number)} for itself; needed another port"
        return Fault("PortUnavailable", message)
    return None


def certificate_fault(fetch: Fetch, namespace: str, ref: SecretRef, kind: str) -> Fault | None:
    """What is wrong with a reference of an object of `kind` in `namespace` to a certificate."""
    if (ref.group, ref.kind) != ("", "Secret"):
        found = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return Fault("InvalidCertificateRef", f"found {found} {ref.name}; needed a Secret")
    key = (ref.namespace or namespace, ref.name)
    if not granted(fetch, kind, namespace, "Secret", key):
        return Fault("RefNotPermitted", no_grant(kind, namespace, "Secret", key))
    message = pair_fault(fetch, key)
    return Fault("InvalidCertificateRef", message) if message else None
