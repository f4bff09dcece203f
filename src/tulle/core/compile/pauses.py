"""The longest pause between two retries, which neither API has a word for: an annotation of a route's object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from tulle.api.values import seconds
from tulle.core.compile.mistakes import error
from tulle.core.model.route import Route
from tulle.kit.problem import Problem, Ref

LONGEST = "tulle.dev/retry-backoff-max"
_BASE = 0.025  # seconds: Envoy's, where a route says no other


def paced(routes: Iterable[Route], notes: Mapping[str, str]) -> Iterator[Route]:
    """The routes of an object, with what its annotation says of their retries."""
    longest = _read(notes[LONGEST]) if LONGEST in notes else None
    for route in routes:
        if longest is None or route.retry is None:
            yield route
        else:
            retry = msgspec.structs.replace(route.retry, backoff=route.retry.backoff or _BASE, longest=longest)
            yield msgspec.structs.replace(route, retry=retry)


def pause_problems(ref: Ref, notes: Mapping[str, str]) -> Iterator[Problem]:
    """An annotation that is no duration."""
    if LONGEST in notes and _read(notes[LONGEST]) is None:
        message = f'found "{notes[LONGEST]}"; needed a duration of 1ms or more, such as 2s'
        yield error(ref, f"metadata.annotations[{LONGEST}]", "BadAnnotation", message)


def _read(text: str) -> float | None:
    try:
        found = seconds(text)
    except ValueError:
        return None
    return found if found >= 0.001 else None
