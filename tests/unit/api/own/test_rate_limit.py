"""What is said of a RateLimit that cannot be: one sentence each, with what was found, where, and what is needed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mistakes import changed
from tests.unit.api.own.test_own import LIMIT, RULE
from tulle.api.decode import decode

NUMBER = "needed an integer from 1 to 4294967295"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("limit", 0, f"found 0; {NUMBER}"),
        ("limit", -5, f"found -5; {NUMBER}"),
        ("limit", 2**32, f"found 4294967296; {NUMBER}"),
        ("limit", 10**30, f"found a very large integer; {NUMBER}"),
        ("limit", "100", 'found "100" (a string); needed an integer'),
        ("burst", 2**32 - 1, "found 4294967295; needed at most 4294967195 with this limit"),
        ("overrides[0].limit", 0, f"found 0; {NUMBER}"),
        ("window", "0s", 'found "0s"; needed a duration of at least 1ms, such as "7s"'),
        ("window", "-1s", 'found "-1s"; needed a duration of at least 1ms, such as "7s"'),
        ("window", "25h", "found 25h; needed at most 24h"),
        ("key.header", ..., "found nothing; needed it, for the type is Header"),
    ],
)
def test_a_sentence_for_each(field: str, value: Any, said: str) -> None:
    """Otherwise who wrote a zero too many, or too few, would have to guess what is wrong with it."""
    decoded, problems = decode(changed(LIMIT, f"{RULE}.{field}", value))
    assert decoded is None
    assert [(problem.path, problem.message) for problem in problems] == [(f"{RULE}.{field}", said)]
