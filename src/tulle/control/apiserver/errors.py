"""Refusals as Kubernetes says them: `Status` objects with reason, details and causes, on which kubectl and others match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulle.api.object import Kind
from tulle.kit.problem import Problem

Raw = dict[str, Any]


class Denial(Exception):
    """A request that ends with `Status` `body` and HTTP status `http`."""

    def __init__(self, http: int, reason: str, message: str, details: Raw | None = None) -> None:
        super().__init__(message)
        self.http = http
        self.body: Raw = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": http,
        }
        if details:
            self.body["details"] = details


def _details(kind: Kind, name: str) -> Raw:
    return {"name": name, "kind": kind.plural} | ({"group": kind.group} if kind.group else {})


def no_such_path(path: str) -> Denial:
    """Nothing is served there: kubectl reads it as a kind that the server does not have."""
    return Denial(404, "NotFound", f"the server could not find the requested resource: nothing is served at {path}")


def not_found(kind: Kind, name: str) -> Denial:
    """The object is not there."""
    return Denial(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> Denial:
    """An object of that name is there."""
    return Denial(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> Denial:
    """The object is not what the caller thinks it is."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Denial(409, "Conflict", message, _details(kind, name))


def apply_conflict(kind: Kind, name: str, causes: Sequence[tuple[str, str]]) -> Denial:
    """Server-side apply without `force` met fields of other managers: (manager, field path) each."""
    managers = sorted({manager for manager, _ in causes})
    message = f"Apply failed with {len(causes)} conflict{'s' if len(causes) > 1 else ''}: " + "; ".join(
        f'conflict{"s" if len(fields) > 1 else ""} with "{manager}": {", ".join(fields)}'
        for manager in managers
        if (fields := [field for owner, field in causes if owner == manager])
    )
    details = _details(kind, name)
    details["causes"] = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": field} for manager, field in causes
    ]
    return Denial(409, "Conflict", message, details)


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> Denial:
    """The object has mistakes; each problem is a cause with its field and sentence."""
    details: Raw = {"name": name, "kind": kind.kind} | ({"group": kind.group} if kind.group else {})
    details["causes"] = [{"reason": problem.reason, "message": problem.message, "field": problem.path} for problem in problems]
    said = ", ".join(f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems)
    what = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Denial(422, "Invalid", f'{what} "{name}" is invalid: {said}', details)


def bad_field(kind: Kind, name: str, path: str, message: str) -> Denial:
    """One field is wrong."""
    return invalid(kind, name, [Problem(None, path, "FieldValueInvalid", message)])


def bad_request(message: str) -> Denial:
    """The request makes no sense."""
    return Denial(400, "BadRequest", message)


def unauthorized() -> Denial:
    """Nobody has shown who they are."""
    return Denial(401, "Unauthorized", "Unauthorized: needed a client certificate of this mesh, found none")


def forbidden(message: str, kind: Kind | None = None, name: str = "") -> Denial:
    """The user may not."""
    return Denial(403, "Forbidden", message, _details(kind, name) if kind else None)


def expired(asked: int, oldest: int) -> Denial:
    """The revision is no longer kept."""
    return Denial(410, "Expired", f"too old resource version: {asked} ({oldest})")


def unsupported(found: str, accepted: Sequence[str]) -> Denial:
    """The body's media type cannot be read here."""
    message = f"the body of the request was in an unknown format ({found or 'none'}) - accepted media types include: "
    return Denial(415, "UnsupportedMediaType", message + ", ".join(accepted))


def method_not_allowed(method: str) -> Denial:
    """No such verb there."""
    return Denial(405, "MethodNotAllowed", f"the server does not allow {method} on the requested resource")
