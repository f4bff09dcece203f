"""Who sees an object: Istio's `exportTo`, else what MeshConfig says for all of a kind, else everybody."""

from __future__ import annotations

from tulle.api.istio import DestinationRule, ServiceEntry, VirtualService
from tulle.api.kubernetes import Service
from tulle.core.compile.objects import mesh_configs, visible
from tulle.core.flow import Fetch, table

# Where a Service says it.
EXPORT_TO = "networking.istio.io/exportTo"

Exported = DestinationRule | Service | ServiceEntry | VirtualService


@table
def usual_exports(fetch: Fetch, kind: str) -> tuple[str, ...]:
    """Who sees the objects of a kind (a ServiceEntry's is Service's) that say nothing of it; none written: everybody."""
    for config in fetch.rows(mesh_configs):
        spec = config.spec
        match kind:
            case "VirtualService":
                return spec.default_virtual_service_export_to
            case "DestinationRule":
                return spec.default_destination_rule_export_to
        return spec.default_service_export_to
    return ()


def said_exports(row: Service) -> tuple[str, ...]:
    """The words of a Service's annotation."""
    said = row.metadata.annotations.get(EXPORT_TO, "")
    return tuple(word for part in said.split(",") if (word := part.strip()))


def exports(fetch: Fetch, row: Exported) -> tuple[str, ...]:
    """The namespaces that see an object, in the words of `exportTo`; none written: all."""
    own = said_exports(row) if isinstance(row, Service) else tuple(row.spec.export_to)
    return own or fetch(usual_exports, row.kind) or ()


def counts_for(fetch: Fetch, row: Exported, viewer: str) -> bool:
    """Whether an object counts for callers in the namespace `viewer` ("*": in all)."""
    return visible(exports(fetch, row), row.metadata.namespace, viewer)
