"""RateLimit → `status`: whether it stands; of each rule who counts, how far that may be off, and what holds when that is away."""

from __future__ import annotations

from typing import Any

from tulle.core.analyze.findings import object_findings
from tulle.core.compile.counters import members_of
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import rate_limits
from tulle.core.compile.rate_limits import limits_of, rule_name
from tulle.core.flow import Fetch, table
from tulle.core.model.rate_limit import Counting, Limit, Unit
from tulle.core.status.rows import Condition, Status, false, true
from tulle.kit.problem import Severity

RESOURCE = "ratelimits.tulle.dev"

# How far the count of all proxies together may be off, in percent of the limit, under steady load (docs/tasks/rate-limits.md).
ERROR_PERCENT = {Counting.LOCAL: 0, Counting.SHARED: 5, Counting.EXACT: 1}
# Findings that say that something of it stands nowhere.
_NOWHERE = ("TargetNotFound", "NoSection", "NothingCounts", "NoHttpPort", "NotYetSupported")


@table
def rate_limit_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a RateLimit."""
    row = fetch(rate_limits, key)
    if row is None:
        return None
    found = [one for one in fetch(object_findings, (RESOURCE, key)) or () if one.severity is not Severity.INFO]
    lost = [one for one in found if one.reason in _NOWHERE]
    message = "; ".join(f"{one.path}: {one.message}" for one in lost or found)
    accepted = true("Accepted", "WarningsFound" if found else "Accepted", message or "all rules stand at all targets")
    if lost:
        accepted = false("Accepted", lost[0].reason, message)
    limits = fetch(limits_of, key) or ()
    rules = [
        _rule(fetch, rule_name(rule, index), limit)
        for index, (rule, limit) in enumerate(zip(row.spec.rules, limits, strict=True))
    ]
    programmed = Condition("Programmed", "True", "Programmed", waits=(), kept=True)
    return Status((accepted, programmed), fields={"rules": rules}, numbered=True)


def _rule(fetch: Fetch, name: str, limit: Limit) -> dict[str, Any]:
    """How a rule is enforced, in words."""
    members: tuple[str, ...] = fetch(members_of, limit.id) or ()
    who = {
        Counting.LOCAL: "each proxy counts by itself",
        Counting.SHARED: f"an even part for each of {len(members)} proxies"
        if limit.unit is not Unit.REQUESTS
        else f"shares of the limit, one for each of {len(members)} proxies",
        Counting.EXACT: "the control plane is asked for each request",
    }[limit.counting]
    away = {
        Counting.LOCAL: "nothing is asked that could be away",
        Counting.SHARED: "proxies keep their shares",
        Counting.EXACT: "deny" if limit.denies else "allow",
    }[limit.counting]
    shadow = "; in shadow: nothing is refused" if limit.shadow else ""
    return {
        "name": name,
        "enforcement": who + shadow,
        "errorPercent": ERROR_PERCENT[limit.counting],
        "onFailure": away,
    }
