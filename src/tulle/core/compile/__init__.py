"""API objects → the model's rows, and what is wrong with the objects. Knows no Envoy.

Every row is a table of `core.flow`; a change touches only what it reaches. From the objects down:

| module | makes | from |
|---|---|---|
| `objects` | the input tables and their indexes, `Settings`, who is older, what is visible where | the API server's objects |
| `hostname` | which Service a host means, all names of a Service, which name is the more specific | texts |
| `services` | `service`: `model.Service` | Service |
| `destination_rules` | `rules_for`, `subset_labels`, `policy` of a Service; `..._of`: some callers' | DestinationRule |
| `mtls` | `modes` of a workload: `STRICT`, `PERMISSIVE`, `DISABLE`, by port | PeerAuthentication |
| `endpoints` | `instance`, `instances` of a Service, `endpoints`: `model.EndpointSet` | WorkloadEntry, `endpoint_slices` |
| `destinations` | `places`, `destination`: `model.Destination` | the four above |
| `names` | `name`: `model.Name`, for DNS | services, instances |
| `backends` | the destination that a route names, or the sentence why not | services, subsets |
| `virtual_services` | `virtual_service_routes`: routes for one caller and port | VirtualService |
| `routes` | what lists of routes have in common | |
| `http_routes`, `grpc_routes` | `http_route_rules`, `grpc_route_rules`: routes with their rank | HTTPRoute, GRPCRoute |
| `hosts` | `virtual_host` of a Service for the sidecars of a namespace | the two above |
| `outbound` | `outbound`: `model.Outbound`; which route tables a namespace has | services |
| `client_certificates` | `own_places`: destinations that a Gateway shows a certificate | Gateway, BackendTLSPolicy |
| `gateways` | `bound`, `gateway_listeners` of a gateway workload | both kinds of Gateway |
| `gateway_hosts` | `attachments`, `gateway_virtual_host` | routes of both kinds |
| `workloads` | `workload`: `model.Workload` | WorkloadEntry, services, modes, listeners |
| `layers` | which rows are in which layer, which layers a proxy sees | all of it |
| `problems` | `object_problems` of each object | all of it |

A broken object fails as its API says, alone: the modules return what can be served beside the `Problem`s, and raise nothing.
Who wins never depends on the order of arrival: the older object, then namespace and name (`objects.age`).
"""

from tulle.core.compile.objects import Settings

__all__ = ["Settings"]
