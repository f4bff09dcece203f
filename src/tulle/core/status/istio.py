"""Objects of Istio's kinds → `status.conditions` and `status.validationMessages`.

`Reconciled`: every connected proxy has what the object changed. `PassedAnalysis`: nothing is wrong with it that would be refused;
its message has the field and the sentence of each validation message, which Istio's own form has no place for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulle.api.registry import kind_of_resource
from tulle.core.analyze.codes import code_of
from tulle.core.analyze.finding import RANK
from tulle.core.analyze.findings import object_findings
from tulle.core.compile.hostname import Key
from tulle.core.flow import Fetch, table
from tulle.core.status.rows import Condition, Status, false, true
from tulle.kit.problem import Problem, Severity

# So many messages at most, and the worst first: a status is read by people.
_MOST_MESSAGES = 32
_LEVELS = {Severity.ERROR: "ERROR", Severity.WARNING: "WARNING", Severity.INFO: "INFO"}


@table
def istio_status(fetch: Fetch, key: tuple[str, Key]) -> Status:
    """The status of (resource, object)."""
    kind = kind_of_resource(key[0])
    problems = fetch(object_findings, key) or ()
    reconciled = Condition("Reconciled", "True", "Reconciled", waits=(), kept=True)
    if kind is not None and not kind.acted_on:
        reconciled = false("Reconciled", "NotYetSupported", f"the mesh does not act on objects of kind {kind.kind} yet")
    fields = {"validationMessages": validation_messages(problems)}
    return Status((reconciled, _passed(problems)), fields=fields, numbered=True)


def _passed(problems: Sequence[Problem]) -> Condition:
    worst = [one for one in _worst(problems) if one.severity is not Severity.INFO]
    if not worst:
        return true("PassedAnalysis", "NoProblems", "nothing is wrong")
    message = "; ".join(f"{one.path}: {one.message}" for one in worst)
    if worst[0].severity is Severity.ERROR:
        return false("PassedAnalysis", "ErrorsFound", message)
    return true("PassedAnalysis", "WarningsFound", message)


def _worst(problems: Sequence[Problem]) -> list[Problem]:
    """The worst first, as many as are shown."""
    ordered = sorted(problems, key=lambda one: (RANK[one.severity], one.path, one.reason, one.message))
    return ordered[:_MOST_MESSAGES]


def validation_messages(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems in the form of Istio's AnalysisMessageBase."""
    worst = ((one, code_of(one).code) for one in _worst(problems))
    return [{"type": {"name": one.reason, "code": code}, "level": _LEVELS[one.severity]} for one, code in worst]
