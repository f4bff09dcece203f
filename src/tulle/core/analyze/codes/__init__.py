"""Every code, in one table: what it is called by decode, compile and the analyzers, how bad it is, and how it is mended.

A code never changes its meaning and is never given to another; `tests/unit/core/analyze/codes.txt` holds all that were ever
given. The hundreds tell the subject: 01 references, 02 routing, 03 TLS and security, 04 gateways, 05 versions and what is not
supported, 06 documents, 07 workloads, 08 telemetry, 09 rate limits.
"""

from __future__ import annotations

from tulle.core.analyze.codes import documents, gateways, limits, references, routing, security, telemetry, versions, workloads
from tulle.core.analyze.codes.code import Code
from tulle.kit.problem import Problem, Severity

__all__ = ["BY_CODE", "CODES", "SUBJECTS", "Code", "code_of"]

SUBJECTS = {
    "01": "References",
    "02": "Routing",
    "03": "TLS and security",
    "04": "Gateways",
    "05": "Versions, and what is not supported",
    "06": "Documents",
    "07": "Services and workloads",
    "08": "Telemetry",
    "09": "Rate limits",
}
CODES: tuple[Code, ...] = (
    *references.CODES,
    *routing.CODES,
    *security.CODES,
    *gateways.CODES,
    *versions.CODES,
    *documents.CODES,
    *workloads.CODES,
    *telemetry.CODES,
    *limits.CODES,
)
BY_CODE = {code.code: code for code in CODES}
_BY_REASON: dict[tuple[str, Severity, str], Code] = {
    (reason, code.severity, kind): code for code in CODES for reason in code.reasons for kind in code.kinds or ("",)
}


def code_of(problem: Problem) -> Code:
    """The code of a problem, by its reason, its severity and the kind of its object. A reason without a code is a bug."""
    kind = problem.ref.kind if problem.ref else ""
    found = _BY_REASON.get((problem.reason, problem.severity, kind)) or _BY_REASON.get((problem.reason, problem.severity, ""))
    if found is None:
        raise LookupError(f"{problem.reason} ({problem.severity}) of {kind or 'a document'} has no code")
    return found
