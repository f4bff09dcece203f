"""What of a RateLimit has no effect, or another than one may think, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.api.own import RateLimit
from tulle.api.own.rate_limit import Rule, TargetRef
from tulle.core.compile.counters import members_of
from tulle.core.compile.endpoints import selected
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import info, sorted_problems, warning
from tulle.core.compile.objects import ROUTES, gateways, rate_limits, services, workload_entries
from tulle.core.compile.places import places
from tulle.core.compile.rate_limits import GATEWAY, SERVICE, counting, limits_of
from tulle.core.compile.route_limits import KINDS as ROUTE_KINDS
from tulle.core.compile.route_limits import in_mesh
from tulle.core.compile.services import service
from tulle.core.compile.workload_notes import has_proxy
from tulle.core.flow import Fetch, table
from tulle.core.model.rate_limit import Counting, KeyKind, Unit
from tulle.kit.problem import Problem


@table
def rate_limit_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Of a RateLimit."""
    row = fetch(rate_limits, key)
    return sorted_problems(_problems(fetch, key, row)) if row else ()


def _problems(fetch: Fetch, key: Key, row: RateLimit) -> Iterator[Problem]:
    for index, ref in enumerate(row.spec.target_refs or ()):
        yield from _target(fetch, row, ref, f"spec.targetRefs[{index}]")
    for index, rule in enumerate(row.spec.rules):
        yield from _rule(fetch, key, row, rule, index)


def _target(fetch: Fetch, row: RateLimit, ref: TargetRef, path: str) -> Iterator[Problem]:
    """What is there, and in whose proxies nothing would count."""
    target = (row.metadata.namespace, ref.name)
    if (ref.group, ref.kind) == SERVICE:
        if fetch(services, target) is None:
            return  # analyze says so
        found = fetch(service, target)
        ports = {port.name: port for port in (found.ports if found else ())}
        if ref.section_name is not None and ref.section_name not in ports:
            yield _no_section(row, path, f"Service {ref.name} has no port named {ref.section_name}", ports)
            return
        chosen = [ports[ref.section_name]] if ref.section_name else [*ports.values()]
        requests = [index for index, rule in enumerate(row.spec.rules) if rule.unit == Unit.REQUESTS.value]
        if requests and chosen and not any(port.protocol.may_be_http for port in chosen):
            message = "its port is declared as something else than HTTP, where there are no requests; needed appProtocol: http"
            yield warning(row.ref, f"{path}.name", "NoHttpPort", f"{message}, or the unit Connections")
        entries = [fetch(workload_entries, one) for one in fetch(selected, target) or ()]
        if not any(has_proxy(one) for one in entries if one):
            message = (
                f"no workload of Service {ref.name} has a sidecar; a limit is counted by those of the Service that is called"
            )
            yield warning(row.ref, f"{path}.name", "NothingCounts", message)
    elif ref.kind in ROUTE_KINDS and (route := fetch(ROUTES[ref.kind], target)) is not None:
        names = [rule.name or "" for rule in route.spec.rules]
        if ref.section_name is not None and ref.section_name not in names:
            yield _no_section(row, path, f"{ref.kind} {ref.name} has no rule named {ref.section_name}", names)
    elif (ref.group, ref.kind) == GATEWAY and fetch(gateways, target) is not None:
        names = [one.listener.name for one in fetch(places, target) or ()]
        if ref.section_name is not None and ref.section_name not in names:
            yield _no_section(row, path, f"Gateway {ref.name} has no listener named {ref.section_name}", names)


def _no_section(row: RateLimit, path: str, found: str, names: Iterable[str]) -> Problem:
    has = ", ".join(sorted(name for name in names if name)) or "none with a name"
    return warning(row.ref, f"{path}.sectionName", "NoSection", f"{found}; it has {has}: nothing is limited by this")


def _rule(fetch: Fetch, key: Key, row: RateLimit, rule: Rule, index: int) -> Iterator[Problem]:
    path = f"spec.rules[{index}]"
    routed = any((ref.group, ref.kind) != SERVICE for ref in row.spec.target_refs or ())
    if rule.key is not None and rule.key.type == KeyKind.ROUTE.value and not routed:
        message = "found Route where workloads are called, which is one route to them; needed another key, or a Gateway or route"
        yield warning(row.ref, f"{path}.key.type", "NotCounted", f"{message}: there is one bucket for all")
    if rule.unit != Unit.REQUESTS.value and any(ref.kind in ROUTE_KINDS for ref in row.spec.target_refs or ()):
        message = f"found {rule.unit} for a route, which has requests; needed Requests, or the Service or Gateway as target"
        yield warning(row.ref, f"{path}.unit", "NotCounted", message)
    routes = (ref for ref in row.spec.target_refs or () if ref.kind in ROUTE_KINDS)
    in_the_mesh = any(in_mesh(fetch, ref.kind, (key[0], ref.name)) for ref in routes)
    callers = [f"match[{at}].sources" for at, one in enumerate(rule.match) if one.sources]
    if in_the_mesh and callers:
        message = "found sources for a route of the mesh, which their own sidecars count; needed the Service as target"
        yield warning(row.ref, f"{path}.{callers[0]}", "NotCounted", f"{message}: the rule has no effect there")
    if counting(rule) is Counting.SHARED:
        if in_the_mesh:
            message = (
                "found shares for a route of the mesh, which all sidecars would have, whoever calls; needed precision: exact, or "
                "the Service as target: the sidecar of each caller counts by itself"
            )
            yield warning(row.ref, f"{path}.scope", "NotCounted", message)
        limit = (fetch(limits_of, key) or ())[index]
        members: tuple[str, ...] | None = fetch(members_of, limit.id)
        sharing = len(members or ())
        least = min(one.limit + one.burst for one in limit.sizes)
        if least < sharing:
            message = (
                f"found {least} at once for {sharing} proxies that share it: each lets one request through, so that at the worst "
                f"{sharing} pass at once; needed precision: exact, or burst: {sharing - least + rule.burst}"
            )
            yield info(row.ref, f"{path}.limit", "CoarseShares", message)
