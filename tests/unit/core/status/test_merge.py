"""A computed status over the one that stands: what is kept, what is renewed, and what is nobody else's to take."""

from __future__ import annotations

from typing import Any

from tulle.core.status.merge import merged
from tulle.core.status.rows import PENDING, Condition, Part, Status, false, true

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
OURS, THEIRS = "tulle.dev/gateway-controller", "example.com/controller"


def written(status: Status, generation: int = 1, old: dict[str, Any] | None = None, now: str = THEN) -> dict[str, Any]:
    return merged(old, status, generation, now)


def parent(name: str, *conditions: Condition, controller: str = OURS) -> Part:
    return Part({"parentRef": {"name": name}, "controllerName": controller}, conditions)


def test_nothing_changes_where_nothing_changed() -> None:
    """Every look at an object would write it again, and every write would be looked at."""
    status = Status(
        (true("Accepted", message="fine"), false("Programmed", "Invalid", "no")),
        {"listeners": (Part({"name": "a", "supportedKinds": [], "attachedRoutes": 0}, (true("Accepted", message="m"),)),)},
        {"addresses": []},
    )
    first = written(status)
    assert merged(first, status, 1, NOW) == first
    assert first["listeners"][0]["supportedKinds"] == []
    assert "addresses" not in first


def test_the_time_of_a_condition_is_when_its_status_turned() -> None:
    """People would read that something broke just now which has been broken for a week."""
    first = written(Status((false("Accepted", "A", "a"),)))
    other = merged(first, Status((false("Accepted", "B", "b"),)), 2, NOW)
    (one,) = other["conditions"]
    assert (one["reason"], one["observedGeneration"], one["lastTransitionTime"]) == ("B", 2, THEN)
    (turned,) = merged(other, Status((true("Accepted", message="c"),)), 2, NOW)["conditions"]
    assert turned["lastTransitionTime"] == NOW


def test_conditions_of_others_stay_where_they_are() -> None:
    """Another controller's condition would be deleted with every write of ours."""
    foreign = {"type": "example.com/Audited", "status": "True", "reason": "Yes", "message": "", "lastTransitionTime": THEN}
    old = {"conditions": [foreign, *written(Status((true("Accepted", message="a"),)))["conditions"]]}
    after = merged(old, Status((false("Accepted", "A", "a"), true("Programmed", message="p"))), 1, NOW)
    assert [one["type"] for one in after["conditions"]] == ["example.com/Audited", "Accepted", "Programmed"]
    assert after["conditions"][0] == foreign


def test_a_condition_that_is_said_no_longer_goes() -> None:
    """A route that was mended would stay PartiallyInvalid."""
    first = written(Status(parts={"parents": (parent("gw", true("Accepted", message="a"), true("PartiallyInvalid", "X", "x")),)}))
    after = merged(first, Status(parts={"parents": (parent("gw", true("Accepted", message="a")),)}), 1, NOW)
    assert [one["type"] for one in after["parents"][0]["conditions"]] == ["Accepted"]


def test_entries_of_other_controllers_stay_and_of_vanished_parents_go() -> None:
    """Two controllers would delete each other's entries for ever, or a parent that a route left would still claim it."""
    theirs = {"parentRef": {"name": "gw"}, "controllerName": THEIRS, "conditions": [{"type": "Accepted", "status": "True"}]}
    mine = written(Status(parts={"parents": (parent("gw", true("Accepted", message="a")), parent("old"))}))["parents"]
    after = merged(
        {"parents": [theirs, *mine]}, Status(parts={"parents": (parent("gw", true("Accepted", message="a")),)}), 1, NOW
    )
    assert after["parents"] == [theirs, mine[0]]
    assert merged(after, Status(parts={"parents": ()}), 1, NOW)["parents"] == [theirs]
    assert merged(after, None, 1, NOW)["parents"] == [theirs]


def test_ancestors_and_parents_are_bounded() -> None:
    """The API server of a cluster would refuse the status for its length."""
    many = tuple(parent(f"p{index}") for index in range(40))
    assert len(written(Status(parts={"parents": many}))["parents"]) == 32
    ancestors = tuple(Part({"ancestorRef": {"name": str(index)}, "controllerName": OURS}) for index in range(20))
    assert len(written(Status(parts={"ancestors": ancestors}))["ancestors"]) == 16


def test_a_listener_that_went_takes_its_status_with_it() -> None:
    """A Gateway would list listeners that it no longer has."""
    first = written(Status(parts={"listeners": (Part({"name": "a"}), Part({"name": "b"}))}))
    after = merged(first, Status(parts={"listeners": (Part({"name": "b"}),)}), 1, NOW)
    assert [one["name"] for one in after["listeners"]] == ["b"]


def test_what_is_pending_takes_nothing_away() -> None:
    """A restart of the control plane, before the proxies are back, would turn every Gateway's Programmed off."""
    first = written(Status((true("Programmed", message="has it"),)))
    pending = Status((Condition("Programmed", "Unknown", PENDING, "not connected"),))
    assert merged(first, pending, 1, NOW) == first
    (renewed,) = merged(first, pending, 2, NOW)["conditions"]
    assert (renewed["status"], renewed["observedGeneration"], renewed["lastTransitionTime"]) == ("Unknown", 2, NOW)


def test_counts_are_kept_as_they_were_when_it_became_true() -> None:
    """A proxy that comes would have every object of the mesh written again, for the number in a sentence."""
    two = Status((Condition("Reconciled", "True", "Reconciled", "2/2", kept=True),), numbered=True)
    three = Status((Condition("Reconciled", "True", "Reconciled", "3/3", kept=True),), numbered=True)
    first = written(two)
    assert merged(first, three, 1, NOW) == first
    assert merged(first, three, 2, NOW)["conditions"][0]["message"] == "3/3"
    assert first["observedGeneration"] == 1


def test_a_status_of_a_newer_object_is_not_overwritten() -> None:
    """A control plane that is behind would write over what one that is ahead has found."""
    first = written(Status((true("Accepted", message="new"),)), generation=5)
    assert merged(first, Status((false("Accepted", "Old", "old"),)), 4, NOW) == first


def test_what_stands_there_may_be_anything() -> None:
    """One status that somebody wrote by hand would end the writer."""
    old = {"conditions": "none", "parents": [7, None], "listeners": {"a": 1}, "extra": True}
    after = merged(old, Status((true("Accepted", message="a"),), {"parents": (parent("gw"),), "listeners": ()}), 1, NOW)
    assert after["extra"] is True
    assert [one["type"] for one in after["conditions"]] == ["Accepted"]
    assert len(after["parents"]) == 1
