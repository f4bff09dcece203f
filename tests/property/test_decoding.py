"""Whatever an object holds: decoding answers with sentences at places that are there, in bounded time, and never raises."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.any_object import put, schema_of
from tests.support.crd_documents import document, mutated
from tests.support.crds import Json
from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.api.defaults import with_defaults
from tulle.api.documents import read_documents
from tulle.api.object import Kind
from tulle.api.registry import KINDS
from tulle.api.shape import Shape
from tulle.api.transitions import transition_faults
from tulle.kit.problem import Problem, Severity

Steps = tuple[str, ...]

fuzz = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=10
)


def named(kind: Kind, version: str, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "apiVersion": f"{kind.group}/{version}" if kind.group else version, "kind": kind.kind}


@cache
def schema(kind: Kind) -> Json:
    return {**schema_of(kind), "required": ["metadata"]}


def some_object(kind: Kind, random: Random) -> dict[str, Any]:
    """A random object of a kind: most fields right, some not."""
    body = document(schema(kind), random, often=random.choice((0.1, 0.3, 0.6)))
    for _ in range(random.randint(0, 3)):
        body = mutated(body, schema(kind), random)
    body = body if isinstance(body, dict) else {}
    if random.random() < 0.7:
        body["metadata"] = {"name": "a"}
    return named(kind, random.choice(kind.versions), body)


def anywhere(body: Any, random: Random, value: Any) -> Any:
    """The object with a value somewhere in it."""
    whole = copy.deepcopy(body)
    at = whole
    while True:
        keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return whole
        key = random.choice(keys)
        if not isinstance(at[key], dict | list) or random.random() < 0.3:
            at[key] = value
            return whole
        at = at[key]


def is_placed(problem: Problem, body: Any) -> bool:
    """Whether the problem's place is in the object, or is a field that what is there does not have."""
    at: Any = body
    steps = paths.split(problem.path)
    for index, step in enumerate(steps):
        found = step in at if isinstance(at, dict) else isinstance(at, list) and isinstance(step, int) and step < len(at)
        if found:
            at = at[step]
        else:
            # A missing field, or one below what was left out or has another form.
            return index == len(steps) - 1 or at is None or index >= len(steps) - 2
    return True


def well_said(body: Any) -> list[Problem]:
    decoded, problems = decode(body)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    assert (decoded is None) == bool(errors)
    for problem in problems:
        assert "found" in problem.message
        assert "needed" in problem.message
        assert len(problem.message) <= 2000
        assert is_placed(problem, body), (problem.path, problem.message)
        str(problem).encode()
    return errors


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
@fuzz
@given(random=st.randoms(use_true_random=False), value=values)
def test_any_object(kind: Kind, random: Random, value: Any) -> None:
    """A write, a `kubectl get` or a default would end in a traceback, or a mistake would be told of a place that is not there."""
    body = some_object(kind, random)
    for one in (body, anywhere(body, random, value)):
        errors = well_said(one)
        version = str(one.get("apiVersion")).rpartition("/")[2]
        if version in kind.versions:
            filled = with_defaults(kind, version, one)
            assert with_defaults(kind, version, filled) == filled
            if not errors:
                assert not well_said(filled)
        list(transition_faults(kind, body, one))
        for column in kind.columns if not errors else ():
            assert isinstance(column.value(one), str)


@given(random=st.randoms(use_true_random=False), noise=st.text(max_size=6), cut=st.integers(0, 10_000))
@fuzz
def test_any_file(random: Random, noise: str, cut: int) -> None:
    """A file that a hand or a disk has damaged would end in a traceback, or in a problem without its place."""
    bodies = [some_object(random.choice(KINDS), random) for _ in range(random.randint(1, 3))]
    text = yaml.safe_dump_all(bodies, allow_unicode=True, default_flow_style=random.random() < 0.2)
    place = cut % (len(text) + 1)
    damaged = text[:place] + noise + text[place + random.randint(0, 3) :]
    for source in (damaged, damaged.encode(errors="surrogatepass"), damaged.encode(errors="surrogatepass")[place:]):
        documents, problems = read_documents(source, "f")
        for problem in problems:
            assert problem.location is not None
            assert 1 <= problem.location.line <= text.count("\n") + noise.count("\n") + 2
            str(problem).encode()
        for one in documents:
            for problem in decode(one.raw, one.locate)[1]:
                assert problem.location is not None


