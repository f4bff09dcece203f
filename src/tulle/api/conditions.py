"""Conditions in `status`, as Kubernetes has them: what is true of an object, why, and since when."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tulle.api.object import Schema
from tulle.api.times import Time
from tulle.api.values import Words

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_TYPE = rf"^({_SUBDOMAIN}/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
_REASON = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"

Generation = Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra={"format": "int64"})]


class Condition(Schema):
    """One thing that is or is not so. `observedGeneration` is the generation of the object that was looked at."""

    type: Annotated[str, Field(pattern=_TYPE, max_length=316), Words('a condition such as "Accepted"')]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(pattern=_REASON, min_length=1, max_length=1024), Words('a reason in one word, "NoMatch"')]
    message: Annotated[str, Field(max_length=32768)]
    last_transition_time: Time
    observed_generation: Generation | None = None


def waiting(*types: str) -> tuple[Condition, ...]:
    """The conditions of an object that nobody has looked at yet."""
    return tuple(
        Condition(
            type=one,
            status="Unknown",
            reason="Pending",
            message="Waiting for controller",
            last_transition_time="1970-01-01T00:00:00Z",
        )
        for one in types
    )
