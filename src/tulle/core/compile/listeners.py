"""Gateways of the Gateway API → which are ours, and what is made of each listener: served, or why not.

What a gateway workload binds (`gateways`) and what the listener's status says (`core.status`) are both read off here. Of
listeners of one Gateway that cannot share a port none is served: the API forbids to pick a winner among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tulle.api.gateway import Gateway
from tulle.api.gateway.gateway import Listener
from tulle.api.gateway.shared import GROUP_NAME, SecretRef
from tulle.api.labels import LabelSelector
from tulle.core.compile.gateway_workloads import bound_port, chosen_workloads, own_ports
from tulle.core.compile.grants import granted, no_grant
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import gateways, namespaces, secrets
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem, Ref, Severity

# Which kinds of routes the listeners of a protocol take. A protocol that is not here is not served.
KINDS: dict[str, tuple[str, ...]] = {"HTTP": ("HTTPRoute",)}
# Protocols of the Gateway API by what is first spoken on the port; those of one word can share one.
_SPOKEN = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}


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
    of routes that it takes, `refs` what is wrong with its references (it is served all the same, as far as it can be).
    """

    refused: Fault | None = None
    conflict: Fault | None = None
    kinds: tuple[str, ...] = ()
    refs: Fault | None = None

    @property
    def served(self) -> bool:
        """Whether gateway workloads bind it."""
        return self.refused is None


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
    """What is made of each listener of a Gateway, in their order."""
    row = fetch(gateways, key)
    if row is None:
        return ()
    conflicts = _conflicts(row.spec.listeners)
    return tuple(_verdict(fetch, row, listener, conflicts.get(index)) for index, listener in enumerate(row.spec.listeners))


def _verdict(fetch: Fetch, row: Gateway, listener: Listener, conflict: Fault | None) -> Verdict:
    supported = KINDS.get(listener.protocol, ())
    refused = conflict
    if refused is None and not supported:
        known = ", ".join(sorted(KINDS))
        not_yet = " yet" if listener.protocol in _SPOKEN else ""
        message = f"{listener.protocol} is not supported{not_yet}; needed {known}"
        refused = Fault("UnsupportedProtocol", message)
    if refused is None:
        refused = _port_fault(fetch, (row.metadata.namespace, row.metadata.name), listener.port)
    wished = listener.allowed_routes.kinds if supported else ()  # of a protocol that is not served nothing more is said
    unknown = sorted({kind.kind for kind in wished if (kind.group, kind.kind) not in {(GROUP_NAME, one) for one in supported}})
    kinds = tuple(kind for kind in supported if not wished or (GROUP_NAME, kind) in {(one.group, one.kind) for one in wished})
    refs = None
    if unknown:
        takes = ", ".join(supported) or "none yet"
        message = f"found {', '.join(unknown)}; kinds of routes that a listener of protocol {listener.protocol} takes: {takes}"
        refs = Fault("InvalidRouteKinds", message)
    for ref in listener.tls.certificate_refs if listener.tls else ():
        refs = refs or certificate_fault(fetch, row.metadata.namespace, ref, "Gateway")
    return Verdict(refused, conflict, kinds, refs)


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
    secret = fetch(secrets, key)
    if secret is None:
        return Fault("InvalidCertificateRef", f"no Secret {key[1]} in namespace {key[0]}")
    if not secret.pair:
        return Fault("InvalidCertificateRef", f"Secret {key[0]}/{key[1]} has no certificate in tls.crt with its key in tls.key")
    return None


def _conflicts(listeners: Sequence[Listener]) -> dict[int, Fault]:
    """The listeners (by index) that cannot share their port with another of the Gateway."""
    found: dict[int, Fault] = {}
    for index, this in enumerate(listeners):
        others = [other for other in listeners if other is not this and other.port == this.port]
        others = [other for other in others if (this.protocol == "UDP") is (other.protocol == "UDP")]
        unlike = [other for other in others if _spoken(other) != _spoken(this)]
        alike = [other for other in others if _spoken(other) == _spoken(this) and other.hostname == this.hostname]
        if unlike:
            other = unlike[0]
            message = f"{this.protocol} cannot share port {this.port} with {other.protocol} (listener {other.name})"
            found[index] = Fault("ProtocolConflict", message)
        elif alike:
            host = f"hostname {this.hostname}" if this.hostname else "the same hostnames"
            message = f"listener {alike[0].name} has port {this.port} and {host} too"
            found[index] = Fault("HostnameConflict", message)
    return found


def _spoken(listener: Listener) -> str:
    return _SPOKEN.get(listener.protocol, listener.protocol)


def from_namespace(fetch: Fetch, from_: str, selector: LabelSelector | None, owner: str, namespace: str) -> bool:
    """Whether what a Gateway of the namespace `owner` says of namespaces (`from` and a selector) lets `namespace` in."""
    if from_ == "Same":
        return namespace == owner
    if from_ == "Selector":
        row = fetch(namespaces, ("", namespace))
        labels = {"kubernetes.io/metadata.name": namespace, **(row.metadata.labels if row else {})}
        return selector is not None and _selects(selector, labels)
    return from_ == "All"


def _selects(selector: LabelSelector, labels: dict[str, str]) -> bool:
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for one in selector.match_expressions:
        there = one.key in labels
        if one.operator in ("In", "NotIn"):
            there = there and labels[one.key] in one.values
        if there is (one.operator in ("NotIn", "DoesNotExist")):
            return False
    return True
