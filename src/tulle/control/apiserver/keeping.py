"""What a write at a path cannot change, and what it must not: an object keeps its identity, `status` its own writers. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tulle.api import path as paths
from tulle.api.kind import Kind
from tulle.api.transitions import transition_faults
from tulle.control.apiserver import admission, errors
from tulle.control.apiserver.discovery import has_status
from tulle.control.apiserver.removal import finalizers, is_going
from tulle.control.apiserver.target import Target

Raw = dict[str, Any]

_KEPT = (
    *("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("resourceVersion", "selfLink", "generateName"),
)


def keeping(target: Target, live: Raw, new: Raw) -> Raw:
    """The new object with what a write at this path cannot change."""
    before, after = live["metadata"], new["metadata"]
    if after.get("uid") not in (None, "", before.get("uid")):
        why = f"Precondition failed: UID in precondition: {after['uid']}, UID in object meta: {before.get('uid')}"
        raise errors.conflict(target.kind, target.name, why)
    if target.subresource:
        metadata = {**before}
        if "managedFields" in after:
            metadata["managedFields"] = after["managedFields"]
        unchanged = {key: value for key, value in live.items() if key != "status"}
        return {**unchanged, "metadata": metadata} | ({"status": new["status"]} if "status" in new else {})
    metadata = {**after}
    for field in _KEPT:
        metadata.pop(field, None)
        if field in before:
            metadata[field] = before[field]
    if "managedFields" not in metadata and "managedFields" in before:
        metadata["managedFields"] = before["managedFields"]
    kept_body = {**new, "metadata": metadata}
    if has_status(target.kind):
        kept_body.pop("status", None)
        if "status" in live:
            kept_body["status"] = live["status"]
    return kept_body


def check_immutable(kind: Kind, live: Raw, new: Raw) -> None:
    """Raises a `Denial` where a field has changed that does not."""
    name = str(live["metadata"].get("name"))
    added = [one for one in finalizers(new) if one not in finalizers(live)]
    if is_going(live) and added:
        wrong = f"no new finalizers can be added if the object is being deleted, found new finalizers {', '.join(added)}"
        raise errors.bad_field(kind, name, "metadata.finalizers", wrong, "Forbidden")
    if kind.resource == "secrets" and live.get("type") != new.get("type"):
        raise errors.bad_field(kind, name, "type", "field is immutable: found another type; needed that of the stored Secret")
    if "roleRef" in live and live["roleRef"] != new.get("roleRef"):
        raise errors.bad_field(kind, name, "roleRef", "cannot change roleRef: make another binding instead")
    if kind.resource == "services":
        before, after = admission.address(live), admission.address(new)
        if before and after and before != after:
            wrong = f"found {after}; needed {before}: the address of a Service does not change"
            raise errors.bad_field(kind, name, "spec.clusterIP", wrong)
    for fault in transition_faults(kind, live, new):
        raise errors.bad_field(kind, name, paths.join(fault.at), fault.message)
    if kind.resource in ("secrets", "configmaps") and live.get("immutable") and wish(live) != wish(new):
        raise errors.bad_field(kind, name, "data", "found a change; needed none, for the object is immutable")


def wish(body: Mapping[str, Any]) -> Raw:
    """The part that a person wishes: its changes count as generations."""
    return {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def counts_generations(kind: Kind) -> bool:
    """Whether changes of what a person wishes are counted (`metadata.generation`): not in Kubernetes' oldest kinds."""
    return not kind.built_in or kind.resource == "endpointslices.discovery.k8s.io"


def new_uid() -> str:
    """A uid for a new object: unique, and not a secret, so that the system's source of randomness is not asked every time."""
    bits = f"{random.getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{'89ab'[int(bits[16], 16) % 4]}{bits[17:20]}-{bits[20:]}"


def stored_version(kind: Kind) -> str:
    """The `apiVersion` in which objects of the kind are stored."""
    return f"{kind.group}/{kind.stored}" if kind.group else kind.stored
