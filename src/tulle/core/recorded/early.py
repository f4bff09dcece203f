"""Calls that were refused before a word was said → the policy that refused them, which the proxy's filter does not tell. Pure.

The policies are those of now: a report is seconds old.
"""

from __future__ import annotations

import re

import msgspec

from tulle.core.doors import door
from tulle.core.evaluate.authorization import Call, judge
from tulle.core.model.recorded import EARLY, Shape
from tulle.core.pipeline import Pipeline

_RULE = re.compile(r"spec\.rules\[(\d+)\]")


def named(pipeline: Pipeline, shape: Shape) -> Shape:
    """The shape with its policy, where one denies such calls; as it is where none does any more, or no ALLOW holds."""
    if shape.details != EARLY or shape.policy or shape.reporter != "destination":
        return shape
    found = door(pipeline, shape.destination, shape.port, "*")
    if found is None or found.row is None:
        return shape
    verdict = judge(found.row, Call(shape.principal, destination_port=found.port))
    rule = _RULE.match(verdict.field)
    if verdict.allowed or rule is None:
        return shape
    return msgspec.structs.replace(shape, policy=f"{verdict.policy} rule {rule[1]}")
