"""PeerAuthentication → which ways in a workload has: workload before namespace before mesh, and its ports before itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.api.istio import PeerAuthentication
from tulle.api.istio.peer_authentication import MutualTLS
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems, warning
from tulle.core.compile.objects import age, peer_authentications, selects, settled, workload_entries
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.workload import MtlsMode
from tulle.kit.problem import Problem


class Modes(msgspec.Struct, frozen=True):
    """The mode of a workload, and of those of its ports that differ."""

    default: MtlsMode = MtlsMode.PERMISSIVE
    ports: dict[int, MtlsMode] = {}

    def of(self, port: int, app_port: int) -> MtlsMode:
        """The mode of a port, named by the number that callers reach or by the application's."""
        return self.ports.get(port, self.ports.get(app_port, self.default))


def _mode(said: MutualTLS | None, inherited: MtlsMode) -> MtlsMode:
    return inherited if said is None or said.mode == "UNSET" else MtlsMode(said.mode)


def _labels(rule: PeerAuthentication) -> dict[str, str]:
    return rule.spec.selector.match_labels if rule.spec.selector else {}


def _wide(fetch: Fetch, namespace: str) -> PeerAuthentication | None:
    """The one of a namespace that is for all of it: the oldest."""
    rules = (rule for rule in fetch.rows(peer_authentications, "namespace", namespace) if not _labels(rule))
    return min(rules, key=age, default=None)


@table
def namespace_mode(fetch: Fetch, namespace: str) -> MtlsMode:
    """The mode of a namespace's workloads where nothing selects them; of the mesh, for the root namespace."""
    roots = settled(fetch).root_namespaces
    mode = MtlsMode.PERMISSIVE
    if namespace in roots:
        first = next((rule for root in roots if (rule := _wide(fetch, root))), None)
    else:
        mode = fetch(namespace_mode, roots[0]) or mode if roots else mode
        first = _wide(fetch, namespace)
    return _mode(first.spec.mtls, mode) if first else mode


@table
def modes(fetch: Fetch, key: Key) -> Modes:
    """The modes of a workload, from the oldest PeerAuthentication that selects it and what that inherits."""
    inherited = fetch(namespace_mode, key[0]) or MtlsMode.PERMISSIVE
    entry = fetch(workload_entries, key)
    labels = labels_of(entry) if entry else {}
    rules = fetch.rows(peer_authentications, "namespace", key[0])
    mine = min((rule for rule in rules if _labels(rule) and selects(_labels(rule), labels)), key=age, default=None)
    if mine is None:
        return Modes(inherited)
    default = _mode(mine.spec.mtls, inherited)
    ports = {int(port): _mode(said, default) for port, said in (mine.spec.port_level_mtls or {}).items()}
    return Modes(default, {port: mode for port, mode in sorted(ports.items()) if mode is not default})


@table
def peer_authentication_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """An older one for the same workloads leaves this one without effect."""
    rule = fetch(peer_authentications, key)
    if rule is None:
        return ()
    return sorted_problems(_conflicts(rule, fetch.rows(peer_authentications, "namespace", key[0])))


def _conflicts(rule: PeerAuthentication, rules: Iterable[PeerAuthentication]) -> Iterator[Problem]:
    older = [other for other in rules if _labels(other) == _labels(rule) and age(other) < age(rule)]
    if older:
        first = min(older, key=age)
        whom = "the same workloads" if _labels(rule) else "the whole namespace"
        message = f"{first.ref} is older and for {whom}; needed one of the two: this one has no effect"
        yield warning(rule.ref, "spec.selector" if _labels(rule) else "spec", "Conflict", message)
