"""API objects → the model's rows, and what is wrong with the objects. Knows no Envoy.

Every row is a table of `core.flow`; a change touches only what it reaches. From the objects down:

| module | makes | from |
|---|---|---|
| `objects` | the input tables and their indexes, `Settings`, who is older, what is visible where | the API server's objects |
| `hostname` | which Service a host means, all names of a Service, which name is the more specific | texts |
| `services` | `service`: `model.Service` | Service |
| `destination_rules` | `rules_for`, `subset_labels`, `policy` of a Service | DestinationRule |
| `mtls` | `modes` of a workload: `STRICT`, `PERMISSIVE`, `DISABLE`, by port | PeerAuthentication |
| `endpoints` | `instance`, `instances` of a Service, `endpoints`: `model.EndpointSet` | WorkloadEntry |
| `destinations` | `places`, `destination`: `model.Destination` | the four above |
| `names` | `name`: `model.Name`, for DNS | services, instances |
| `backends` | the destination that a route names, or the sentence why not | services, subsets |
| `virtual_services` | `virtual_service_routes`: routes for one caller and port | VirtualService |
| `routes` | what lists of routes have in common | |
| `http_routes` | `http_route_rules`: routes with their rank | HTTPRoute |
| `hosts` | `virtual_host` of a Service for the sidecars of a namespace | the two above |
| `outbound` | `outbound`: `model.Outbound`; which route tables a namespace has | services |
| `gateways` | `bound`, `gateway_listeners` of a gateway workload | both kinds of Gateway |
| `gateway_hosts` | `attachments`, `gateway_virtual_host` | routes of both kinds |
| `workloads` | `workload`: `model.Workload` | WorkloadEntry, services, modes, listeners |
| `layers` | which rows are in which layer, which layers a proxy sees | all of it |
| `problems` | `object_problems` of each object | all of it |

A broken object fails as its API says, alone: the modules return what can be served beside the `Problem`s, and raise nothing.
Who wins never depends on the order of arrival: the older object, then namespace and name (`objects.age`).

`check(objects)` gives the problems of a set of objects, for `tulle apply` to ask before it writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.core.compile.objects import INPUTS, Settings, row_of, settings
from tulle.core.compile.problems import object_problems
from tulle.core.flow import Flow
from tulle.core.flow.tables import Batch
from tulle.kit.problem import Problem

__all__ = ["Settings", "check"]


def check(objects: Iterable[Object], mesh: Settings | None = None) -> list[Problem]:
    """What is wrong with each of the objects, given all of them. Of two with one name the later counts.

    Namespaced objects must have their namespace. Kinds that do not concern the model have no problems here.
    """
    batch: Batch = {settings: {"": mesh or Settings()}}
    asked: dict[tuple[str, tuple[str, str]], None] = {}
    for one in objects:
        kind = kind_for(one.ref.group, one.kind)
        source = INPUTS.get(kind.resource) if kind else None
        if kind and source:
            key = (one.metadata.namespace, one.metadata.name)
            batch.setdefault(source, {})[key] = row_of(one)
            asked[kind.resource, key] = None
    flow = Flow()
    flow.commit(batch)
    return [problem for key in sorted(asked) for problem in flow.get(object_problems, key) or ()]
