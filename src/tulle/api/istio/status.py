"""What the mesh says of Istio's kinds: conditions, and the messages of its analysis."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from tulle.api.object import Schema
from tulle.api.times import Time
from tulle.api.values import IntOrString, Many


class IstioCondition(Schema):
    """One thing that is or is not so."""

    type: str = ""
    status: str = ""
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""
    observed_generation: IntOrString = None


class MessageType(Schema):
    """What kind of message it is: a name, and a code that does not change."""

    name: str = ""
    code: str = ""


class ValidationMessage(Schema):
    """A finding about the object."""

    type: MessageType | None = None
    level: Literal["UNKNOWN", "ERROR", "WARNING", "INFO"] = "UNKNOWN"
    documentation_url: str = ""


class IstioStatus(Schema):
    """What is true of the object. Fields that are not named here are kept as they are."""

    model_config = ConfigDict(extra="allow")

    conditions: Many[IstioCondition] = ()
    validation_messages: Many[ValidationMessage] = ()
    observed_generation: IntOrString = None
