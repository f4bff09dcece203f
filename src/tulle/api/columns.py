"""The columns of `kubectl get`, read from an object's JSON body; the API server adds NAME, NAMESPACE and AGE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tulle.api.kind import Column


def field(name: str, path: str, wide: bool = False) -> Column:
    """A column that shows the value at a dotted path; lists as `["a","b"]`, as kubectl shows them."""
    steps = path.split(".")

    def value(body: Mapping[str, Any]) -> str:
        found: Any = body
        for step in steps:
            found = found.get(step) if isinstance(found, Mapping) else None
        return shown(found)

    return Column(name, value, wide)


def condition(name: str, kind: str) -> Column:
    """A column that shows the status of a condition in `status.conditions`."""

    def value(body: Mapping[str, Any]) -> str:
        status = body.get("status")
        conditions = status.get("conditions") if isinstance(status, Mapping) else None
        for one in conditions if isinstance(conditions, list) else ():
            if isinstance(one, Mapping) and one.get("type") == kind:
                return shown(one.get("status"))
        return ""

    return Column(name, value)


def _accepted(body: Mapping[str, Any]) -> str:
    """Whether the parents of a route, or what a policy concerns, accept it: `True` or `False` where all agree, else `1/2`."""
    status = body.get("status")
    places = [*_items(status, "parents"), *_items(status, "ancestors")]
    said = [one.get("status") for place in places for one in _items(place, "conditions") if one.get("type") == "Accepted"]
    if len(set(said)) <= 1:
        return shown(said[0]) if said else ""
    return f"{said.count('True')}/{len(said)}"


def _items(holder: Any, name: str) -> list[Mapping[str, Any]]:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


ACCEPTED = Column("Accepted", _accepted)
PROGRAMMED = condition("Programmed", "Programmed")


def shown(value: Any) -> str:
    """A JSON value in a table's cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ",".join(f'"{item}"' if isinstance(item, str) else shown(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={shown(item)}" for key, item in value.items())
    return str(value)


def _ports(body: Mapping[str, Any]) -> str:
    ports = (body.get("spec") or {}).get("ports") or []
    return (
        ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports if isinstance(port, Mapping)) or "<none>"
    )


def _virtual_ip(body: Mapping[str, Any]) -> str:
    return str((body.get("spec") or {}).get("clusterIP") or "<none>")


def _addresses(body: Mapping[str, Any]) -> str:
    addresses = (body.get("status") or {}).get("addresses") or []
    return ",".join(str(one.get("value", "")) for one in addresses if isinstance(one, Mapping))


def _weights(body: Mapping[str, Any]) -> str:
    """`reviews/v1=80,reviews/v3=20` for the rules that split; Istio's form or the Gateway API's."""
    spec = body.get("spec") or {}
    shares: list[str] = []
    for rule in [*(spec.get("http") or []), *(spec.get("rules") or [])]:
        if not isinstance(rule, Mapping):
            continue
        routes = [one for one in (rule.get("route") or []) if isinstance(one, Mapping)]
        backends = [one for one in (rule.get("backendRefs") or []) if isinstance(one, Mapping)]
        if len(routes) > 1:
            shares += [f"{_target(one.get('destination') or {})}={one.get('weight', 0)}" for one in routes]
        if len(backends) > 1:
            shares += [f"{one.get('name')}={one.get('weight', 1)}" for one in backends]
    return ",".join(shares)


def _target(destination: Mapping[str, Any]) -> str:
    subset = destination.get("subset")
    return f"{destination.get('host')}/{subset}" if subset else str(destination.get("host"))


PORTS = Column("Port(s)", _ports)
VIRTUAL_IP = Column("Cluster-IP", _virtual_ip)
ADDRESSES = Column("Address", _addresses)
WEIGHTS = Column("Weights", _weights, wide=True)


def _data(body: Mapping[str, Any]) -> str:
    return str(len(body.get("data") or {}) + len(body.get("binaryData") or {}) + len(body.get("stringData") or {}))


DATA = Column("Data", _data)


def _involved(body: Mapping[str, Any]) -> str:
    involved = body.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _seen(*fields: str) -> Callable[[Mapping[str, Any]], str]:
    def value(body: Mapping[str, Any]) -> str:
        return next((str(body[name]) for name in fields if body.get(name)), "")

    return value


def _source(body: Mapping[str, Any]) -> str:
    source = body.get("source") or {}
    parts = (source.get("component") or body.get("reportingComponent"), source.get("host"))
    return ", ".join(str(part) for part in parts if part)


EVENT = (
    Column("Last Seen", _seen("lastTimestamp", "eventTime", "firstTimestamp"), age=True),
    field("Type", "type"),
    field("Reason", "reason"),
    Column("Object", _involved),
    Column("Source", _source, wide=True),
    field("Message", "message"),
    Column("First Seen", _seen("firstTimestamp", "eventTime"), wide=True, age=True),
    field("Count", "count", wide=True),
    field("Name", "metadata.name", wide=True),
)


