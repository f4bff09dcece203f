"""09xx: rate limits."""

from __future__ import annotations

from tulle.core.analyze.codes.code import info, warning

CODES = (
    warning(
        "TUL0901",
        "NoSection",
        "The part that is to be limited does not exist",
        "A targetRef names a port, a listener or a rule (`sectionName`) that its object does not have. Nothing is limited by it.",
        "use one of the names that the message lists, or leave sectionName out for all of the object",
    ),
    warning(
        "TUL0902",
        "NothingCounts",
        "Nobody counts",
        "Limits of a Service are counted by the sidecars of its workloads, and none of them has one.",
        "give the workloads sidecars (`tulle run`)",
    ),
    info(
        "TUL0903",
        "CoarseShares",
        "A limit is small for so many proxies",
        "A limit that proxies share is cut into one share for each. Less than one request at once is no share, so each lets one "
        "through where the limit is smaller than their number.",
        "use precision: exact for small limits",
    ),
    warning(
        "TUL0904",
        "NotCounted",
        "A part of the rule has no effect",
        "A rule asks for something that its place cannot count: a key by route where there is only one, or what is no request.",
        "use another key or another target",
        kinds="RateLimit",
    ),
)
