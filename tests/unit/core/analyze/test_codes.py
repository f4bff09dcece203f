"""The table of codes: complete, without two meanings, and the same for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import tulle
from tests.unit.core.analyze import (
    test_documents,
    test_gateways,
    test_limits,
    test_references,
    test_routing,
    test_security,
    test_telemetry,
    test_versions,
    test_workloads,
)
from tulle.core.analyze.codes import CODES, SUBJECTS, code_of
from tulle.core.analyze.finding import finding
from tulle.core.analyze.renewals import Renewal, late
from tulle.kit.problem import Problem, Severity

SOURCE = Path(tulle.__file__).parent
MODULES = (
    test_references,
    test_routing,
    test_security,
    test_gateways,
    test_versions,
    test_documents,
    test_workloads,
    test_telemetry,
    test_limits,
)
# Where problems are made, and the argument that is the reason.
WHERE = ("api", "core/compile", "core/analyze", "cli/files.py")
REASON = {
    "Fault": 2,
    "error": 2,
    "warning": 2,
    "info": 2,
    "Problem": 2,
    "BadNode": 2,
    "_problem": 1,
    "_say": 1,
    "add": 1,
    "faulty": 1,
}
# Reasons of conditions alone: no problem has them.
CONDITIONS = {"ListenersNotValid", "UnsupportedValue", "PortUnavailable", "NoValidCACertificate"}
CONDITIONS |= {"InvalidCACertificateRef", "InvalidCACertificateKind"}
RUNNING = ["TUL0706"]  # codes of what runs, which no text provokes
SEVERITY = {"error": Severity.ERROR, "warning": Severity.WARNING, "info": Severity.INFO}


def test_every_code_has_a_case() -> None:
    """A code that no text provokes may be one that nothing finds."""
    tried = [code for module in MODULES for code in module.CASES]
    assert sorted([*tried, *RUNNING]) == sorted(code.code for code in CODES)


def test_certificates_that_are_late() -> None:
    """Broken: a node that cannot renew certificates is noticed when they have ended."""
    one = Renewal("shop/web", "host-1", due=600.0, not_after=1200.0)
    assert list(late([one], 599.0)) == []
    (problem,) = late([one], 900.0)
    found = finding(problem)
    assert (found.code, str(found.ref)) == ("TUL0706", "WorkloadEntry shop/web")
    assert found.message == "its certificate should have been renewed 5 minutes ago and ends in 5 minutes (node host-1)"
    (problem,) = late([msgspec.structs.replace(one, holder="node/host-1")], 1300.0)
    assert str(problem.ref) == "Node host-1"
    assert "has ended" in problem.message


def test_no_code_has_two_meanings() -> None:
    """People suppress by code: one that comes to mean something else hides what nobody wanted hidden."""
    names = [code.code for code in CODES]
    assert len(names) == len(set(names))
    words = [(reason, code.severity, kind) for code in CODES for reason in code.reasons for kind in code.kinds or ("",)]
    assert len(words) == len(set(words))
    for code in CODES:
        assert code.code.startswith("TUL")
        assert code.code[3:5] in SUBJECTS
        assert len(code.code) == 7
        assert code.title
        assert code.explanation.endswith(".")
        assert code.hint
        assert not code.hint.endswith(".")


def test_codes_never_change() -> None:
    """`codes.txt` has every code that was ever given, with its meaning: add lines to it, and change none."""
    given = (Path(__file__).parent / "codes.txt").read_text().splitlines()
    now = [
        f"{code.code} {code.severity} {' '.join(code.reasons)}" + (f" ({' '.join(code.kinds)})" if code.kinds else "")
        for code in CODES
    ]
    assert given == sorted(given)
    assert sorted(now) == given


def test_every_reason_has_a_code() -> None:
    """A mistake without a code could not be suppressed, looked up or explained. Add it to `core/analyze/codes`."""
    known = {reason for code in CODES for reason in code.reasons}
    by_severity = {(reason, code.severity) for code in CODES for reason in code.reasons}
    seen = set()
    for where, word, severity in _reasons():
        if word in CONDITIONS:
            continue
        assert word in known, f"{where}: {word}"
        if severity:
            assert (word, severity) in by_severity, f"{where}: {word} as {severity}"
        seen.add(word)
    assert len(seen) > 50, "the search finds what is there"
    assert known <= seen | {"Invalid"}, "words that nothing says"


def test_an_unknown_reason_is_a_bug() -> None:
    """It would get a code that means something else."""
    with pytest.raises(LookupError, match="NoSuchThing"):
        code_of(Problem(None, "", "NoSuchThing", ""))


def _reasons() -> Iterator[tuple[str, str, Severity | None]]:
    """(where, reason, severity) of every problem that the sources make; severity where it is said."""
    for place in WHERE:
        root = SOURCE / place
        for file in [root] if root.suffix else sorted(root.rglob("*.py")):
            if "codes" in file.parts:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    for word in _words(node, name, place):
                        yield f"{file}:{node.lineno}", word, SEVERITY.get(name)
                # `return "WrongType", f"found ..."`, `yield "PlaintextToStrict", workload`
                elif isinstance(node, ast.Tuple) and file.name in ("sentences.py", "decode.py", "tls.py", "certificates.py"):
                    for item in node.elts:
                        if isinstance(item, ast.Constant) and isinstance(item.value, str) and _is_word(item.value):
                            yield f"{file}:{node.lineno}", item.value, None


def _words(node: ast.Call, name: str, where: str) -> Iterator[str]:
    place = REASON.get(name)
    if name in ("Fault", "Clash") and where == "core/compile":
        place = 3 if len(node.args) > 3 else 0  # a condition's reason, and after it the problem's own
    arguments = [node.args[place]] if place is not None and place < len(node.args) else []
    if name in REASON:
        arguments += [keyword.value for keyword in node.keywords if keyword.arg in ("reason", "problem")]
    for argument in arguments:
        for part in ast.walk(argument):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and _is_word(part.value):
                yield part.value


def _is_word(text: str) -> bool:
    return text.isalpha() and text[0].isupper() and any(letter.islower() for letter in text)