def places() -> Iterator[tuple[Kind, Steps, Shape]]:
    """Every text, list and map of every schema class, at the first place where the class stands."""
    seen: set[Any] = set()
    for kind in KINDS:
        yield from _places(kind, Shape(kind.model), (), seen)


def _places(kind: Kind, shape: Shape, path: Steps, seen: set[Any]) -> Iterator[tuple[Kind, Steps, Shape]]:
    for name, field in shape.fields.items():
        if (shape.model, name) in seen or (not path and name in ("apiVersion", "kind")):
            continue
        seen.add((shape.model, name))
        at, below = (*path, name), field
        if field.item is not None or field.value is not None or field.annotation is str:
            yield kind, at, field
        while (inner := below.item or below.value) is not None:
            at = (*at, "[]" if below.item is not None else "{}")
            below = inner
        yield from _places(kind, below, at, seen)


LONG = (
    "a" * 100_000 + "!",
    "a-" * 50_000,
    "a." * 50_000 + "!",
    "1m" * 50_000 + "!",
    "/a" * 50_000 + "#",
    "(" * 16_000,
    "(a+)+" * 3000,
)


def test_long_values_take_no_long_time() -> None:
    """An object of a hundred kilobytes would keep everybody waiting: an expression that backtracks, a list that is quadratic."""
    slow = []
    for kind, path, shape in places():
        place = schema_of(kind)
        body, at = put({"metadata": {"name": "a"}}, place, path, Random(1))
        holder: Any = body
        for step in at[:-1]:
            holder = holder[step]
        for value in _long(holder[at[-1]], shape):
            holder[at[-1]] = value
            started = time.process_time()
            _, problems = decode(named(kind, kind.stored, body))
            took = time.process_time() - started
            if took > 1:
                slow.append(f"{kind.kind} {'.'.join(path)}: {took:.1f} s")
            assert len(problems) <= 1000
            assert all(len(problem.message) <= 2000 for problem in problems)
    assert not slow, "\n".join(slow)


def _long(value: Any, shape: Shape) -> Iterator[Any]:
    if isinstance(value, str):
        yield from LONG
    elif isinstance(value, list):
        item = value[0] if value else None
        yield [item] * 4000
        if isinstance(item, str):
            yield [f"{item}{number}" for number in range(4000)]
        if isinstance(item, dict) and (key := next((key for key in item if isinstance(item[key], str)), None)):
            yield [{**item, key: f"a{number}"} for number in range(4000)]
    elif isinstance(value, dict) and shape.value is not None:
        one = next(iter(value.values()), "a")
        yield {f"k{number}": one for number in range(4000)}


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 50_000,
        "[" * 100_000,
        "a: " * 50_000,
        "- " * 100_000,
        "a: &x [1]\n" + "".join(f"b{n}: *x\n" for n in range(20_000)),
        "---\n" * 50_000,
        "a: 1\n---\n" * 5000,
        "a: 1\n" * 50_000,
        '{"a":1,' * 1 + ",".join('"b":1' for _ in range(50_000)) + "}",
        "? " * 20_000,
        "!!python/object:os.system " * 10_000,
        "a: |\n" + "  b\n" * 100_000,
        '"' + "\\u0000" * 50_000,
        "&a " * 20_000,
        "<<: {" * 20_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_files_take_no_long_time(text: str) -> None:
    """A file of some hundred kilobytes would take all of the time, of the memory or of the stack."""
    started = time.process_time()
    documents, problems = read_documents(text, "f")
    for one in documents[:50]:
        decode(one.raw, one.locate)
    assert time.process_time() - started < 10
    assert documents or problems or not text.strip("-\n")
