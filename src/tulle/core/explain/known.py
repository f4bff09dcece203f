"""What the mesh knows of the two ends of a call: endpoints, policies and rules, off the rows that proxies are sent."""

from __future__ import annotations

import msgspec

from tulle.core.describe import Goal, Place, describe
from tulle.core.doors import door
from tulle.core.model.authorization import Action
from tulle.core.model.recorded import Example, Shape
from tulle.core.pipeline import Pipeline


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """`goal` is what was called, in words; `endpoints` those of it as they are now, `place` the one that was called.

    Objects are `Kind namespace/name`: the DestinationRule of the host, the Service, what asks for tokens, the policies that allow
    and those that ask somebody. `problems` are what the analysis has to say of the routing object.
    """

    goal: str = ""
    endpoints: tuple[Place, ...] | None = None
    place: Place | None = None
    rule: str = ""
    service: str = ""
    tokens: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def known(pipeline: Pipeline, shape: Shape, example: Example) -> Known:
    """Of one call."""
    host, port, subset = _goal(shape, example)
    namespace = (shape.source or shape.destination or example.proxy).partition("/")[0] or "default"
    goal = f"{host}:{port}{f' {subset}' if subset else ''}" if host else example.authority or f"port {port}"
    found = describe(pipeline, host, namespace) if host else None
    goals = found.destinations if found else ()
    endpoints = _endpoints(goals, host, port, subset)
    objects = [one.object for one in found.objects] if found else []
    row = None
    if shape.destination:
        there = door(pipeline, shape.destination, shape.port, host)
        row = there.row if there else None
    policies = row.policies if row else ()
    return Known(
        goal=goal,
        endpoints=endpoints,
        place=next((one for one in endpoints or () if one.address == example.endpoint), None),
        rule=next((one for one in objects if one.startswith("DestinationRule ")), ""),
        service=_service(host),
        tokens=tuple(dict.fromkeys(rule.name for rule in row.tokens)) if row else (),
        allows=tuple(f"{one.namespace}/{one.name}" for one in policies if one.action is Action.ALLOW and not one.dry_run),
        asks=tuple(f"{one.namespace}/{one.name}" for one in policies if one.action is Action.CUSTOM and not one.dry_run),
        problems=tuple(problem.message for problem in pipeline.problems() if shape.origin and str(problem.ref) == shape.origin),
    )


def _goal(shape: Shape, example: Example) -> tuple[str, int, str]:
    """Host, port and subset: of the cluster where the call got so far."""
    parts = example.cluster.split("|")
    if len(parts) == 4 and parts[0] == "outbound":
        return parts[3], int(parts[1]) if parts[1].isdigit() else shape.port, parts[2]
    return shape.service, shape.port, ""


def _endpoints(goals: tuple[Goal, ...], host: str, port: int, subset: str) -> tuple[Place, ...] | None:
    """Those of a destination; None where the mesh knows no such one."""
    name = f"{host}:{port}" + (f" {subset}" if subset else "")
    return next((goal.endpoints for goal in goals if goal.name == name), None)


def _service(host: str) -> str:
    name, _dot, rest = host.partition(".")
    namespace, _dot, suffix = rest.partition(".")
    if suffix.startswith("svc."):
        return f"Service {namespace}/{name}"
    return f"ServiceEntry for {host}" if host else ""
