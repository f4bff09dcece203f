"""Roll-outs: looks at each Rollout twice a second, and does what `core.rollout` decides.

    Rollout, route, instances, Tally ──▶ `decide` ──▶ status ──▶ the route's weights
                           answers ──┘      └──▶ Events, webhooks

A controller: it runs on one control plane at a time and keeps nothing that must survive. What is decided is in the object's
status before it is done; whoever leads next reads it there and does what is missing. Of a route only weights are written.
Nothing here waits for a webhook: its answer is looked for at the next look.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog

from tulle.api.own import Rollout
from tulle.api.registry import kind_for, kind_of_resource
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.control.rollouts.asking import Asking
from tulle.control.rollouts.gathering import Gathering
from tulle.control.rollouts.posting import Poster
from tulle.control.rollouts.routes import NEITHER, NOBODY, Route, read_route, sided
from tulle.control.rollouts.telling import Telling
from tulle.control.rollouts.webhooks import Webhooks
from tulle.control.telemetry.tally import Tallies
from tulle.core.compile.rollout_versions import version_instances, version_side
from tulle.core.pipeline import Pipeline
from tulle.core.rollout.decide import Decision, Seen, State, decide, point
from tulle.core.rollout.hooks import Answer, Hook
from tulle.core.rollout.plan import Plan, plan, unsupported
from tulle.core.rollout.queries import Query, Reading, nothing, reading
from tulle.core.rollout.record import state_of, status_of
from tulle.core.rollout.steering import Sides, found, mirrored, mirrors, steered, unmirrorable, unmirrored
from tulle.core.status.progress import Progress
from tulle.kit.errors import TulleError
from tulle.ports import Stored

log = structlog.get_logger("tulle.rollouts")

Raw = dict[str, Any]
Place = tuple[str, str]  # namespace, name
# The numbers that a query has at Prometheus; raises `Unavailable`.
Queried = Callable[[str], Awaitable[Sequence[float]]]

RESOURCE = "rollouts.tulle.dev"
FINALIZER = "tulle.dev/rollout"
# What a person asks for: `promote`, `abort` or `resume`, and when.
COMMAND = "tulle.dev/rollout"
MANAGER = "tulle-rollouts"
_WRITING = Writing(MANAGER)
_TICK = 0.5  # seconds
_AT_ONCE = 16  # that are written at the same time, and of those that go on, before all are looked at again
_MOMENT = 0.02  # seconds in which proxies' answers come together


class Rollouts:
    """`run` until cancelled. `now`: seconds since the epoch. `progress` gives how far all proxies are.

    `gathering` has what nodes of other control planes report, if there are any.
    """

    def __init__(
        self,
        objects: Objects,
        pipeline: Pipeline,
        events: Events,
        tallies: Tallies,
        now: Callable[[], float],
        prometheus: Queried | None = None,
        progress: Callable[[], Iterable[Progress]] = tuple,
        gathering: Gathering | None = None,
    ) -> None:
        self.objects, self.pipeline, self.events, self.tallies, self.now = objects, pipeline, events, tallies, now
        self._prometheus, self._progress, self._gathering = prometheus, progress, gathering
        self._moved = asyncio.Event()
        self._turning: set[Place] = set()  # whose roll-back has not come to every proxy yet
        self._answers: Asking[Answer] = Asking()
        self._readings: Asking[Reading] = Asking()
        self._webhooks: Webhooks
        self._poster: Poster
        self._since: float
        self.telling = Telling(objects.store)
        self._read: dict[Place, Read] = {}
        self._routes: dict[Place, Route] = {}
        self._quiet: dict[Place, Look] = {}
        self._failing: set[Place] = set()
        self._later: set[Place] = set()  # for whom there was no room at the last look

    @asynccontextmanager
    async def beginning(self) -> AsyncIterator[None]:
        """While it may look: others can be told, and asked."""
        self._since = self.now()
        async with Poster() as poster:
            self._poster = poster
            self._webhooks = Webhooks(self.objects.store, poster, self.events, self.now)
            try:
                yield
            finally:
                self._answers.close()
                self._readings.close()
                self.telling.close()

    async def run(self) -> None:
        """Look at all of them, again and again."""
        async with asyncio.TaskGroup() as beside, self.beginning():
            if self._gathering is not None:
                beside.create_task(self._gathering.run())
            while True:
                self._moved.clear()
                await self.once()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), _TICK)
                    await asyncio.sleep(_MOMENT)

    def proxies_moved(self) -> None:
        """A proxy came, went or acknowledged something: a roll-back may have come to the last one."""
        if self._turning:
            self._moved.set()

    async def once(self) -> None:
        """Look at all of them."""
        try:
            stored, _revision = await self.objects.store.list(RESOURCE)
        except TulleError as error:
            log.warning("rollouts could not be read; trying again", why=str(error))
            return
        places = {(one.key.namespace, one.key.name) for one in stored}
        self.tallies.keep(places)
        self._answers.keep(places)
        self._readings.keep(places)
        self._turning &= places
        for kept in (self._read, self._routes, self._quiet):
            for place in kept.keys() - places:
                del kept[place]
        taken: dict[tuple[str, str], str] = {}
        due: list[Due] = []
        done: list[Due] = []
        for read in sorted((self._decoded(one) for one in stored), key=_first):
            place = read.stored.key.namespace, read.stored.key.name
            await self._tried(place, self._one(place, read, taken, due))
        # Nobody who goes back waits for the steps of others, nor a step for what is only said.
        due.sort(key=lambda one: (not one.decision.state.turning, not one.decision.notes, one.place not in self._later))
        most = _AT_ONCE + sum(one.decision.state.turning for one in due)
        self._later, due = {one.place for one in due[most:]}, due[:most]
        if self._later:
            self._moved.set()  # another look at once
        for first in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._tried(one.place, self._do(one, done)) for one in due[first : first + _AT_ONCE]))
        for one in done:
            await self._tell(one)

    async def _tried(self, place: Place, work: Awaitable[None]) -> None:
        """What cannot be read or written is tried again at the next look."""
        try:
            await work
            self._failing.discard(place)
        except (Denial, TulleError) as error:
            if place not in self._failing:
                log.warning("a rollout waits: something could not be read or written", rollout="/".join(place), why=str(error))
            self._failing.add(place)

    def _decoded(self, stored: Stored) -> Read:
        place = stored.key.namespace, stored.key.name
        read = self._read.get(place)
        if read is None or read.stored.revision != stored.revision:
            self._routes.pop(place, None)  # read for other versions, maybe
            one = Rollout.model_validate(stored.body)
            refused = "; ".join(unsupported(one.spec, prometheus=self._prometheus is not None))
            read = self._read[place] = Read(stored, one, plan(one.spec, *place), state_of(one.status), refused)
        return read

    async def _one(self, place: Place, read: Read, taken: dict[tuple[str, str], str], due: list[Due]) -> None:
        """Look at one, and decide."""
        stored, one, wanted, before, refused = read
        metadata = stored.body["metadata"]
        deleted = bool(metadata.get("deletionTimestamp"))
        marked = FINALIZER in (metadata.get("finalizers") or ())
        if deleted and not marked:
            return
        over = deleted or before.phase in ("Succeeded", "Failed")
        if not over and (other := taken.setdefault((place[0], one.spec.target_ref.name), place[1])) != place[1]:
            refused = (
                f"spec.targetRef: found Service {one.spec.target_ref.name}, which Rollout {other} rolls out; "
                "needed another one, or the end of that"
            )
        if not marked:
            await self._mark(place, there=True)
        route = await self._route(place, one)
        if one.spec.analysis.mirror and route is not None and not refused:
            refused = unmirrorable(route.body, route.sides, one.spec.route_ref.section_name or "")
        look = Look(stored.revision, route.revision if route else 0, route.sides if route else NEITHER, refused)
        again = self._quiet.get(place) == look  # nothing but time and traffic can have made a difference
        if again and before.phase in _SETTLED and not (before.owed or before.mirroring or before.turning or deleted):
            return
        seen = msgspec.structs.replace(
            self._seen(place, one, route, before),
            deleted=deleted,
            refused=refused,
            command=str((metadata.get("annotations") or {}).get(COMMAND, "")),
            answers=self._answers.answers(place, point(before)),
            readings=self._readings.answers(place, point(before)),
        )
        # As exactly as the status can say it.
        decision = decide(wanted, before, seen, round(self.now(), 3))
        (self._turning.add if decision.state.turning else self._turning.discard)(place)
        if again and decision.state == before and not decision.over:
            self._ask(place, stored.body, wanted, decision, one)
        else:
            due.append(Due(place, read, decision, look, route))

    async def _do(self, due: Due, done: list[Due]) -> None:
        """Write down what is decided, then do it."""
        place, (stored, one, wanted, before, _refused), decision, look, route = due
        self._quiet.pop(place, None)
        state = decision.state
        if (state.checked, state.started, state.identity) != (before.checked, before.started, before.identity):
            self.tallies.forget(place, state.started)
        await self._write(place, stored, decision.state, look.refused)
        if route is not None and decision.state.identity:
            await self._steer(one, decision.state, route)
        done.append(due)
        if decision.state == before:
            self._quiet[place] = look
        self._ask(place, stored.body, wanted, decision, one)
        if decision.over:
            await self._mark(place, there=False)

    async def _tell(self, due: Due) -> None:
        """Tell everybody of what was done."""
        place, (stored, one, wanted, _before, _refused), decision, _look, _route = due
        for note in decision.notes:
            log.info("rollout", rollout="/".join(place), reason=note.reason, message=note.message)
            await self.events.record(stored.body, "Warning" if note.bad else "Normal", note.reason, note.message)
            self.telling.alert(self._poster, stored.body, one.spec.alerts, one.spec.target_ref.name, decision.state.weight, note)
            self.telling.event(self._poster, stored.body, wanted.hooks, _told(one, decision.state), note)

    def _ask(self, place: Place, about: Raw, wanted: Plan, decision: Decision, one: Rollout) -> None:
        """Have asked what is to be asked at this point."""
        at, ask = point(decision.state), self._webhooks.ask

        async def answer(_before: Answer | None, *, hook: Hook) -> Answer:
            return await ask(about, at, hook, _told(one, decision.state))

        hooks = {hook.name: partial(answer, hook=hook) for hook in wanted.hooks if hook.name in decision.asks}
        self._answers.follow(place, at, hooks)
        queries = {query.name: partial(self._read_number, query) for query in wanted.queries if query.name in decision.queries}
        self._readings.follow(place, at, queries)

    async def _read_number(self, query: Query, before: Reading | None) -> Reading:
        assert self._prometheus is not None
        try:
            found = await self._prometheus(query.text)
        except TulleError as error:
            return nothing(f"Prometheus: {error.message}", self.now(), before)
        return reading(found, self.now(), before)

    async def _route(self, place: Place, one: Rollout) -> Route | None:
        """The route that is steered; None where it is not there."""
        ref = one.spec.route_ref
        kind = kind_for(ref.group, ref.kind)
        assert kind is not None
        target = Target(kind, kind.versions[0], place[0], ref.name)
        stored = await self.objects.store.get(target.key)
        if stored is None:
            return None
        known = self._routes.get(place)
        if known is None or (known.revision, known.target) != (stored.revision, target):
            known = self._routes[place] = read_route(place[0], one, target, stored)
        get = self.pipeline.flow.get
        sides = Sides(*(get(version_side, one) or NOBODY for one in known.asked))
        if sides != known.sides:
            known = self._routes[place] = sided(known, place[0], one, sides)
        return known

    def _seen(self, place: Place, one: Rollout, route: Route | None, state: State) -> Seen:
        """What is seen of the route, the instances and the traffic."""
        ref = one.spec.route_ref
        if route is None:
            return Seen(None, f"spec.routeRef: {ref.kind} {place[0]}/{ref.name} is not there")
        share = found(route.body, route.sides, *_rules(one, state))
        tally = self.tallies.of(place, route.versions, state.started)
        return Seen(
            weight=share.weight,
            trouble=share.trouble,
            healthy=self.pipeline.flow.get(version_instances, route.asked[1]),
            stable=tally.traffic(candidate=False),
            candidate=tally.traffic(candidate=True),
            heard=self.tallies.heard,
            since=self._since,
            backend=route.backend,
            mirrored=mirrors(route.body, state.mirror or route.backend),
            acknowledged=state.turning and self._acknowledged(route.revision),
            others=self._gathering.told() if self._gathering is not None else {},
        )

    def _acknowledged(self, revision: int) -> bool:
        """Whether every proxy that is connected has all of a revision."""
        return self.pipeline.revision >= revision and all(one.synced >= revision for one in self._progress())

    async def _write(self, place: Place, stored: Stored, state: State, refused: str) -> None:
        """The status, where it is another than the one that stands."""
        metadata = stored.body["metadata"]
        generation, now = int(metadata.get("generation") or 0), timestamp(self.now())

        def change(live: Raw) -> Raw:
            standing: Raw = next(iter((live.get("status") or {}).get("conditions") or ()), {})
            condition = {
                "type": "Accepted",
                "status": "False" if refused else "True",
                "reason": "Invalid" if refused else "Accepted",
                "message": refused,
                "observedGeneration": generation,
                "lastTransitionTime": now,
            }
            if standing.get("status") == condition["status"]:
                condition["lastTransitionTime"] = standing["lastTransitionTime"]
            wanted = status_of(state, generation, condition)
            # Another object of the name, or a new wish: the next look is for that.
            current = (live["metadata"].get("uid"), live["metadata"].get("generation")) == (metadata.get("uid"), generation)
            return {**live, "status": wanted} if current and live.get("status") != wanted else live

        if change(stored.body) is not stored.body:
            await self.objects.patch(_itself(place, "status"), change, _WRITING)

    async def _mark(self, place: Place, *, there: bool) -> None:
        """The finalizer, which holds the object back until its traffic is the stable version's."""

        def change(live: Raw) -> Raw:
            marks = [mark for mark in live["metadata"].get("finalizers") or () if mark != FINALIZER]
            return {**live, "metadata": {**live["metadata"], "finalizers": [*marks, FINALIZER] if there else marks}}

        await self.objects.patch(_itself(place), change, _WRITING)

    async def _steer(self, one: Rollout, state: State, route: Route) -> None:
        """Give the candidate what it is to have, where it has what it had before: its weight, and copies of requests."""
        section, everywhere = _rules(one, state)
        weight = found(route.body, route.sides, section, everywhere=everywhere).weight
        settled = weight in (None, state.weight) or state.phase == "Succeeded" or not (everywhere or weight == state.was)

        def change(live: Raw) -> Raw:
            # Where another was faster, the next look sees it.
            if not settled and found(live, route.sides, section, everywhere=everywhere).weight == weight:
                live = steered(live, route.sides, state.weight, section)
            if state.mirroring == "Wanted" and not mirrors(live, state.mirror):
                live = mirrored(live, route.sides, one.spec.analysis.mirror_weight, section)
            if state.mirroring == "Unwanted" and mirrors(live, state.mirror):
                live = unmirrored(live, state.mirror)
            return live

        if not settled or state.mirroring in ("Wanted", "Unwanted"):
            await self.objects.patch(route.target, change, _WRITING)


