"""Random documents: what kube-apiserver with upstream's CRDs accepts is accepted here, and what it refuses is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.corpora.test_cel import SEEDS, named
from tests.support.crd_documents import document, mutated
from tests.support.crd_rules import broken
from tests.support.crds import Version, versions
from tulle.api.decode import decode
from tulle.api.defaults import with_defaults
from tulle.kit.problem import Problem, Severity


def is_ours_alone(problem: Problem) -> bool:
    """Mistakes that a CRD cannot find and an implementation must: those of expressions and of label selectors."""
    return problem.reason == "BadRegex" or ".matchExpressions[" in problem.path


def some_document(version: Version, random: Random) -> dict[str, Any]:
    """A random document, or one that is right and then changed a little."""
    known = SEEDS.get(version.kind.kind)
    made: Any
    if known and random.random() < 0.7:
        made = random.choice(known)
        for _ in range(random.randint(0, 3)):
            made = mutated(made, version.schema, random)
    else:
        made = document(version.schema, random, often=random.choice((0.05, 0.2, 0.4)))
    return {part: value for part, value in made.items() if part in ("spec", "status")} if isinstance(made, dict) else {}


def errors(version: Version, body: Any) -> list[Problem]:
    _, problems = decode(named(version.kind, version.name, body))
    return [problem for problem in problems if problem.severity is Severity.ERROR]


@pytest.mark.parametrize("version", versions("experimental"), ids=repr)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False))
def test_the_gateway_api_judges_alike(version: Version, random: Random) -> None:
    """A document that other implementations take would be refused, or the other way round."""
    body = some_document(version, random)
    theirs, ours = broken(version.schema, body), errors(version, body)
    if theirs or not all(is_ours_alone(problem) for problem in ours):
        assert bool(theirs) == bool(ours), (body, theirs[:3], [str(problem) for problem in ours][:3])
    filled = errors(version, with_defaults(version.kind, version.name, body))
    assert bool(filled) == bool(ours), (body, "the defaults change the verdict")


@pytest.mark.parametrize("version", versions("istio"), ids=repr)
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False))
def test_what_istios_crds_refuse_is_refused(version: Version, random: Random) -> None:
    """A document that the CRD refuses would be stored. (Istio's own webhook refuses more, and so do we.)"""
    body = some_document(version, random)
    if theirs := broken(version.schema, body):
        assert errors(version, body), (body, theirs[:3])