def _phase(body: Mapping[str, Any]) -> str:
    return str((body.get("status") or {}).get("phase") or "Active")


PHASE = Column("Status", _phase)


def _role(body: Mapping[str, Any]) -> str:
    ref = body.get("roleRef") or {}
    return f"{ref.get('kind', '')}/{ref.get('name', '')}" if ref else ""


def _subjects(kind: str) -> Callable[[Mapping[str, Any]], str]:
    def value(body: Mapping[str, Any]) -> str:
        found = []
        for one in body.get("subjects") or ():
            if isinstance(one, Mapping) and one.get("kind") == kind:
                name = str(one.get("name", ""))
                found.append(f"{one.get('namespace', '')}/{name}" if kind == "ServiceAccount" else name)
        return ", ".join(found)

    return value


CREATED_AT = field("Created At", "metadata.creationTimestamp")
ROLE_BINDING = (
    Column("Role", _role),
    Column("Users", _subjects("User"), wide=True),
    Column("Groups", _subjects("Group"), wide=True),
    Column("ServiceAccounts", _subjects("ServiceAccount"), wide=True),
)

_MOST = 3  # ports and endpoints of a slice that are shown


def _first(found: list[str]) -> str:
    more = f" + {len(found) - _MOST} more..." if len(found) > _MOST else ""
    return ",".join(found[:_MOST]) + more or "<unset>"


def _slice_ports(body: Mapping[str, Any]) -> str:
    ports = [port for port in body.get("ports") or () if isinstance(port, Mapping)]
    return _first([str(port.get("port") or port.get("name") or "*") for port in ports])


def _slice_addresses(body: Mapping[str, Any]) -> str:
    endpoints = [one for one in body.get("endpoints") or () if isinstance(one, Mapping)]
    return _first([str(address) for one in endpoints for address in one.get("addresses") or ()])


ENDPOINT_SLICE = (
    field("AddressType", "addressType"),
    Column("Ports", _slice_ports),
    Column("Endpoints", _slice_addresses),
)


def _targets(body: Mapping[str, Any]) -> str:
    spec = body.get("spec") or {}
    refs = [one for one in spec.get("targetRefs") or () if isinstance(one, Mapping)]
    parts = (f"{one.get('kind', '')}/{one.get('name', '')}" for one in refs)
    return ",".join(parts) or shown((spec.get("selector") or {}).get("matchLabels"))


def _limits(body: Mapping[str, Any]) -> str:
    rules = (body.get("spec") or {}).get("rules") or ()
    words = {"Bytes": " bytes", "Connections": " connections"}
    return ",".join(
        f"{rule.get('limit')}{words.get(str(rule.get('unit')), '')}/{rule.get('window', '1s')}"
        for rule in rules
        if isinstance(rule, Mapping)
    )


TARGETS = Column("Targets", _targets)
LIMITS = Column("Limits", _limits)


def each(name: str, path: str, wide: bool = False) -> Column:
    """A column that shows, joined by commas, what is at a dotted path where `*` means every item of a list; each once."""
    steps = path.split(".")

    def value(body: Mapping[str, Any]) -> str:
        found: list[Any] = [body]
        for step in steps:
            if step == "*":
                found = [item for one in found if isinstance(one, list) for item in one]
            else:
                found = [one.get(step) for one in found if isinstance(one, Mapping)]
        return ",".join(dict.fromkeys(shown(one) for one in found if one is not None))

    return Column(name, value, wide)


def _references(name: str, *path: str) -> Column:
    """A column of references (`Kind/name`), which stand in a list at a path."""

    def value(body: Mapping[str, Any]) -> str:
        holder: Any = body
        for step in path[:-1]:
            holder = holder.get(step) if isinstance(holder, Mapping) else None
        return ",".join(f"{one.get('kind', 'Gateway')}/{one.get('name', '')}" for one in _items(holder, path[-1]))

    return Column(name, value)


def _external(body: Mapping[str, Any]) -> str:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    ingress = _items(status.get("loadBalancer"), "ingress")
    found = [*(spec.get("externalIPs") or ()), *(one.get("ip") or one.get("hostname") for one in ingress)]
    if spec.get("type") == "ExternalName":
        found = [spec.get("externalName")]
    return ",".join(str(one) for one in found if one) or ("<pending>" if spec.get("type") == "LoadBalancer" else "<none>")


EXTERNAL_IP = Column("External-IP", _external)
SECRETS = Column("Secrets", lambda body: str(len(_items(body, "secrets"))))
PARENTS = _references("Parents", "spec", "parentRefs")
POLICY_TARGETS = _references("Targets", "spec", "targetRefs")
SELECTOR = field("Selector", "spec.selector.matchLabels", wide=True)
