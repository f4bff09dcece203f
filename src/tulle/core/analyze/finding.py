"""A problem with its code: what `tulle analyze` prints, `tulle apply` refuses, and `kubectl` hears as a warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from tulle.core.analyze.codes import code_of
from tulle.kit.problem import Location, Problem, Ref, Severity

# The worst first.
RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class Finding(msgspec.Struct, frozen=True):
    """One mistake: `code` (TUL0101) is its kind, `ref` the object, `path` the field, `location` the place in a file.

    `message` says found and needed, `hint` what to do.
    """

    code: str
    severity: Severity
    ref: Ref | None
    path: str
    message: str
    hint: str = ""
    location: Location | None = None

    def __str__(self) -> str:
        """`reviews.yaml:12:9: VirtualService default/reviews: spec.hosts[0]: message [TUL0102]`."""
        parts = [str(self.location)] if self.location else []
        if self.ref:
            parts.append(str(self.ref))
        if self.path:
            parts.append(self.path)
        return f"{': '.join([*parts, self.message])} [{self.code}]"


def finding(problem: Problem) -> Finding:
    """The problem with its code."""
    code = code_of(problem)
    return Finding(
        code=code.code,
        severity=problem.severity,
        ref=problem.ref,
        path=problem.path,
        message=problem.message,
        hint=code.hint,
        location=problem.location,
    )


def in_order(findings: list[Finding]) -> list[Finding]:
    """By file and line, then by object and field; of those at one place the worst first."""

    def place(one: Finding) -> tuple[bool, str, int, int, str, str, int, str]:
        at = one.location
        where = (at is None, at.file, at.line, at.column) if at else (True, "", 0, 0)
        return (*where, str(one.ref or ""), one.path, RANK[one.severity], one.code)

    return sorted(findings, key=place)


def counted(findings: Iterable[Finding]) -> str:
    """`2 errors, 1 warning`; `nothing found`."""
    counts = Counter(one.severity for one in findings)
    said = [f"{counts[severity]} {severity.value}{'s' if counts[severity] != 1 else ''}" for severity in RANK if counts[severity]]
    return ", ".join(said) or "nothing found"
