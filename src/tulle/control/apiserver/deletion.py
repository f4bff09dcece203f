"""What a DELETE asks for beyond the object's name: Kubernetes' `DeleteOptions`, from the body or the query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tulle.control.apiserver import errors
from tulle.control.apiserver.target import flag, number

Raw = dict[str, Any]
Policy = Literal["", "Orphan", "Background", "Foreground"]

# Finalizers by which Kubernetes says what is to become of the objects that an object owns.
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_POLICIES: tuple[Policy, ...] = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True, slots=True)
class Deletion:
    """`policy`: what becomes of dependents ("": as the object itself says). `uid`, `resource_version`: what it must be now."""

    policy: Policy = ""
    uid: str | None = None
    resource_version: str | None = None

    def finalizers(self, given: list[str]) -> list[str]:
        """An object's finalizers after it was asked to go."""
        if not self.policy:
            return given
        kept = [one for one in given if one not in (ORPHAN, FOREGROUND)]
        return kept + {"Orphan": [ORPHAN], "Foreground": [FOREGROUND], "Background": []}[self.policy]

    @property
    def waits(self) -> bool:
        """Whether the client wants to know that the object is not gone yet."""
        return self.policy == "Foreground"


def deletion(value: Any, query: Mapping[str, str]) -> tuple[Deletion, bool]:
    """The options, and whether it is a dry run; `value` is the body, None where there was none. Raises a `Denial`."""
    if value is None:
        value = {"propagationPolicy": query.get("propagationPolicy") or None}
        if "orphanDependents" in query:
            value["orphanDependents"] = flag(query, "orphanDependents")
        number(query, "gracePeriodSeconds")
    if not isinstance(value, dict) or value.get("kind") not in (None, "", "DeleteOptions"):
        raise errors.bad_request("the body is no DeleteOptions")
    dry_run = value.get("dryRun") or []
    if dry_run not in ([], ["All"]):
        message = f'Unsupported value: {dry_run}: supported values: "All"'
        raise errors.bad_options("DeleteOptions", "dryRun", message, "FieldValueNotSupported")
    if type(value.get("gracePeriodSeconds")) not in (int, type(None)):
        raise errors.bad_request(f"gracePeriodSeconds: found {value['gracePeriodSeconds']!r}; needed a whole number")
    uid, version = _preconditions(value.get("preconditions"))
    return Deletion(_policy(value), uid, version), bool(dry_run)


def _policy(value: Raw) -> Policy:
    asked, orphan = value.get("propagationPolicy"), value.get("orphanDependents")
    if not isinstance(orphan, bool | None):
        raise errors.bad_request(f"orphanDependents: found {orphan!r}; needed true or false")
    policy: Policy | None = next((one for one in _POLICIES if one == asked), None)
    if asked is not None and policy is None:
        message = f'Unsupported value: "{asked}": supported values: "Background", "Foreground", "Orphan"'
        raise errors.bad_options("DeleteOptions", "propagationPolicy", message, "FieldValueNotSupported")
    if policy is not None and orphan is not None:
        message = f'Invalid value: "{asked}": orphanDependents and deletionPropagation cannot be both set'
        raise errors.bad_options("DeleteOptions", "propagationPolicy", message)
    if orphan is not None:
        return "Orphan" if orphan else "Background"
    return policy or ""


def _preconditions(wanted: Any) -> tuple[str | None, str | None]:
    if wanted is None:
        return None, None
    if not isinstance(wanted, dict):
        raise errors.bad_request("preconditions: needed an object with uid or resourceVersion")
    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
    if not isinstance(uid, str | None) or not isinstance(version, str | None):
        raise errors.bad_request("preconditions: uid and resourceVersion are strings")
    return uid, version
