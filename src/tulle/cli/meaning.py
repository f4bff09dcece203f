"""What objects would mean beside those that the mesh has: the control plane's own compiler, run before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tulle.api.decode import decode
from tulle.api.object import Kind, Object
from tulle.api.registry import KINDS
from tulle.cli.files import Given
from tulle.core.compile import check
from tulle.core.compile.objects import INPUTS
from tulle.kit.problem import Problem, Ref, Severity

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

Row = tuple[str, str, str]  # resource, namespace, name


async def live(api: ApiClient) -> dict[Row, Object]:
    """Every object that the compiler reads, decoded; one that cannot be read is left out, as the control plane leaves it out."""
    # Secrets are not read: whoever applies files need not be allowed to.
    kinds = [kind for kind in KINDS if kind.resource in INPUTS and kind.resource != "secrets"]
    lists = await asyncio.gather(*(api.list(kind) for kind in kinds))
    found: dict[Row, Object] = {}
    for kind, answer in zip(kinds, lists, strict=True):
        for raw in answer.get("items", []):
            decoded, _ = decode(_whole(raw, kind))
            if decoded is not None:
                found[kind.resource, decoded.metadata.namespace, decoded.metadata.name] = decoded
    return found


def judge(standing: Mapping[Row, Object], given: Sequence[Given]) -> list[Problem]:
    """The problems that the given objects have, with their lines, and as warnings those that they make for standing ones."""
    before = set(check(standing.values()))
    after = {**standing, **{(item.kind.resource, item.namespace, item.name): item.object for item in given}}
    by_ref = {_key(item.ref): item for item in given}
    problems = []
    for problem in check(after.values()):
        item = by_ref.get(_key(problem.ref)) if problem.ref else None
        if item is not None:
            problems.append(msgspec.structs.replace(problem, location=problem.location or item.locate(problem.path)))
        elif problem not in before:
            problems.append(msgspec.structs.replace(problem, severity=Severity.WARNING))
    return problems


def _key(ref: Ref) -> tuple[str, str, str, str]:
    return ref.group, ref.kind, ref.namespace, ref.name


def _whole(raw: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """Items of a list come without what the list says for all of them."""
    version = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
    return {"apiVersion": version, "kind": kind.kind} | raw
