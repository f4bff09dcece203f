"""The CustomResourceDefinitions of the corpora, and what kube-apiserver makes of a CRD's defaults: the reference for our own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.support.corpora import ROOT
from tulle.api.object import Kind
from tulle.api.registry import KINDS

Json = dict[str, Any]


@cache
def crds(channel: str) -> dict[tuple[str, str], Json]:
    """The CRDs of a channel (`istio`, `standard`, `experimental`) by group and kind; none where the corpora are absent."""
    if not ROOT.exists():
        return {}
    files = [ROOT / "istio/crds.yaml"] if channel == "istio" else sorted((ROOT / "gateway-api/crd" / channel).glob("*.yaml"))
    found = {}
    for file in files:
        for document in yaml.load_all(file.read_text(), yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                spec = document["spec"]
                found[spec["group"], spec["names"]["kind"]] = spec
    return found


def channels(kind: Kind) -> list[str]:
    """The channels that have the kind; the experimental one has all fields of the standard one."""
    if kind.group.endswith("istio.io"):
        return ["istio"]
    return ["standard", "experimental"] if kind.group == "gateway.networking.k8s.io" else []


@dataclass(frozen=True)
class Version:
    """A version of a kind in a channel, in a few characters where a test names it."""

    kind: Kind
    channel: str
    name: str

    def __repr__(self) -> str:
        return f"{self.kind.kind}-{self.channel}-{self.name}"

    @property
    def schema(self) -> Json:
        """The CRD's schema."""
        return next(schema for name, schema in schemas(self.kind, self.channel) if name == self.name)


def versions(*wanted: str) -> list[Version]:
    """Every version that we serve of the kinds in these channels."""
    every = [(kind, channel) for kind in KINDS for channel in channels(kind) if channel in wanted]
    return [Version(kind, channel, name) for kind, channel in every for name, _ in schemas(kind, channel)]


def schemas(kind: Kind, channel: str) -> Iterator[tuple[str, Json]]:
    """The schemas of the versions that a channel has and we serve."""
    for version in crds(channel).get((kind.group, kind.kind), {}).get("versions", ()):
        if version["served"] and version["name"] in kind.versions:
            yield version["name"], version["schema"]["openAPIV3Schema"]


def places(schema: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Every place of a schema: its path (`[]` an item, `{}` a map's value) and what stands there."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from places(below, (*path, name))
    if "items" in schema:
        yield from places(schema["items"], (*path, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from places(schema["additionalProperties"], (*path, "{}"))


def defaulted(value: Any, schema: Json) -> Any:
    """The value with the defaults of a structural schema, as kube-apiserver fills them in: from the outside in."""
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        whole = dict(value)
        for name, below in properties.items():
            if "default" in below and (name not in whole or (whole[name] is None and not below.get("nullable"))):
                whole[name] = copy.deepcopy(below["default"])
        for name, one in whole.items():
            if name in properties:
                whole[name] = defaulted(one, properties[name])
            elif isinstance(more, dict):
                whole[name] = defaulted(one, more)
        return whole
    if isinstance(value, list) and "items" in schema:
        return [defaulted(item, schema["items"]) for item in value]
    return value
