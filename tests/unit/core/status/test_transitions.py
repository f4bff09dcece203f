"""Which conditions turned, for Events: what broke, what is whole again, and nothing else."""

from __future__ import annotations

from typing import Any

from tulle.core.status.transitions import Turn, turns


def one(kind: str, status: str, reason: str = "R", message: str = "m") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def top(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": list(conditions)}


def test_what_breaks_is_a_warning_and_what_is_mended_is_normal() -> None:
    """`kubectl describe` would not show when something broke."""
    good, bad = top(one("Accepted", "True")), top(one("Accepted", "False", "Bad", "why"))
    assert turns(good, bad) == turns(None, bad) == [Turn(True, "Bad", "Accepted: why")]
    assert turns(bad, good) == [Turn(False, "R", "Accepted: m")]
    assert turns(None, good) == turns(good, good) == turns(bad, bad) == []


def test_what_is_not_decided_is_no_news() -> None:
    """Every change of a Gateway would be a warning until its proxy has answered."""
    good, waiting = top(one("Programmed", "True")), top(one("Programmed", "False", "Pending"))
    assert turns(good, waiting) == turns(waiting, good) == turns(None, waiting) == []
    assert turns(waiting, top(one("Programmed", "Unknown", "Other"))) == []


def test_some_conditions_are_bad_news_when_they_are_true() -> None:
    """A listener in conflict would be reported as mended."""
    clear, clash = top(one("Conflicted", "False")), top(one("Conflicted", "True", "ProtocolConflict"))
    assert turns(clear, clash) == [Turn(True, "ProtocolConflict", "Conflicted: m")]
    assert turns(clash, clear) == [Turn(False, "R", "Conflicted: m")]


def test_places_are_named_and_others_conditions_passed_over() -> None:
    """Which of three listeners broke would be left to guess."""
    status = {
        "listeners": [{"name": "web", "conditions": [one("Accepted", "False")]}],
        "parents": [{"parentRef": {"kind": "Gateway", "name": "gw"}, "conditions": [one("Accepted", "False")]}],
        "conditions": [one("example.com/Theirs", "False"), "text"],
        "ancestors": "none",
    }
    assert [turn.message for turn in turns(None, status)] == ["listener web: Accepted: m", "Gateway gw: Accepted: m"]
