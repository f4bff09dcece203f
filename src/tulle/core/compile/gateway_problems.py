"""What is wrong with Gateways of both APIs: what is not served, fields without effect, a class or selector without a workload."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.gateway import Gateway
from tulle.api.gateway.shared import GROUP_NAME
from tulle.api.istio import Gateway as IstioGateway
from tulle.core.compile import istio_tls
from tulle.core.compile.client_certificates import client_certificate_fault
from tulle.core.compile.gateway_workloads import LABELS, chosen_workloads, gateway_labels, gateway_workloads, is_ours
from tulle.core.compile.gateways import HTTP, TCP, serves
from tulle.core.compile.hostname import Key, tells_tls
from tulle.core.compile.http3_problems import Https, http3_problems
from tulle.core.compile.infrastructure import infrastructure_problems
from tulle.core.compile.listeners import Fault, Verdict, gateway_fault, verdicts_of
from tulle.core.compile.mistakes import error, no_server_name, not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import gateways, istio_gateways, listener_sets, selects
from tulle.core.compile.places import Place, places, takes_set
from tulle.core.compile.tls_options import option_problems
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem, Ref

_SAID = ("gateway_class_name", "listeners", "infrastructure", "addresses", "allowed_listeners", "tls")


@table
def istio_gateway_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Servers that are not supported yet, certificates that cannot be served, and a selector that selects no gateway."""
    row = fetch(istio_gateways, key)
    return sorted_problems(_istio(fetch, row)) if row else ()


def _istio(fetch: Fetch, row: IstioGateway) -> Iterator[Problem]:
    labels = {one: fetch(gateway_labels, one) for one in fetch(gateway_workloads, None) or ()}
    chosen = [one for one, mine in labels.items() if selects(row.spec.selector, mine or {})]
    spaces = tuple(sorted({one[0] for one in chosen}))
    for index, server in enumerate(row.spec.servers):
        path = f"spec.servers[{index}]"
        if server.port.protocol.upper() not in (*HTTP, *TCP, "HTTPS", "TLS"):
            yield not_yet(row.ref, f"{path}.port.protocol", server.port.protocol)
        else:
            yield from istio_tls.problems(fetch, row.ref, server, f"{path}.tls", spaces)
        if server.tls is not None and not server.tls.https_redirect and not istio_tls.passes_by_itself(server):
            hosts = ((at, host.rpartition("/")[2]) for at, host in enumerate(server.hosts))
            yield from (no_server_name(row.ref, f"{path}.hosts[{at}]", host) for at, host in hosts if not tells_tls(host))
        yield from unsaid(row.ref, server, path, ("port", "hosts", "tls", "bind", "name"))
        yield from unsaid(row.ref, server.port, f"{path}.port", ("number", "protocol", "name"))
        if server.bind.startswith("unix://"):
            yield not_yet(row.ref, f"{path}.bind", "a Unix socket")
    if not chosen:
        yield _no_workload(row.ref, "spec.selector", row.spec.selector)
    yield from http3_problems(fetch, row, tuple(chosen), _https_servers(fetch, row, chosen))


def _https_servers(fetch: Fetch, row: IstioGateway, chosen: list[Key]) -> Iterator[Https]:
    for index, server in enumerate(row.spec.servers):
        for one in chosen if istio_tls.ends(server) and serves(server) else ():
            if tls := istio_tls.server_tls(fetch, server, one[0]):
                yield Https(f"spec.servers[{index}].tls", server.port.number, tls)


def _all_labels(fetch: Fetch) -> Iterator[dict[str, str]]:
    for one in fetch(gateway_workloads, None) or ():
        yield fetch(gateway_labels, one) or {}


def _no_workload(ref: Ref, path: str, labels: dict[str, str]) -> Problem:
    words = ", ".join(f"{key}: {value}" for key, value in sorted(labels.items())) or "any labels"
    return warning(ref, path, "NoGatewayWorkload", f"no gateway workload has the labels {words}; nothing is served until one has")


