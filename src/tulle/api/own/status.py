"""What the mesh says of its own kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tulle.api.conditions import Condition, Generation
from tulle.api.list_types import keyed
from tulle.api.object import Schema
from tulle.api.times import Time
from tulle.api.values import Int32, Many

Conditions = Annotated[Many[Condition], Field(max_length=16), keyed("type")]


class MeshConfigStatus(Schema):
    """What is true of the mesh's configuration."""

    observed_generation: Generation | None = None
    conditions: Conditions = ()


class RuleStatus(Schema):
    """How a rule is enforced: what counts, how far the count may be off (percent of the limit), and what happens without it."""

    name: str
    enforcement: str = ""
    error_percent: Int32 | None = None
    on_failure: str = ""


class RateLimitStatus(Schema):
    """What is true of a rate limit and of each of its rules."""

    observed_generation: Generation | None = None
    conditions: Conditions = ()
    rules: Annotated[Many[RuleStatus], Field(max_length=64), keyed("name")] = ()


class RolloutStatus(Schema):
    """How far a rollout is: all that whoever goes on with it has to know.

    `change` is what is rolled out. `weight` is what the candidate is to have, in percent, and `previousWeight` what it had until
    that is written. `iterations` counts the checks of a step, `failedChecks` towards the threshold. `checkedAt` is when traffic
    was last judged, or given another weight. `answered` is the last command that was carried out. `confirmed`: webhooks have
    let it begin. `postRolloutDue`: those that are called at the end have still to be. `mirror` is the backend that the route
    copies requests to because of this rollout, `mirroring` whether that is to be written, is there, or is to be taken away.
    Of a roll-back: `badSince` is the end of the first bad window, `rolledBackAt` when it was decided, `acknowledgedAt` when the
    last proxy had it.
    """

    observed_generation: Generation | None = None
    change: str = ""
    phase: Literal["Waiting", "Progressing", "Promoting", "Finalising", "Succeeded", "Failed", "Paused", "Terminating"] | None = (
        None
    )
    weight: Int32 | None = None
    previous_weight: Int32 | None = None
    step: Int32 | None = None
    iterations: Int32 | None = None
    failed_checks: Int32 | None = None
    started_at: Time | None = None
    checked_at: Time | None = None
    answered: str = ""
    message: str = ""
    confirmed: bool = False
    post_rollout_due: bool = False
    mirror: str = ""
    mirroring: Literal["", "Wanted", "There", "Unwanted"] = ""
    bad_since: Time | None = None
    rolled_back_at: Time | None = None
    acknowledged_at: Time | None = None
    conditions: Conditions = ()
