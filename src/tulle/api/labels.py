"""Kubernetes' selector of objects by their labels."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ConfigDict, Field

from tulle.api.object import Fault, Ruled, Schema
from tulle.api.values import Many, Map


class LabelExpression(Schema):
    """A condition on a label: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: Many[str] = ()


class LabelSelector(Ruled):
    """Objects by their labels; all of it must hold."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    match_labels: Map[str] = Field(default_factory=dict)
    match_expressions: Many[LabelExpression] = ()

    def faults(self) -> Iterator[Fault]:
        """Known operators with as many values as they take."""
        for index, expression in enumerate(self.match_expressions):
            if expression.operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
                message = f'found "{expression.operator}"; needed In, NotIn, Exists or DoesNotExist'
                yield Fault(("matchExpressions", index, "operator"), message, "BadEnum")
            elif (expression.operator in ("In", "NotIn")) != bool(expression.values):
                message = (
                    f"found {len(expression.values)} values with {expression.operator}; needed {_values(expression.operator)}"
                )
                yield Fault(("matchExpressions", index, "values"), message)


def _values(operator: str) -> str:
    return "at least one" if operator in ("In", "NotIn") else "none"
