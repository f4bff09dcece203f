"""ListenerSet → its status. The mesh does not act on ListenerSets yet: none is accepted, and the sentence says why."""

from __future__ import annotations

from tulle.core.compile.gateway_workloads import is_ours
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import from_namespace
from tulle.core.compile.objects import gateways, listener_sets
from tulle.core.flow import Fetch, table
from tulle.core.status.rows import Status, false


@table
def listener_set_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a ListenerSet; None where its Gateway is another controller's."""
    row = fetch(listener_sets, key)
    if row is None:
        return None
    parent = row.spec.parent_ref
    name = (parent.namespace or key[0], parent.name)
    gateway = fetch(gateways, name)
    if gateway is not None and not fetch(is_ours, gateway.spec.gateway_class_name):
        return None
    reason, message = "NotYetSupported", "ListenerSets are not supported yet; needed the listeners in the Gateway itself"
    if gateway is None:
        reason, message = "ParentNotAccepted", f"no Gateway {name[1]} in namespace {name[0]}"
    else:
        said = gateway.spec.allowed_listeners
        takes = said.namespaces if said else None
        if takes is None or not from_namespace(fetch, takes.from_, takes.selector, name[0], key[0]):
            from_ = takes.from_ if takes else "None"
            message = f"Gateway {name[0]}/{name[1]} takes no ListenerSets of namespace {key[0]}"
            reason, message = "NotAllowed", f"{message} (allowedListeners.namespaces.from: {from_})"
    return Status((false("Accepted", reason, message), false("Programmed", reason, message)))
