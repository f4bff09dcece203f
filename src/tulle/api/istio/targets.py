"""What a policy is for: workloads by their labels, or objects by reference; one of the two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tulle.api.istio.shared import WorkloadSelector
from tulle.api.object import Fault, Ruled
from tulle.api.rules import at_most_one
from tulle.api.values import Group, KindName, Many, ObjectName


class TargetRef(Ruled):
    """A Gateway, a Service or a ServiceEntry in the same namespace."""

    group: Group = ""
    kind: KindName
    name: ObjectName
    namespace: str = ""

    def faults(self) -> Iterator[Fault]:
        """The same namespace."""
        if self.namespace:
            yield Fault(
                ("namespace",), f'found "{self.namespace}"; needed none: a policy is for its own namespace', "BadNamespace"
            )


class Targeted(Ruled):
    """A policy's spec; `selector`, `target_ref` and `target_refs` exclude each other."""

    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: Annotated[Many[TargetRef], Field(max_length=16)] | None = None

    def faults(self) -> Iterator[Fault]:
        """One way to say for what."""
        yield from at_most_one(self, "selector", "targetRef", "targetRefs")