@table
def gateway_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Listeners that are not supported yet, fields without effect, and a class without a workload."""
    row = fetch(gateways, key)
    if row is None or not fetch(is_ours, row.spec.gateway_class_name):
        return ()
    return sorted_problems(_gateway(fetch, key, row))


def _gateway(fetch: Fetch, key: Key, row: Gateway) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", _SAID)
    yield from infrastructure_problems(row)
    yield from unsaid(row.ref, row.spec.tls, "spec.tls", ("frontend", "backend"))
    if wrong := fetch(client_certificate_fault, key):
        said = error if wrong.reason == "RefNotPermitted" else warning
        yield said(row.ref, wrong.path, wrong.reason, f"{wrong.message}; backends are shown no certificate")
    if (fault := fetch(gateway_fault, key)) and fault.reason != "ListenersNotValid":
        yield warning(row.ref, fault.path, fault.reason, f"{fault.message}; nothing of the Gateway is served")
        return
    there, verdicts = fetch(places, key) or (), fetch(verdicts_of, key) or ()
    for place, verdict in zip(there, verdicts, strict=True):
        if place.set is None:
            yield from _listener(row.ref, place, verdict)
    own = [(one, verdict) for one, verdict in zip(there, verdicts, strict=True) if one.set is None]
    yield from http3_problems(fetch, row, fetch(chosen_workloads, key) or (), _https_listeners(own))
    if not fetch(chosen_workloads, key) and not any(selects(LABELS, labels) for labels in _all_labels(fetch)):
        yield _no_workload(row.ref, "spec.gatewayClassName", LABELS)


@table
def listener_set_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Listeners of a ListenerSet that are not served."""
    row = fetch(listener_sets, key)
    if row is None:
        return ()
    said = row.spec.parent_ref
    if (said.group, said.kind) != (GROUP_NAME, "Gateway"):
        return (error(row.ref, "spec.parentRef.kind", "GatewayNotFound", f"found {said.kind}; needed a Gateway"),)
    parent = (said.namespace or key[0], said.name)
    gateway = fetch(gateways, parent)
    if gateway is None:
        message = f"no Gateway {parent[1]} in namespace {parent[0]}; nothing is served until there is one"
        return (error(row.ref, "spec.parentRef.name", "GatewayNotFound", message),)
    if fetch(is_ours, gateway.spec.gateway_class_name) and not takes_set(fetch, gateway, row):
        message = f"Gateway {parent[0]}/{parent[1]} takes no ListenerSets of namespace {key[0]}; nothing is served"
        return (error(row.ref, "spec.parentRef", "NotAllowedByListeners", message),)
    there, verdicts = fetch(places, parent) or (), fetch(verdicts_of, parent) or ()
    mine = [(one, verdict) for one, verdict in zip(there, verdicts, strict=True) if one.set == key]
    problems = [problem for one, verdict in mine for problem in _listener(row.ref, one, verdict)]
    return sorted_problems(
        [*problems, *http3_problems(fetch, row, fetch(chosen_workloads, parent) or (), _https_listeners(mine))]
    )


def _https_listeners(mine: list[tuple[Place, Verdict]]) -> Iterator[Https]:
    for place, verdict in mine:
        if place.listener.protocol == "HTTPS" and verdict.bound and verdict.tls:
            yield Https(f"{place.path}.tls", place.listener.port, verdict.tls)


def _listener(ref: Ref, place: Place, verdict: Verdict) -> Iterator[Problem]:
    listener = place.listener
    if verdict.conflict:
        both = "neither is served" if verdict.conflict.mutual else "it is not served"
        yield warning(ref, f"{place.path}.port", verdict.conflict.reason, f"{verdict.conflict.message}; {both}")
    elif verdict.refused and verdict.refused.reason == "PortUnavailable":
        yield warning(ref, f"{place.path}.port", verdict.refused.reason, verdict.refused.message)
    elif verdict.refused and verdict.refused.reason == "UnsupportedProtocol":
        yield not_yet(ref, f"{place.path}.protocol", listener.protocol)
    elif verdict.refused and verdict.refused.reason == "NoValidCACertificate":
        message = f"{verdict.refused.message}; the listener is not served"
        yield warning(ref, place.path, "InvalidCertificateRef", message)
    if verdict.refs is not None:
        yield _references(ref, place, verdict.refs)
    if listener.tls is not None:
        yield from unsaid(ref, listener.tls, f"{place.path}.tls", ("mode", "certificate_refs", "options"))
        yield from option_problems(ref, place, f"{place.path}.tls")


def _references(ref: Ref, place: Place, fault: Fault) -> Problem:
    """A certificate that is not there or may not be named, or kinds of routes that the listener does not take."""
    if fault.reason == "InvalidRouteKinds":
        return warning(ref, f"{place.path}.allowedRoutes.kinds", "InvalidRouteKinds", fault.message)
    path = fault.path if fault.path and place.set is None else f"{place.path}.tls.certificateRefs"
    if fault.reason == "RefNotPermitted":
        return error(ref, path, "RefNotPermitted", fault.message)
    return warning(ref, path, "InvalidCertificateRef", fault.message)
