"""Gateways of the Gateway API → the labels and annotations that what was made for them is to have (`spec.infrastructure`).

That is the entry of a workload for one Gateway alone, and the Service that a node made in front of it. A workload that serves
other Gateways too is nobody's infrastructure, and a Service that a person wrote is that person's. What tells the mesh of a
workload no Gateway can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tulle.api.gateway import Gateway
from tulle.api.object import Metadata
from tulle.core.compile.gateway_workloads import GATEWAY_NAME, gateway_labels, gateway_workloads, is_ours
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import not_yet
from tulle.core.compile.objects import gateways, services, workload_entries
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem

_OURS = "tulle.dev/"
MADE = "tulle.dev/made-by-node"  # on a Service that no person wrote


class Infrastructure(msgspec.Struct, frozen=True):
    """What an object is to have, and what of that it has."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    standing: tuple[dict[str, str], dict[str, str]] = ({}, {})

    @property
    def stands(self) -> bool:
        """Whether it has all of it."""
        return self.standing == (self.labels, self.annotations)


@table
def infrastructure(fetch: Fetch, _key: None) -> dict[tuple[str, Key], Infrastructure]:
    """That of all gateway workloads that are for one Gateway alone, by (kind, object)."""
    found: dict[tuple[str, Key], Infrastructure] = {}
    for key in fetch(gateway_workloads, None) or ():
        name = (fetch(gateway_labels, key) or {}).get(GATEWAY_NAME)
        row = fetch(gateways, (key[0], name)) if name is not None else None
        if name is None:
            continue
        said = row.spec.infrastructure if row and fetch(is_ours, row.spec.gateway_class_name) else None
        labels, annotations = _said(said.labels if said else {}), _said(said.annotations if said else {})
        if entry := fetch(workload_entries, key):
            found["WorkloadEntry", key] = _of(entry.metadata, labels, annotations)
        for one in fetch(services_of, key) or ():
            made = fetch(services, one)
            if made is not None and MADE in made.metadata.annotations:
                found.setdefault(("Service", one), _of(made.metadata, labels, annotations))
    return found


def _said(words: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in words.items() if not _reserved(key)}


def _reserved(key: str) -> bool:
    return key.startswith(_OURS) or key == GATEWAY_NAME


def _of(has: Metadata, labels: dict[str, str], annotations: dict[str, str]) -> Infrastructure:
    standing = {key: has.labels[key] for key in labels if key in has.labels}
    noted = {key: has.annotations[key] for key in annotations if key in has.annotations}
    return Infrastructure(labels, annotations, (standing, noted))


def infrastructure_problems(row: Gateway) -> Iterator[Problem]:
    """What a Gateway would say in the mesh's own words."""
    said = row.spec.infrastructure
    for field, words in (("labels", said.labels), ("annotations", said.annotations)) if said else ():
        for key in words:
            if _reserved(key):
                yield not_yet(row.ref, f"spec.infrastructure.{field}[{key}]", f"{key} (the mesh's own) from a Gateway")
