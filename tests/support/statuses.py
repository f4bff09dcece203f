"""The statuses of a set of objects as they would be written, with proxies that have acknowledged everything: for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.core.pipeline import Pipeline
from tulle.core.status.merge import merged
from tulle.core.status.progress import Asked, decided
from tulle.xds.status import Progress

Raw = dict[str, Any]
NOW = "2026-01-02T03:04:05Z"


class _Done(dict[str, Progress]):
    """Every proxy is connected and done."""

    def __missing__(self, proxy: str) -> Progress:
        return Progress(proxy)

    def __contains__(self, proxy: object) -> bool:
        return True


def written(pipeline: Pipeline, row: tuple[str, tuple[str, str]], old: Raw | None = None, generation: int = 1) -> Raw:
    """The status of a row as it would be written over `old`."""
    status = pipeline.statuses.status(row)
    if status is not None:
        status = decided(status, Asked(_Done({"a/proxy": Progress("a/proxy")}), lambda _proxy: 0))
    return merged(old, status, generation, NOW)


def statuses(objects: Iterable[Object]) -> dict[tuple[str, str, str], Raw]:
    """By (resource, namespace, name), for objects of the first generation."""
    changes = {}
    for one in objects:
        kind = kind_for(one.ref.group, one.kind)
        assert kind is not None
        changes[kind.resource, one.metadata.namespace, one.metadata.name] = one
    pipeline = Pipeline()
    pipeline.commit(changes)
    return {(row[0], *row[1]): written(pipeline, row) for row in pipeline.statuses.all()}


def find(found: Mapping[tuple[str, str, str], Raw], kind: str, namespace: str, name: str) -> Raw:
    """The status of a Gateway API object."""
    known = kind_for("gateway.networking.k8s.io", kind)
    assert known is not None
    return found[known.resource, namespace, name]


def condition(conditions: Sequence[Raw], kind: str) -> Raw:
    """The one condition of that type."""
    (one,) = (one for one in conditions if one["type"] == kind)
    return one
