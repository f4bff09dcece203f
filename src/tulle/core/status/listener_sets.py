"""ListenerSet → its status: whether its Gateway takes it, and for each listener what became of it and how many routes it has."""

from __future__ import annotations

from tulle.api.gateway.shared import GROUP_NAME
from tulle.core.compile.gateway_workloads import is_ours
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.objects import gateways, listener_sets
from tulle.core.compile.places import places, takes_set
from tulle.core.flow import Fetch, table
from tulle.core.status.gateways import attached_counts, listener_part, programmed_of
from tulle.core.status.rows import Condition, Status, false, true


@table
def listener_set_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a ListenerSet; None where its Gateway is another controller's."""
    row = fetch(listener_sets, key)
    if row is None:
        return None
    parent = row.spec.parent_ref
    if (parent.group, parent.kind) != (GROUP_NAME, "Gateway"):
        return _none("InvalidParameters", f"spec.parentRef: found {parent.kind}; needed a Gateway")
    name = (parent.namespace or key[0], parent.name)
    gateway = fetch(gateways, name)
    if gateway is None:
        return _none("ParentNotAccepted", f"no Gateway {name[1]} in namespace {name[0]}")
    if not fetch(is_ours, gateway.spec.gateway_class_name):
        return None
    if not takes_set(fetch, gateway, row):
        takes = gateway.spec.allowed_listeners.namespaces.from_ if gateway.spec.allowed_listeners else "None"
        message = f"Gateway {name[0]}/{name[1]} takes no ListenerSets of namespace {key[0]}"
        return _none("NotAllowed", f"{message} (allowedListeners.namespaces.from: {takes})")
    fault = fetch(gateway_fault, name)
    if fault and fault.reason != "ListenersNotValid":
        return _none("ParentNotAccepted", f"Gateway {name[0]}/{name[1]} is not accepted: {fault.path}: {fault.message}")
    programmed = programmed_of(fetch, name, gateway, fault)
    there, verdicts, counts = fetch(places, name) or (), fetch(verdicts_of, name) or (), fetch(attached_counts, name) or ()
    mine = [index for index, one in enumerate(there) if one.set == key]
    listeners = tuple(listener_part(fetch, there[index], verdicts[index], counts[index], programmed) for index in mine)
    wrong = [
        f"{there[index].listener.name}: {refused.message}" for index in mine if (refused := verdicts[index].refused) is not None
    ]
    accepted = true("Accepted", message="all listeners are valid")
    if wrong:
        none = len(wrong) == len(mine)
        accepted = Condition("Accepted", "False" if none else "True", "ListenersNotValid", "; ".join(wrong))
        programmed = false("Programmed", "ListenersNotValid", "none of the listeners is valid") if none else programmed
    return Status((accepted, programmed), {"listeners": listeners})


def _none(reason: str, message: str) -> Status:
    return Status((false("Accepted", reason, message), false("Programmed", reason, message)))
