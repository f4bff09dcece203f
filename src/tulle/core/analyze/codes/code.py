"""What a code is: the number of one kind of mistake, which never comes to mean another."""

from __future__ import annotations

import msgspec

from tulle.kit.problem import Severity


class Code(msgspec.Struct, frozen=True):
    """One kind of finding.

    `reasons` are the words that `Problem.reason` has for it. Where one word is said of several subjects, `kinds` (kinds of
    objects; empty: all) and the severity tell which code is meant. `explanation` says what goes wrong and why; `hint` what to do.
    `istio` are istioctl's codes for it, which people bring along in annotations and scripts.
    """

    code: str
    reasons: tuple[str, ...]
    severity: Severity
    title: str
    explanation: str
    hint: str
    kinds: tuple[str, ...] = ()
    istio: tuple[str, ...] = ()


def error(code: str, reasons: str, title: str, explanation: str, hint: str, kinds: str = "", istio: str = "") -> Code:
    """A mistake: `tulle apply` refuses the object. `reasons`, `kinds` and `istio` with spaces between."""
    return Code(
        code, tuple(reasons.split()), Severity.ERROR, title, explanation, hint, tuple(kinds.split()), tuple(istio.split())
    )


def warning(code: str, reasons: str, title: str, explanation: str, hint: str, kinds: str = "", istio: str = "") -> Code:
    """Something that is said, and stands."""
    return Code(
        code, tuple(reasons.split()), Severity.WARNING, title, explanation, hint, tuple(kinds.split()), tuple(istio.split())
    )


def info(code: str, reasons: str, title: str, explanation: str, hint: str, kinds: str = "", istio: str = "") -> Code:
    """Something that one may want to know."""
    return Code(code, tuple(reasons.split()), Severity.INFO, title, explanation, hint, tuple(kinds.split()), tuple(istio.split()))
