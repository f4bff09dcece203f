"""The steps of tests that are code upstream, and not rows. They come after the rows, one after the other."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

from tests.conformance.gateway_api import clients
from tests.conformance.gateway_api.mesh import ConformanceMesh, until
from tests.conformance.gateway_api.suite import INFRA, named
from tulle.api.registry import kind_for

Raw = dict[str, Any]

_CALLS = 200
_TOLERANCE = 0.14  # more than four standard deviations of a half of so many


class Step(NamedTuple):
    """`attempt` tells what is wrong; `before` is done once, before the first attempt."""

    name: str
    attempt: Callable[[], Awaitable[str]]
    before: Callable[[], Awaitable[object]] | None = None


def of(name: str, mesh: ConformanceMesh, own: list[Raw]) -> Iterator[Step]:
    """A test's steps."""
    for number, (port, sni, pod, encrypted) in enumerate(TLS.get(name, ())):
        yield Step(f"TLS {number} to {sni}", partial(_tls, mesh, port, sni, pod, encrypted))
    for port, pod in _TCP.get(name, {}).items():
        yield Step(f"TCP {port}", partial(_tcp, mesh, port, pod))
    for port, pod in _UDP.get(name, {}).items():
        yield Step(f"UDP {port}", partial(_udp, mesh, port, pod))
    for sni, host, status, pod in _MISDIRECTED if name == "HTTPRouteHTTPSListenerDetectMisdirectedRequests" else ():
        yield Step(f"{sni} asked for {host}", partial(_misdirected, mesh, sni, host, status, pod))
    if name in _BUMPS:
        kind, namespace, bumped, patch = _BUMPS[name]
        yield Step("bump", partial(_bumped, mesh, kind, namespace, bumped), partial(_patch, mesh, kind, namespace, bumped, patch))
    if name in _SHARES:
        port, shares, ask = _SHARES[name]
        yield Step("shares", partial(_shares, mesh, port, shares, ask))
    if name in _OLDER:
        kind, of_pod, port = _OLDER[name]
        route = named(own, kind, f"{kind.lower()}-attach-older")
        newer = deepcopy(route) or {}
        newer["metadata"]["name"] = f"{kind.lower()}-attach-newer"
        backend = newer["spec"]["rules"][0]["backendRefs"][0]
        first, backend["name"] = backend["name"], backend["name"].replace("-1", "-2")
        yield Step("the older route wins", partial(of_pod, mesh, port, first), partial(_later, mesh, route or {}, newer))
        own.append(newer)
    if name == "GatewayStaticAddresses":
        addresses = (named(own, "Gateway", _STATIC) or {})["spec"]["addresses"]
        for step, left, programmed in (
            ("with an address of nobody", addresses[1:], "False AddressNotUsable"),
            ("with an address of a gateway workload", addresses[2:], "True Programmed"),
        ):
            patch = {"spec": {"addresses": left}}
            yield Step(step, partial(_addresses, mesh, left, programmed), partial(_patch, mesh, "Gateway", INFRA, _STATIC, patch))
    if name == "HTTPRouteBackendProtocolWebSocket":
        yield Step("websocket", partial(_websocket, mesh))
    if name == "HTTPRouteReferenceGrant":
        grants = [one for one in own if one["kind"] == "ReferenceGrant"]
        yield Step("without the grant", partial(_status, mesh, 500), partial(mesh.delete, grants))
    if name == "GatewayModifyListeners":
        add, remove = (named(own, "Gateway", f"gateway-{word}-listener") or {} for word in ("add", "remove"))
        http = remove["spec"]["listeners"][1]
        added = {"spec": {"listeners": [*add["spec"]["listeners"], http]}}
        for gateway, patch, ports in ((add, added, 2), (remove, {"spec": {"listeners": [http]}}, 1)):
            place = ("Gateway", INFRA, gateway["metadata"]["name"])
            yield Step(place[2], partial(_listeners, mesh, place[2], ports), partial(_patch, mesh, *place, patch))
    if name == "GatewayInfrastructure":
        yield Step("labels of what is made", partial(_infrastructure, mesh))


