"""Routes of the Gateway API, of all kinds → `status.parents`: for each parentRef whether the parent takes it, and why not."""

from __future__ import annotations

from typing import Any

from tulle.api.gateway import GRPCRoute, HTTPRoute
from tulle.api.gateway.shared import GROUP_NAME, ParentRef
from tulle.core.compile.gateway_tcp import unresolved
from tulle.core.compile.gateway_workloads import CONTROLLER
from tulle.core.compile.hostname import Key
from tulle.core.compile.kinds import L4, RULES
from tulle.core.compile.listeners import Fault
from tulle.core.compile.objects import ROUTES, Route
from tulle.core.compile.parents import Attachment, attachments_of
from tulle.core.flow import Fetch, table
from tulle.core.status.rows import Condition, Part, Status, false, refused, true
from tulle.kit.problem import Severity

# What makes a reference of a route unresolved, and the Gateway API's reason for it.
_UNRESOLVED = {
    "InvalidKind": "InvalidKind",
    "RefNotPermitted": "RefNotPermitted",
    "NotExported": "RefNotPermitted",
    "BackendNotFound": "BackendNotFound",
    "PortNotFound": "BackendNotFound",
    "UnsupportedProtocol": "UnsupportedProtocol",
}
_MOST_PARENTS = 32


@table
def route_status(fetch: Fetch, key: tuple[str, Key]) -> Status | None:
    """The status of (kind, route), with entries for those parents only that are ours."""
    kind, name = key
    row = fetch(ROUTES[kind], name)
    if row is None:
        return None
    fault = fetch(route_fault, key)
    resolved = _resolved(fetch, kind, row, name)
    partly = _partially_invalid(fetch, kind, name)
    without = _without_effect(fetch, kind, name)
    parents = (
        _parent(row.spec.parent_refs[one.index], one, fault, resolved, partly, without)
        for one in fetch(attachments_of, key) or ()
        if one.ours
    )
    return Status(parts={"parents": tuple(parents)[:_MOST_PARENTS]})


def _parent(
    ref: ParentRef, one: Attachment, fault: Fault | None, resolved: Condition, partly: Condition | None, without: str
) -> Part:
    found = one.fault or fault
    accepted = refused("Accepted", found) if found else true("Accepted", message=without or "the parent takes the route")
    conditions = (accepted, resolved, *((partly,) if partly and not found else ()))
    return Part({"parentRef": parent_ref(ref), "controllerName": CONTROLLER}, conditions)


def parent_ref(ref: ParentRef) -> dict[str, Any]:
    """A parentRef as the route has it, with the API's defaults."""
    optional = {"namespace": ref.namespace, "sectionName": ref.section_name, "port": ref.port}
    given = {field: value for field, value in optional.items() if value is not None}
    return {"group": ref.group, "kind": ref.kind, "name": ref.name, **given}


@table
def route_fault(fetch: Fetch, key: tuple[str, Key]) -> Fault | None:
    """Why a route is not accepted by any parent: each of its rules says something that is not supported yet."""
    kind, name = key
    row = fetch(ROUTES[kind], name)
    made = fetch(RULES[kind], name) if kind in RULES else None
    if row is None or made is None or not made.refused or len(made.refused) < len(row.spec.rules):
        return None
    return Fault("UnsupportedValue", f"every request is answered 500: {_said(made.problems, 'NotYetSupported', 'filters')}")


def _partially_invalid(fetch: Fetch, kind: str, name: Key) -> Condition | None:
    made = fetch(RULES[kind], name) if kind in RULES else None
    if made is None or not (made.refused or made.partly):
        return None
    message = f"answered 500, the other rules are served: {_said(made.problems, 'NotYetSupported', 'filters')}"
    return true("PartiallyInvalid", "UnsupportedValue", message)


def _without_effect(fetch: Fetch, kind: str, name: Key) -> str:
    """What the route says that is left out, for a person who reads that it is accepted."""
    row = fetch(ROUTES[kind], name) if kind in L4 or kind == "UDPRoute" else None
    if row is not None and len(row.spec.rules) > 1:
        return "the parent takes the route; its first rule takes everything, and the others have no effect"
    if kind == "UDPRoute":
        return "the parent takes the route; the mesh neither encrypts nor authorizes datagrams"
    made = fetch(RULES[kind], name) if kind in RULES else None
    left_out = _said(
        [one for one in (made.problems if made else ()) if ".filters" not in one.path and one.severity is Severity.WARNING],
        "NotYetSupported",
    )
    return f"the parent takes the route, without some of its fields: {left_out}" if left_out else ""


def _said(problems: Any, reason: str, field: str = "") -> str:
    """The problems of a reason (below a field) as one sentence."""
    chosen = (f"{one.path}: {one.message}" for one in problems if one.reason == reason and field in one.path)
    return "; ".join(chosen)


def _resolved(fetch: Fetch, kind: str, row: Route, name: Key) -> Condition:
    if kind in RULES:
        made = fetch(RULES[kind], name)
        found = [one for one in (made.problems if made else ()) if one.reason in _UNRESOLVED]
    else:
        assert not isinstance(row, HTTPRoute | GRPCRoute)
        found = list(unresolved(fetch, row))
    if not found:
        return true("ResolvedRefs", message="all references were found and are permitted")
    message = "; ".join(f"{one.path}: {one.message}" for one in found)
    return false("ResolvedRefs", _UNRESOLVED[found[0].reason], message)


def gateways_of(fetch: Fetch, kind: str, name: Key) -> set[Key]:
    """The Gateways of ours to which a route says that it belongs."""
    row = fetch(ROUTES[kind], name)
    attached = fetch(attachments_of, (kind, name)) or ()
    if row is None:
        return set()
    ours = (one for one in attached if one.ours and one.gateway is not None)
    return {one.gateway for one in ours if one.gateway and row.spec.parent_refs[one.index].group == GROUP_NAME}
