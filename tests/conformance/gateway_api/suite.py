"""The Gateway API's conformance suite as data: its tests, their manifests, and where each row of them is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.corpora import corpora

Raw = dict[str, Any]

INFRA = "gateway-conformance-infra"
PLACEHOLDERS = {
    "{GATEWAY_CLASS_NAME}": "tulle",
    "{GATEWAY_CONTROLLER_NAME}": "tulle.dev/gateway-controller",
    "PLACEHOLDER_USABLE_ADDRS": "127.0.0.1",
    "PLACEHOLDER_UNUSABLE_ADDRS": "192.0.2.200",
}
# Features whose fields the standard channel's CRDs do not have.
EXPERIMENTAL = ("HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError")
KINDS = (
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "ReferenceGrant",
    "BackendTLSPolicy",
    "ListenerSet",
)

_TCP = ("Gateway", "TCPRoute", "ReferenceGrant")
_UDP = ("Gateway", "UDPRoute", "ReferenceGrant")


class Place(NamedTuple):
    """Where a row is sent: a port as the Gateway says it, and whether with TLS."""

    port: int = 80
    tls: bool = False


class Case(NamedTuple):
    """One test of the suite. `rows` are `cases.json`'s own."""

    name: str
    features: tuple[str, ...]
    manifests: tuple[str, ...]
    rows: tuple[Raw, ...]
    provisional: bool

    @property
    def experimental(self) -> bool:
        """Whether it needs what only the experimental channel has."""
        return any(one in EXPERIMENTAL for one in self.features)

    @property
    def extended(self) -> tuple[str, ...]:
        """The features that an implementation may leave out; none where the test is of a kind's core."""
        return tuple(one for one in self.features if one not in KINDS)


# Tests whose manifests are there, and whose rows are not in `cases.json`: they are steps here.
_UNLISTED = (
    ("GatewayStaticAddresses", ("Gateway", "GatewayStaticAddresses"), "gateway-static-addresses", False),
    ("HTTPRouteWeight", ("Gateway", "HTTPRoute"), "httproute-weight", False),
    ("TCPRouteInvalidCrossNamespaceBackendRef", _TCP, "tcproute-invalid-cross-namespace-backend-ref", True),
    ("TCPRouteReferenceGrant", _TCP, "tcproute-reference-grant", True),
    ("UDPRouteInvalidBackendRefNonexistent", _UDP, "udproute-invalid-backendref-nonexistent", True),
    ("UDPRouteMultipleRoutesAttachment", _UDP, "udproute-multiple-routes-attachment", True),
    ("UDPRouteReferenceGrant", _UDP, "udproute-reference-grant", True),
    ("UDPRouteWeightedRouting", _UDP, "udproute-weighted-routing", True),
)


def cases() -> list[Case]:
    """Every test, in the order of `cases.json`, then those that are not in it."""
    found = json.loads(corpora("gateway-api/conformance/cases.json").read_text())
    listed = [
        Case(one["test"], tuple(one["features"]), tuple(one["manifests"]), tuple(one["cases"]), one["provisional"])
        for one in found
    ]
    return [*listed, *(Case(name, features, (f"tests/{file}.yaml",), (), new) for name, features, file, new in _UNLISTED)]


def documents(path: str) -> list[Raw]:
    """The objects of a manifest, with the names that the suite fills in."""
    text = Path(corpora(f"gateway-api/conformance/{path}")).read_text()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def named(objects: list[Raw], kind: str, name: str) -> Raw | None:
    """The object of that kind and name."""
    return next((one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name), None)


def listeners(objects: list[Raw]) -> Iterator[tuple[Raw, Raw]]:
    """Every Gateway and ListenerSet with each of its listeners."""
    for one in objects:
        if one["kind"] in ("Gateway", "ListenerSet"):
            for listener in one["spec"].get("listeners", ()):
                yield one, listener


def place(objects: list[Raw], own: list[Raw], host: str) -> Place:
    """Where a row for a host goes: the listener of a parent of the manifest's routes; a port that the host says decides."""
    chosen: list[Raw] = []
    for route in own:
        for parent in route["spec"].get("parentRefs", ()) if route["kind"].endswith("Route") else ():
            there = named(objects, parent.get("kind", "Gateway"), parent["name"])
            chosen += [
                listener
                for listener in (there["spec"].get("listeners", ()) if there else ())
                if parent.get("sectionName", listener["name"]) == listener["name"]
            ]
    _, _, port = host.partition(":")
    fitting = [one for one in chosen if port and one["port"] == int(port)] or chosen
    if not fitting:
        return Place()
    return Place(fitting[0]["port"], fitting[0]["protocol"] == "HTTPS")


def ports(objects: list[Raw]) -> dict[int, str]:
    """Every port of a listener, TCP or UDP."""
    return {one["port"]: "UDP" if one["protocol"] == "UDP" else "TCP" for _, one in listeners(objects)}


def all_documents() -> list[Raw]:
    """Everything of the suite."""
    folder = Path(corpora("gateway-api/conformance/tests"))
    return [
        *documents("base/manifests.yaml"),
        *(one for file in sorted(folder.glob("*.yaml")) for one in documents(f"tests/{file.name}")),
    ]
