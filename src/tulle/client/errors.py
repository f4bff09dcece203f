"""What an API server's refusals become for the callers of `client/api.py`: errors with the server's own sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulle.kit.errors import BadData, Refused, TulleError
from tulle.kit.problem import Problem, Ref


class ApiError(TulleError):
    """The API server answered with an error. `http` is its status code, `status` the `Status` object that it sent."""

    code = "api-error"

    def __init__(self, message: str, *, http: int = 0, status: Mapping[str, Any] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.http = http
        self.status = status or {}


class NotFound(ApiError):
    """The object, its namespace or its kind is not there."""

    code = "not-found"


class AlreadyExists(ApiError):
    """An object of that name is there already."""

    code = "already-exists"


class WriteConflict(ApiError):
    """The object has changed meanwhile, or a field belongs to another manager: read again, and decide."""

    code = "conflict"


class Expired(ApiError):
    """The revision that a watch or a long list named is no longer kept: list again."""

    code = "expired"


def from_status(http: int, status: Mapping[str, Any]) -> TulleError:
    """The error for a `Status` body, or for what little a server said that is none."""
    message = str(status.get("message") or f"the API server answered {http}")
    reason = status.get("reason")
    details = status.get("details")
    if http in (400, 422) and isinstance(details, Mapping) and details.get("causes"):
        ref = Ref(str(details.get("kind", "")), "", str(details.get("name", "")), str(details.get("group", "")))
        return BadData(
            [
                Problem(ref, str(cause.get("field", "")), str(cause.get("reason", "")), str(cause.get("message", "")))
                for cause in details["causes"]
            ]
        )
    if http in (401, 403):
        return Refused(message, hint="the kubeconfig's certificate or token does not permit this")
    if http in (400, 415, 422) and reason in ("BadRequest", "Invalid", "UnsupportedMediaType"):
        return BadData([Problem(None, "", str(reason), message)])
    kinds: dict[Any, type[ApiError]] = {404: NotFound, 409: WriteConflict, 410: Expired}
    kind = AlreadyExists if reason == "AlreadyExists" else kinds.get(http, ApiError)
    return kind(message, http=http, status=status)
