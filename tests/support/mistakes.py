"""Documents with and without mistakes, in few lines: what a test of a kind's rules is made of."""

from __future__ import annotations

import copy
from typing import Any

from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.kit.problem import Severity


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with something else at a path; `...` (Ellipsis) removes what is there."""
    whole = copy.deepcopy(body)
    *way, last = paths.split(path)
    at: Any = whole
    for step in way:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return whole


def mistakes(body: dict[str, Any]) -> list[str]:
    """The paths of a document's errors, in order."""
    decoded, problems = decode(body)
    errors = [problem.path for problem in problems if problem.severity is Severity.ERROR]
    assert (decoded is None) == bool(errors)
    return errors
