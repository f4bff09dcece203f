"""`tulle ratelimit status`: what it says of a rule, and which rule first."""

from __future__ import annotations

import pytest

from tulle.cli.ratelimit import _row, _urgency
from tulle.core.ratelimit.status import RuleStatus

CALM = RuleStatus("default/a/0", "shared", 100, 1.0, used=0.1)
FULL = RuleStatus("default/b/0", "shared", 100, 60.0, burst=20, rate=95, passed=900, used=0.95)
HIT = RuleStatus("default/c/0", "local", 5, 3600.0, keyed=True, rate=9, over=4, refused=7, used=1.0)
TRIED = RuleStatus("default/d/0", "local", 5, 90.0, shadow=True, rate=900, over=890, used=1.0)
AWAY = RuleStatus("default/e/0", "exact", 1000, 86400.0, failing=12, failed=1200, denies=True)
BACK = RuleStatus("default/f/0", "exact", 1000, 86400.0, failed=1200, used=0.2)


def test_what_needs_somebody_comes_first() -> None:
    """Otherwise the rule that refuses at night would be the last of a thousand."""
    assert sorted([CALM, FULL, HIT, TRIED, AWAY, BACK], key=_urgency) == [AWAY, HIT, TRIED, FULL, BACK, CALM]


@pytest.mark.parametrize(
    ("rule", "limit", "state"),
    [
        (CALM, "100 Requests / 1s", "within"),
        (FULL, "100 Requests / 1m +20", "near"),
        (HIT, "5 Requests / 1h a key", "refusing"),
        (TRIED, "5 Requests / 90s", "shadow: nothing is refused"),
        (AWAY, "1,000 Requests / 24h", "12.0/s not counted, refused"),
        (BACK, "1,000 Requests / 24h", "within"),
    ],
)
def test_a_row_says_the_limit_as_it_was_written_and_how_it_is_now(rule: RuleStatus, limit: str, state: str) -> None:
    """Otherwise people would divide 86,400 by hand, or look for a Redis that has been back for days."""
    row = _row(rule)
    assert (row[2], row[-1]) == (limit, state)
