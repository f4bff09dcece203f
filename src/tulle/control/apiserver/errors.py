"""Refusals as Kubernetes says them: `Status` objects with reason, details and causes, on which kubectl and others match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulle.api.object import Kind
from tulle.kit.problem import Problem

Raw = dict[str, Any]


# Our words for a mistake, as Kubernetes names the causes of a `Status`; all others are `FieldValueInvalid`.
_CAUSES = {
    "Required": "FieldValueRequired",
    "Duplicate": "FieldValueDuplicate",
    "WrongType": "FieldValueTypeInvalid",
    "BadEnum": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "TooLong": "FieldValueTooLong",
    "TooMany": "FieldValueTooMany",
}


class Denial(Exception):
    """A request that ends with `Status` `body`, HTTP status `http` and `headers` beside it."""

    def __init__(self, http: int, reason: str, message: str, details: Raw | None = None) -> None:
        super().__init__(message)
        self.http = http
        seconds = (details or {}).get("retryAfterSeconds")
        self.headers: dict[str, str] = {"Retry-After": str(seconds)} if seconds else {}
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


def already_exists(kind: Kind, name: str, *, going: bool = False) -> Denial:
    """An object of that name is there; `going`: it is being deleted."""
    message = f'{"object is being deleted: " if going else ""}{kind.resource} "{name}" already exists'
    return Denial(409, "AlreadyExists", message, _details(kind, name))


def no_name_left(kind: Kind, name: str) -> Denial:
    """Every name that was made from a `generateName` was taken."""
    message = f'{kind.resource} "{name}" already exists, the server was not able to generate a unique name for the object'
    return Denial(409, "AlreadyExists", message, {**_details(kind, name), "retryAfterSeconds": 1})


def terminating(kind: Kind, name: str, namespace: str) -> Denial:
    """Nothing new may come into a namespace that is being deleted."""
    message = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    details = {**_details(kind, name), "causes": [cause]}
    return Denial(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {message}', details)


def conflict(kind: Kind, name: str, why: str = "") -> Denial:
    """The object is not what the caller thinks it is."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Denial(409, "Conflict", message, _details(kind, name))


def apply_conflict(kind: Kind, name: str, causes: Sequence[tuple[str, str]]) -> Denial:
    """Server-side apply without `force` met fields of others: who (as `Conflicting.manager` says it) and field path each."""
    told = []
    for manager in sorted({manager for manager, _ in causes}):
        fields = [field for owner, field in causes if owner == manager]
        if len(fields) == 1:
            told.append(f"conflict with {manager}: {fields[0]}")
        else:
            told.append(f"conflicts with {manager}:\n- " + "\n- ".join(fields))
    message = f"Apply failed with {len(causes)} conflict{'s' if len(causes) > 1 else ''}: " + "\n".join(told)
    details = _details(kind, name)
    details["causes"] = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field} for manager, field in causes
    ]
    return Denial(409, "Conflict", message, details)


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> Denial:
    """The object has mistakes; each problem is a cause with its field and sentence."""
    details: Raw = {"name": name, "kind": kind.kind} | ({"group": kind.group} if kind.group else {})
    details["causes"] = _causes(problems)
    said = ", ".join(f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems)
    what = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Denial(422, "Invalid", f'{what} "{name}" is invalid: {said}', details)


def _causes(problems: Sequence[Problem]) -> list[Raw]:
    return [
        {"reason": _CAUSES.get(problem.reason, "FieldValueInvalid"), "message": problem.message, "field": problem.path}
        for problem in problems
    ]


def not_strict(kind: Kind, version: str, fields: Sequence[str], problems: Sequence[Problem]) -> Denial:
    """Strict field validation met fields that are unknown or stand twice, in Kubernetes' words; `problems`: all mistakes."""
    said = [f"{problem.path}: {problem.message}" for problem in problems]
    message = f'{kind.kind} in version "{version}" cannot be handled as a {kind.kind}: strict decoding error: '
    message += ", ".join(fields) + (" - " + "; ".join(said) if said else "")
    return Denial(400, "BadRequest", message, {"causes": _causes(problems)} if problems else None)


def bad_options(options: str, path: str, message: str, reason: str = "FieldValueInvalid") -> Denial:
    """A parameter of the request is wrong; `options`: `ListOptions`, `CreateOptions`, `PatchOptions`, ..."""
    details: Raw = {"name": "", "group": "meta.k8s.io", "kind": options}
    details["causes"] = [{"reason": reason, "message": message, "field": path}]
    return Denial(422, "Invalid", f'{options}.meta.k8s.io "" is invalid: {path}: {message}', details)


def bad_field(kind: Kind, name: str, path: str, message: str, reason: str = "Invalid") -> Denial:
    """One field is wrong."""
    return invalid(kind, name, [Problem(None, path, reason, message)])


def bad_request(message: str) -> Denial:
    """The request makes no sense."""
    return Denial(400, "BadRequest", message)


def unauthorized(why: str = "needed a client certificate of this mesh or a bearer token that is valid") -> Denial:
    """Nobody has shown who they are."""
    return Denial(401, "Unauthorized", f"Unauthorized: {why}")


def forbidden(message: str, kind: Kind | None = None, name: str = "") -> Denial:
    """The user may not."""
    return Denial(403, "Forbidden", message, _details(kind, name) if kind else None)


def expired(asked: int, oldest: int) -> Denial:
    """The revision of a watch is no longer kept."""
    return Denial(410, "Expired", f"too old resource version: {asked} ({oldest})")


def expired_list() -> Denial:
    """The revision of a list is no longer kept."""
    return Denial(410, "Expired", "The resourceVersion for the provided list is too old.")


def expired_continue(token: str) -> Denial:
    """The revision of a list's next page is no longer kept; `token` goes on with what is there now."""
    denial = Denial(
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
        "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
        "with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the "
        "time the first chunk was returned and now may show up in the list.",
    )
    denial.body["metadata"] = {"continue": token}
    return denial


def version_of_the_future(asked: int, current: int) -> Denial:
    """A resource version that the store has not reached."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return Denial(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def unsupported(found: str, accepted: Sequence[str]) -> Denial:
    """The body's media type cannot be read here."""
    message = f"the body of the request was in an unknown format ({found or 'none'}) - accepted media types include: "
    return Denial(415, "UnsupportedMediaType", message + ", ".join(accepted))


def not_acceptable(served: Sequence[str]) -> Denial:
    """Nothing that the client accepts can be made."""
    return Denial(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(served)}")


def too_large(limit: int) -> Denial:
    """The body has more than `limit` bytes."""
    return Denial(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit} bytes")


def method_not_allowed(method: str, allowed: Sequence[str] = ()) -> Denial:
    """No such verb there; `allowed` are."""
    denial = Denial(405, "MethodNotAllowed", f"the server does not allow {method} on the requested resource")
    if allowed:
        denial.headers["Allow"] = ", ".join(allowed)
    return denial