class Read(NamedTuple):
    """A rollout as it is stored, and what follows of that alone."""

    stored: Stored
    one: Rollout
    plan: Plan
    state: State
    refused: str


class Due(NamedTuple):
    """What is to be done for a rollout."""

    place: Place
    read: Read
    decision: Decision
    look: Look
    route: Route | None


class Look(NamedTuple):
    """What a look saw that is not traffic or time."""

    rollout: int
    route: int
    sides: Sides
    refused: str


_SETTLED = ("Succeeded", "Failed", "Paused")
_UNDER_WAY = ("Progressing", "Promoting", "Finalising")


def _first(read: Read) -> tuple[bool, str, str]:
    """Who has a service that several want: whoever has moved its traffic, then the oldest."""
    made = str(read.stored.body["metadata"].get("creationTimestamp", ""))
    return read.state.phase not in _UNDER_WAY, made, read.stored.key.name


def _itself(place: Place, subresource: str = "") -> Target:
    kind = kind_of_resource(RESOURCE)
    assert kind is not None
    return Target(kind, kind.versions[0], *place, subresource)


def _told(one: Rollout, state: State) -> Raw:
    """What webhooks are told of a rollout, by Flagger's names where it has them."""
    return {
        "phase": state.phase,
        "checksum": hashlib.sha256(state.identity.encode()).hexdigest()[:16],
        "target": one.spec.target_ref.name,
        "change": state.identity,
        "weight": state.weight,
        "step": state.step,
        "iteration": state.rounds,
        "failedChecks": state.failed,
    }


def _rules(one: Rollout, state: State) -> tuple[str, bool]:
    """The name of the rule that is steered ("": all), and whether all must have the weight: at the end of an A/B test."""
    if one.spec.strategy == "ABTest" and state.phase in ("Finalising", "Succeeded"):
        return "", True
    return one.spec.route_ref.section_name or "", False
