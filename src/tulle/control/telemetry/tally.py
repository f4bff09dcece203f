"""The traffic of two versions since somebody last asked for it anew: what roll-outs judge. Pure; fed with nodes' reports."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tulle.core.model.calls import Count, Edge, added, failed
from tulle.core.rollout.judge import Traffic

_SIDES = ("source", "destination")


class Versions(msgspec.Struct, frozen=True):
    """How both versions are told apart: by `namespace/name` of Services, and by the version that these must have ("": any)."""

    stable: frozenset[str]
    candidate: frozenset[str]
    stable_version: str = ""
    candidate_version: str = ""

    def candidates(self, edge: Edge) -> bool | None:
        """Whether a call was one to the candidate; None where it was to neither."""
        service = service_of(edge)
        for is_candidate, services, version in (
            (False, self.stable, self.stable_version),
            (True, self.candidate, self.candidate_version),
        ):
            if service in services and version in ("", edge.destination_version):
                return is_candidate
        return None


def service_of(edge: Edge) -> str:
    """`namespace/name` of the Service that was called."""
    name, _dot, rest = edge.service.partition(".")
    return f"{rest.partition('.')[0]}/{name}"


class Tally:
    """What was counted for one roll-out, which has begun at a time (seconds since the epoch)."""

    def __init__(self, versions: Versions, begun: float) -> None:
        self.versions = versions
        self.begun = begun
        self._counts: dict[tuple[bool, str, bool], Count] = {}

    def add(self, edge: Edge, count: Count, since: float) -> None:
        """Calls that a proxy has told of, the first of which ended at a time: of what was before they say nothing."""
        if since < self.begun or edge.reporter not in _SIDES or (candidate := self.versions.candidates(edge)) is None:
            return
        key = candidate, edge.reporter, failed(edge)
        self._counts[key] = added(self._counts.get(key, Count()), count)

    def forget(self) -> None:
        """Begin anew."""
        self._counts = {}

    def traffic(self, *, candidate: bool) -> Traffic:
        """As callers' proxies saw it, who know also of what did not arrive; as the called's did where no caller's told."""
        for side in _SIDES:
            good = self._counts.get((candidate, side, False), Count())
            bad = self._counts.get((candidate, side, True), Count())
            both = added(good, bad)
            if both.calls:
                return Traffic(both.calls, bad.calls, both.buckets)
        return Traffic()


class Tallies:
    """Those of all roll-outs; `heard` is when any node reported last (seconds since the epoch)."""

    def __init__(self) -> None:
        self.heard = 0.0
        self._by: dict[object, Tally] = {}
        self._of: dict[str, list[Tally]] | None = {}  # by `namespace/name` of Services; None: to be made anew

    def of(self, key: object, versions: Versions, begun: float) -> Tally:
        """The one of a roll-out that has `begun` then; a new one where there is none, or one that told other versions apart."""
        found = self._by.get(key)
        if found is None or found.versions != versions:
            found = self._by[key] = Tally(versions, begun)
            self._of = None
        return found

    def forget(self, key: object, begun: float) -> None:
        """That of a roll-out, which has `begun` then, counts anew."""
        if key in self._by:
            self._by[key].begun = begun
            self._by[key].forget()

    def keep(self, keys: Iterable[object]) -> None:
        """Drop the others."""
        wanted = set(keys)
        for key in [key for key in self._by if key not in wanted]:
            del self._by[key]
            self._of = None

    def add(self, now: float, rows: Iterable[tuple[Edge, Count]], seconds: float = 0.0) -> None:
        """A node's report of the last seconds."""
        self.heard = now
        self._count((edge, count, now - seconds) for edge, count in rows)

    def take(self, rows: Iterable[tuple[Edge, Count, float]], heard: float) -> None:
        """What nodes of another control plane have reported, each since a time; the last of them at `heard` (0: none has)."""
        self.heard = max(self.heard, heard)
        self._count(rows)

    @property
    def services(self) -> Iterable[str]:
        """`namespace/name` of the services whose calls count."""
        return self._tallied().keys()

    def _count(self, rows: Iterable[tuple[Edge, Count, float]]) -> None:
        if not self._by:
            return
        of = self._tallied()
        for row in rows:
            for tally in of.get(service_of(row[0]), ()):
                tally.add(*row)

    def _tallied(self) -> dict[str, list[Tally]]:
        if self._of is None:
            self._of = {}
            for tally in self._by.values():
                for service in tally.versions.stable | tally.versions.candidate:
                    self._of.setdefault(service, []).append(tally)
        return self._of
