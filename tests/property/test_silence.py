"""No field is ignored in silence: each field of a kind that the mesh acts on changes what proxies are told, or a warning says no.

The fields are those of the schemas; nothing here knows which of them the compiler reads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.support.any_object import ACTED_ON, READ, Mesh, bases, key_of, put, schema_of
from tests.support.crds import Json, places
from tests.support.silence_exceptions import MEANINGLESS, SPEAKS_FOR
from tests.support.silence_objects import Place, Steps
from tulle.api import path as paths
from tulle.api.object import Kind
from tulle.kit.problem import Problem, Severity


def without(spec: Any, place: Place) -> Any:
    whole = copy.deepcopy(spec)
    at = whole
    for step in place[:-1]:
        at = at[step]
    del at[place[-1]]
    return whole


def silent(kind: Kind) -> Iterator[str]:
    """The fields that change nothing and of which nothing is said; and those that no right document was found for."""
    mesh, schema = Mesh(kind), schema_of(kind)["properties"]["spec"]
    for path, place in places(schema):
        if not path or path[-1] in ("[]", "{}") or not is_leaf(place) or is_meaningless(kind, ".".join(path)):
            continue
        tried = False
        for number, base in attempts(kind, path):
            if tried and number > 26:
                break
            answer = heard(mesh, base, schema, path, Random(number))
            tried = tried or answer is not None
            if answer:
                break
        if not answer:
            yield ".".join(path) if tried else f"{'.'.join(path)}: no document"


def attempts(kind: Kind, path: Steps) -> Iterator[tuple[int, Any]]:
    """Every document to start from with every seed. First those that have the most of the path: there a field has an effect, and
    elsewhere it has one by chance after hundreds.
    """
    near = sorted(bases(kind), key=lambda base: -depth(base, path))
    deepest = depth(near[0], path)
    first = [base for base in near if depth(base, path) == deepest][:3]
    yield from itertools.product(range(27), first)
    yield from itertools.product(range(60), near)


def depth(value: Any, path: Steps) -> int:
    """How many steps of a schema's path a document has."""
    for number, step in enumerate(path):
        try:
            value = value[0] if step == "[]" else next(iter(value.values())) if step == "{}" else value[step]
        except (KeyError, IndexError, StopIteration):
            return number
    return len(path)


def is_meaningless(kind: Kind, path: str) -> bool:
    return any(kind.kind == one and path.endswith(end) for one, end in MEANINGLESS)


def is_leaf(place: Json) -> bool:
    """Whether a place holds a value, or a list or map of values; what has fields is judged by them."""
    below = place.get("items") or place.get("additionalProperties") or place
    return "properties" not in below


def heard(mesh: Mesh, base: Any, schema: Json, path: Steps, random: Random) -> bool | None:
    """Whether a field is acted on or warned of; None where the document with it is refused."""
    spec, place = put(base, schema, path, random)
    if is_there(base, place) and random.random() < 0.3:
        spec = base  # what is written there by hand
    told = mesh.told(spec)
    if told is None:
        return None
    if any(problem.severity is Severity.WARNING and speaks_of(mesh.kind, problem, place) for problem in told[1]):
        return True
    others = [without(spec, place), *(put(spec, schema, path, Random(number))[0] for number in range(6))]
    if is_there(base, place):
        others.append(base)
    return any(other is not None and other[0] != told[0] for other in map(mesh.told, others))


def is_there(value: Any, place: Place) -> bool:
    try:
        for step in place:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def speaks_of(kind: Kind, problem: Problem, place: Place) -> bool:
    """Whether a problem is said at a place, around it or in it, or of all that the place belongs to."""
    steps = paths.split(problem.path)[1:]
    whole = next((steps[: -len(end)] for one, end in SPEAKS_FOR if one == key_of(kind) and steps[-len(end) :] == end), None)
    if whole is not None and place[: len(whole)] == whole:
        return True
    return len(steps) > 0 and steps[: len(place)] == place[: len(steps)]


# Kinds that are read and are not here, each with the reason.
ELSEWHERE = {
    "namespaces": "it has no field that is for the mesh",
    "leases.coordination.k8s.io": "only those for Gateways are read, for status: tests/unit/core/compile/test_gateway_starts.py",
    "workloadgroups.networking.istio.io": "nodes act on it: tests/unit/node/test_groups.py",
    "gatewayclasses.gateway.networking.k8s.io": "it decides whose Gateways are ours; what it says otherwise is in its conditions",
    "referencegrants.gateway.networking.k8s.io": "all that it says is which references count",
}


def test_every_kind_that_is_acted_on_is_here() -> None:
    """A new kind could ignore its fields."""
    assert {kind.resource for kind in READ} == {kind.resource for kind in ACTED_ON} | set(ELSEWHERE)


@pytest.mark.parametrize("kind", ACTED_ON, ids=lambda kind: kind.resource)
def test_no_field_is_ignored_in_silence(kind: Kind) -> None:
    """A person would believe in a timeout that nobody keeps."""
    found = {path for path in silent(kind) if not is_meaningless(kind, path)}
    assert not found, "\n".join(sorted(found))
