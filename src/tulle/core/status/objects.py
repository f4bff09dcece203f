"""The status of each object, put together from the modules of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tulle.api.registry import GATEWAY_API, KINDS
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import INPUTS, ROUTES
from tulle.core.flow import Fetch, table
from tulle.core.status.backend_tls_policies import backend_tls_policy_status
from tulle.core.status.gateway_classes import gateway_class_status
from tulle.core.status.gateways import gateway_status
from tulle.core.status.istio import istio_status
from tulle.core.status.listener_sets import listener_set_status
from tulle.core.status.rate_limits import RESOURCE, rate_limit_status
from tulle.core.status.routes import route_status
from tulle.core.status.rows import Status

_Make = Callable[[Fetch, Key], Status | None]

_ROUTES = {resource: kind for resource, one in INPUTS.items() for kind, source in ROUTES.items() if one is source}
# Nodes write the status of WorkloadEntries.
_ISTIO = [kind.resource for kind in KINDS if kind.group.endswith(".istio.io") and kind.kind != "WorkloadEntry"]


def _route(kind: str) -> _Make:
    return lambda fetch, key: fetch(route_status, (kind, key))


def _istio(resource: str) -> _Make:
    return lambda fetch, key: fetch(istio_status, (resource, key))


# By `plural.group`. Objects of other kinds have no status that is ours.
BY_RESOURCE: Mapping[str, _Make] = {
    f"gatewayclasses.{GATEWAY_API}": lambda fetch, key: fetch(gateway_class_status, key),
    f"gateways.{GATEWAY_API}": lambda fetch, key: fetch(gateway_status, key),
    f"listenersets.{GATEWAY_API}": lambda fetch, key: fetch(listener_set_status, key),
    f"backendtlspolicies.{GATEWAY_API}": lambda fetch, key: fetch(backend_tls_policy_status, key),
    RESOURCE: lambda fetch, key: fetch(rate_limit_status, key),
    **{resource: _route(kind) for resource, kind in _ROUTES.items()},
    **{resource: _istio(resource) for resource in _ISTIO},
}


# Those whose status counts and names many others.
SUMS = frozenset({f"gateways.{GATEWAY_API}", f"backendtlspolicies.{GATEWAY_API}"})


@table
def object_status(fetch: Fetch, key: tuple[str, Key]) -> Status | None:
    """The status of (resource, object); None where it is not ours to write."""
    resource, name = key
    make = BY_RESOURCE.get(resource)
    return make(fetch, name) if make else None
