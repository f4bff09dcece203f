"""The columns of `kubectl get`, read from an object's JSON body; the API server adds NAME, NAMESPACE and AGE."""

from __future__ import annotations

from collections.abc import Mapping
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


EVENT_OBJECT = Column("Object", _involved)


def _phase(body: Mapping[str, Any]) -> str:
    return str((body.get("status") or {}).get("phase") or "Active")


PHASE = Column("Status", _phase)
