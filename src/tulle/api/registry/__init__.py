"""Every kind that is served, one record each. The API server, the decoder, OpenAPI and the command line read only this."""

from __future__ import annotations

from tulle.api.kind import Kind
from tulle.api.registry import gateway, istio, kubernetes, own
from tulle.api.registry.gateway import GATEWAY_API

__all__ = ["GATEWAY_API", "KINDS", "REVIEWS", "TOKEN_REQUEST", "kind_for", "kind_of_resource"]

# Where two kinds share a word (`gateways`), kubectl means the first.
KINDS: tuple[Kind, ...] = (*kubernetes.KINDS, *istio.KINDS, *gateway.KINDS, *own.KINDS)


def _review(group: str, kind: str, *, namespaced: bool = False, secretive: bool = False) -> Kind:
    schema = f"tulle.api.reviews:{kind}"
    return Kind(group, ("v1",), kind, f"{kind.lower()}s", schema, namespaced=namespaced, secretive=secretive, review=True)


# Questions about who may what: served beside `KINDS`, and nowhere kept.
REVIEWS: tuple[Kind, ...] = (
    _review("authorization.k8s.io", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "SubjectAccessReview"),
    _review("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization.k8s.io", "SelfSubjectRulesReview"),
    _review("authentication.k8s.io", "SelfSubjectReview"),
    _review("authentication.k8s.io", "TokenReview", secretive=True),
)
TOKEN_REQUEST = _review("authentication.k8s.io", "TokenRequest")  # a subresource of ServiceAccount

_BY_KIND = {(kind.group, kind.kind): kind for kind in KINDS}
_BY_RESOURCE = {kind.resource: kind for kind in KINDS}


def kind_for(group: str, kind: str) -> Kind | None:
    """The kind of that API group ("" for the core) and name, or None."""
    return _BY_KIND.get((group, kind))


def kind_of_resource(resource: str) -> Kind | None:
    """The kind of a resource as kubectl prints it (`virtualservices.networking.istio.io`, `services`), or None."""
    return _BY_RESOURCE.get(resource)
