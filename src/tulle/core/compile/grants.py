"""Whether an object of one namespace may name an object of another (ReferenceGrants), or attach to it (`from` and a selector)."""

from __future__ import annotations

from tulle.api.gateway.shared import GROUP_NAME
from tulle.api.labels import LabelSelector
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import namespaces, reference_grants
from tulle.core.flow import Fetch


def granted(fetch: Fetch, kind: str, namespace: str, to_kind: str, to: Key) -> bool:
    """Whether objects of `kind` (of the Gateway API) in `namespace` may name `to`, of the core kind `to_kind`.

    Within one namespace everything may; across, a ReferenceGrant beside the object has to say so.
    """
    if to[0] == namespace:
        return True
    for grant in fetch.rows(reference_grants, "namespace", to[0]):
        comes = any((one.group, one.kind, one.namespace) == (GROUP_NAME, kind, namespace) for one in grant.spec.from_)
        goes = any((one.group, one.kind) == ("", to_kind) and one.name in (None, "", to[1]) for one in grant.spec.to)
        if comes and goes:
            return True
    return False


def no_grant(kind: str, namespace: str, to_kind: str, to: Key) -> str:
    """The sentence for what is not granted."""
    return (
        f"{to_kind} {to[0]}/{to[1]} is in another namespace; needed a ReferenceGrant in namespace {to[0]} "
        f"from {kind}s of namespace {namespace}"
    )


def from_namespace(fetch: Fetch, from_: str, selector: LabelSelector | None, owner: str, namespace: str) -> bool:
    """Whether what a Gateway of the namespace `owner` says of namespaces (`from` and a selector) lets `namespace` in."""
    if from_ == "Same":
        return namespace == owner
    if from_ == "Selector":
        row = fetch(namespaces, ("", namespace))
        labels = {"kubernetes.io/metadata.name": namespace, **(row.metadata.labels if row else {})}
        return selector is not None and _selects(selector, labels)
    return from_ == "All"


def _selects(selector: LabelSelector, labels: dict[str, str]) -> bool:
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for one in selector.match_expressions:
        there = one.key in labels
        if one.operator in ("In", "NotIn"):
            there = there and labels[one.key] in one.values
        if there is (one.operator in ("NotIn", "DoesNotExist")):
            return False
    return True