_POD = "tcp-backend"
# Case → port, SNI, the pod that answers, and whether TLS reaches it (of that name, or ended by the gateway).
TLS: dict[str, tuple[tuple[int, str, str, str], ...]] = {
    "TLSRouteSimpleSameNamespace": ((443, "abc.example.com", _POD, "abc.example.com"),),
    "TLSRouteTerminateSimpleSameNamespace": ((8443, "tls.example.com", _POD, ""),),
    "TLSRouteMixedTerminationSameNamespace": (
        (8883, "abc.example.com", _POD, "abc.example.com"),
        (8883, "tls.example.com", _POD, ""),
    ),
    "TLSRouteInvalidBackendRefNonexistent": ((443, "example.com", "", ""),),
    "TLSRouteInvalidBackendRefUnknownKind": ((443, "example.com", "", ""),),
    "TLSRouteInvalidReferenceGrant": ((443, "abc.example.com", "", ""),),
    "BackendTLSPolicyTLSRouteTerminate": ((8443, "tls.example.com", _POD, "abc.example.com"),),
}
_TCP: dict[str, dict[int, str]] = {
    "TCPRouteInvalidBackendRefNonexistent": {9300: ""},
    "TCPRouteMultipleRoutesAttachment": {9310: "tcp-attach-backend-1"},
    "TCPRouteInvalidCrossNamespaceBackendRef": {9321: ""},
    "TCPRouteReferenceGrant": {9320: "tcp-reference-grant-backend"},
    "TCPRouteParentRefAttachAll": dict.fromkeys((9310, 9311, 9312, 9313), "tcp-echo-attach-all"),
    "TCPRouteParentRefPortAndSectionName": {9300: "tcp-echo-one", 9301: "tcp-echo-two", 9302: "tcp-echo-three"},
}
_UDP: dict[str, dict[int, str]] = {
    "UDPRoute": {5300: "coredns"},
    "UDPRouteInvalidCrossNamespaceBackendRef": {5300: ""},
    "UDPRouteInvalidBackendRefNonexistent": {5300: ""},
    "UDPRouteMultipleRoutesAttachment": {5301: "udp-attach-backend-1"},
    "UDPRouteReferenceGrant": {5300: "udp-echo-reference-grant"},
    "UDPRouteParentRefAttachAllListeners": dict.fromkeys((5310, 5311, 5312), "udp-echo-attach-all"),
    "UDPRouteParentRefPortAndSectionName": {
        5300: "udp-echo-by-port",
        5301: "udp-echo-by-section",
        5302: "udp-echo-by-section-and-port",
    },
}
_STATIC = "gateway-static-addresses"
# SNI, host, status and pod.
_MISDIRECTED = (
    ("example.org", "example.org", 200, "infra-backend-v1"),
    ("example.org", "second-example.org", 421, ""),
    ("example.org", "unknown-example.org", 404, ""),
    ("second-example.org", "second-example.org", 200, "infra-backend-v2"),
    ("second-example.org", "example.org", 421, ""),
    ("second-example.org", "unknown-example.org", 421, ""),
    ("third-example.wildcard.org", "third-example.wildcard.org", 200, "infra-backend-v3"),
    ("third-example.wildcard.org", "fith-example.wildcard.org", 200, "infra-backend-v3"),
    ("third-example.wildcard.org", "fourth-example.wildcard.org", 421, ""),
    ("third-example.wildcard.org", "second-example.org", 421, ""),
    ("third-example.wildcard.org", "unknown-example.org", 421, ""),
    ("fourth-example.wildcard.org", "fourth-example.wildcard.org", 200, "infra-backend-v1"),
    ("fourth-example.wildcard.org", "fith-example.wildcard.org", 421, ""),
    ("unknown-example.org", "example.org", 200, "infra-backend-v1"),
    ("unknown-example.org", "unknown-example.org", 404, ""),
)
_LISTENER = {"name": "alternate", "port": 8080, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
_BACKEND = [{"backendRefs": [{"name": "infra-backend-v2", "port": 8080}]}]
_BUMPS: dict[str, tuple[str, str, str, Raw]] = {
    "BackendTLSPolicyObservedGenerationBump": (
        "BackendTLSPolicy",
        INFRA,
        "observed-generation-bump",
        {"spec": {"validation": {"hostname": "other.example.com"}}},
    ),
    "GatewayObservedGenerationBump": ("Gateway", INFRA, "gateway-observed-generation-bump", {"spec": {"listeners": [_LISTENER]}}),
    "GatewayClassObservedGenerationBump": (
        "GatewayClass",
        "",
        "gatewayclass-observed-generation-bump",
        {"spec": {"description": "new"}},
    ),
    "HTTPRouteObservedGenerationBump": ("HTTPRoute", INFRA, "observed-generation-bump", {"spec": {"rules": _BACKEND}}),
}


async def _patch(mesh: ConformanceMesh, kind: str, namespace: str, name: str, patch: Raw) -> None:
    known = kind_for("gateway.networking.k8s.io", kind)
    assert known is not None
    await mesh.api.patch(known, name, patch, namespace or None)


async def _later(mesh: ConformanceMesh, older: Raw, newer: Raw) -> None:
    """Apply an object in a second after that of the older one: timestamps have no fractions."""
    made = (await mesh.get(older["kind"], INFRA, older["metadata"]["name"]))["metadata"]["creationTimestamp"]

    async def passed() -> bool:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > str(made)

    await until("the next second", passed)
    await mesh.apply([newer])


async def _bumped(mesh: ConformanceMesh, kind: str, namespace: str, name: str) -> str:
    found = await mesh.get(kind, namespace, name)
    status = found["status"]
    places = status.get("parents") or status.get("ancestors") or [status]
    seen = {one["observedGeneration"] for place in places for one in place["conditions"]}
    needed = found["metadata"]["generation"]
    return "" if needed > 1 and seen == {needed} else f"observedGeneration {seen}, needed {needed}"


async def _listeners(mesh: ConformanceMesh, name: str, count: int) -> str:
    found = await mesh.get("Gateway", INFRA, name)
    listeners = found["status"]["listeners"]
    seen = [(one["name"], one["attachedRoutes"], {c["type"]: c["status"] for c in one["conditions"]}) for one in listeners]
    if len(seen) != count:
        return f"listeners {[one[0] for one in seen]}, needed {count}"
    wrong = [one for one in seen if one[1] != 1 or one[2].get("Accepted") != "True" or one[2].get("Programmed") != "True"]
    return f"listener {wrong[0]}" if wrong else ""


async def _addresses(mesh: ConformanceMesh, wanted: list[Raw], programmed: str) -> str:
    """A Gateway that is accepted, and whether its addresses are those that it asks for."""
    status = (await mesh.get("Gateway", INFRA, _STATIC))["status"]
    found = {one["type"]: f"{one['status']} {one['reason']}" for one in status["conditions"]}
    if (found["Accepted"], found["Programmed"]) != ("True Accepted", programmed):
        return f"conditions {found}, needed Programmed {programmed}"
    has = [one["value"] for one in status.get("addresses", ())]
    return "" if programmed.startswith("False") or has == [one["value"] for one in wanted] else f"addresses {has}"


async def _infrastructure(mesh: ConformanceMesh) -> str:
    """What is made for a Gateway bears its infrastructure's labels and annotations."""
    name = "gateway-with-infrastructure-metadata"
    kind = kind_for("networking.istio.io", "WorkloadEntry")
    assert kind is not None
    made = await mesh.api.list(kind, INFRA, label_selector=f"gateway.networking.k8s.io/gateway-name={name},key2=value2")
    if not made["items"]:
        return "nothing is made for the Gateway that bears its labels"
    notes = [one["metadata"]["annotations"].get("key1") for one in made["items"]]
    return "" if notes == ["value1"] else f"annotation key1 {notes}, needed value1"


async def _websocket(mesh: ConformanceMesh) -> str:
    said = await clients.websocket(mesh.ports[80], "/ws")
    return "" if said == "word" else f"found {said}, needed the word"


async def _status(mesh: ConformanceMesh, needed: int) -> str:
    got = await clients.http(mesh.ports[80], "GET", "/", {"Host": clients.HOST})
    return "" if got.status == needed else f"status {got.status}, needed {needed}"


async def _tls(mesh: ConformanceMesh, port: int, sni: str, pod: str, encrypted: str) -> str:
    said = await clients.line(mesh.ports[port], clients.trusting(mesh.certificates.backend), sni)
    if not pod:
        return "" if "error" in said else f"pod {said['pod']}, needed no connection"
    if wrong := _pod(said, pod):
        return wrong
    seen = said.get("tls", {}).get("serverName", "")
    return "" if seen == encrypted else f"TLS of {seen!r} reaches the pod, needed {encrypted!r}"


async def _tcp(mesh: ConformanceMesh, port: int, pod: str) -> str:
    said = await clients.line(mesh.ports[port])
    if not pod:
        return "" if "error" in said else f"pod {said['pod']}, needed no connection"
    return _pod(said, pod)


def _pod(said: Raw, pod: str) -> str:
    return "" if said.get("pod", "").startswith(pod) else f"{said.get('error') or said.get('pod')}, needed {pod}"


async def _udp(mesh: ConformanceMesh, port: int, pod: str) -> str:
    found = await clients.datagram(mesh.ports[port])
    return "" if found.startswith(pod) and bool(found) == bool(pod) else f"{found or 'no answer'}, needed {pod or 'none'}"


async def _misdirected(mesh: ConformanceMesh, sni: str, host: str, status: int, pod: str) -> str:
    got = await clients.http2(mesh.ports[443], "/detect-misdirected-requests", host, tls=True, sni=sni)
    if got.status != status:
        return f"status {got.status} {got.error}, needed {status}"
    return "" if not pod or (got.body or {}).get("pod", "").startswith(pod) else f"{got.body}, needed {pod}"


async def _ask_grpc(port: int) -> str:
    code, said = await clients.grpc_call(port, "Echo", "", {})
    return said.context.pod if said else code


async def _ask_pod(port: int) -> str:
    got = await clients.http(port, "GET", "/", {"Host": clients.HOST})
    return str(got.body["pod"]) if got.body else f"status {got.status}"


async def _ask_http(port: int) -> str:
    """The pod, where the header that its backend's filter set is of the same backend."""
    got = await clients.http(port, "GET", "/", {"Host": clients.HOST})
    if got.body is None:
        return f"status {got.status}"
    pod = str(got.body["pod"])
    header = ",".join(got.body["headers"].get("Backend", ()))
    return pod if header and pod.startswith(header) else f"{pod} with the header {header}"


async def _ask_udp(port: int) -> str:
    """Of several tries: a datagram may be lost where the machine is busy."""
    return await clients.datagram(port) or await clients.datagram(port)


async def _ask_tcp(port: int) -> str:
    said = await clients.line(port)
    return str(said.get("pod") or said["error"])


_OLDER: dict[str, tuple[str, Callable[[ConformanceMesh, int, str], Awaitable[str]], int]] = {
    "TCPRouteMultipleRoutesAttachment": ("TCPRoute", _tcp, 9310),
    "UDPRouteMultipleRoutesAttachment": ("UDPRoute", _udp, 5301),
}
_SHARES: dict[str, tuple[int, dict[str, float], Callable[[int], Awaitable[str]]]] = {
    "GRPCRouteWeight": (80, {"grpc-infra-backend-v1": 0.7, "grpc-infra-backend-v2": 0.3}, _ask_grpc),
    "HTTPRouteRequestHeaderModifierBackendWeights": (80, {"infra-backend-v1": 0.5, "infra-backend-v2": 0.5}, _ask_http),
    "HTTPRouteWeight": (80, {"infra-backend-v1": 0.7, "infra-backend-v2": 0.3}, _ask_pod),
    "UDPRouteWeightedRouting": (5300, {"udp-backend-v1": 0.7, "udp-backend-v2": 0.3}, _ask_udp),
    "TCPRouteWeightedRouting": (9300, {"tcp-backend-v1": 0.7, "tcp-backend-v2": 0.3}, _ask_tcp),
}


async def _shares(mesh: ConformanceMesh, port: int, shares: dict[str, float], ask: Callable[[int], Awaitable[str]]) -> str:
    """One answer tells whether it is worth to ask for many."""
    first = await ask(mesh.ports[port])
    if not any(first.startswith(one) for one in shares):
        return first
    pods = [await ask(mesh.ports[port]) for _ in range(_CALLS)]
    seen = Counter(next((one for one in shares if pod.startswith(one)), pod) for pod in pods)
    wrong = {one: seen[one] / _CALLS for one in {*seen, *shares} if abs(seen[one] / _CALLS - shares.get(one, 0)) > _TOLERANCE}
    strange = seen.keys() - shares.keys()
    return f"shares {wrong or strange}, needed {shares}" if wrong or strange else ""
