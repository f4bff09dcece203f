"""Who leads: the candidate's side of an election by a lease. Pure: events and times in, actions out.

    WATCHING ──vacant──▶ ASKING a lease ──▶ CLAIMING the record ──won──▶ LEADING ──not renewed in time, lost, stop──▶ WATCHING

One record in the store names the leader; it can be made only where there is none, and it is bound to the leader's lease. The
store lets go of it `ttl` after it was last renewed. The leader counts from the moment when it sent the renewal, which is earlier
than the store does, and steps down after `deadline`, which is shorter: so it has stopped before anybody else can begin. Times are
of a clock that only goes forward: setting the time of day does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds: `ttl` of the lease, `deadline` after which a leader without a renewal steps down, `every` between two tries."""

    ttl: float = 15.0
    deadline: float = 10.0
    every: float = 2.0


class Phase(StrEnum):
    """Where a candidate is."""

    WATCHING = "watching"
    ASKING = "asking"
    CLAIMING = "claiming"
    LEADING = "leading"
    ENDED = "ended"


# Events


@dataclass(frozen=True, slots=True)
class Vacant:
    """There is no record, at the store's revision `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class Held:
    """There is a record, of this lease, at the store's revision `at`."""

    lease: int
    at: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The store gave a lease, for a request that was sent at `asked`."""

    lease: int
    asked: float


@dataclass(frozen=True, slots=True)
class Renewed:
    """The store renewed the lease, for a request that was sent at `asked`."""

    lease: int
    asked: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """The store took the record, at its revision `at`."""

    lease: int
    at: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The last request was refused, or nobody knows what became of it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The store says that the lease has ended."""

    lease: int


@dataclass(frozen=True, slots=True)
class Elapsed:
    """It is later now."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The process is about to end."""


Event = Vacant | Held | Granted | Renewed | Claimed | Failed | Lost | Elapsed | Stop

# Actions


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the store for a lease."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Write the record, bound to the lease, where there is none."""

    lease: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lease."""

    lease: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Give the lease back, and with it the record. Where that does not work it ends by itself."""

    lease: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Begin what only the leader does."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """End it, and have it ended before anything else is done."""

    why: str


@dataclass(frozen=True, slots=True)
class Look:
    """Read the record, and say what is there."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Say so when it is that late."""

    at: float


Action = Ask | Claim | Renew | Revoke | Lead | StepDown | Look | Wake


class Election:
    """One candidate. Feed it what happens; do what it says, one after the other."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.phase = Phase.WATCHING
        self._lease = 0
        self._safe = 0.0  # until then nobody else can lead
        self._renew = 0.0  # when to renew next
        self._busy = False  # a renewal is on its way
        self._since = 0  # the revision of our record: what was seen before says nothing of it

    def feed(self, event: Event, now: float) -> list[Action]:
        """What is to be done about it."""
        if self.phase is Phase.ENDED:
            return []
        if isinstance(event, Stop):
            led = self.phase is Phase.LEADING
            actions: list[Action] = [StepDown("the control plane stops")] if led else []
            actions += [Revoke(self._lease)] if self._lease else []
            self.phase, self._lease = Phase.ENDED, 0
            return actions
        if self.phase is Phase.LEADING and now >= self._safe:
            return self._step_down("the lease was not renewed in time", now)
        match self.phase:
            case Phase.WATCHING:
                return self._watching(event, now)
            case Phase.ASKING:
                return self._asking(event, now)
            case Phase.CLAIMING:
                return self._claiming(event, now)
            case _:
                return self._leading(event, now)

    def _watching(self, event: Event, now: float) -> list[Action]:
        match event:
            case Vacant():
                self.phase = Phase.ASKING
                return [Ask()]
            case Elapsed():
                return [Look()]
            case Failed():
                return self._again(now)
            case Granted(lease):  # it came late: nobody needs it any more
                return [Revoke(lease)]
        return []

    def _asking(self, event: Event, now: float) -> list[Action]:
        match event:
            case Granted(lease, asked):
                self.phase, self._lease = Phase.CLAIMING, lease
                self._safe, self._renew = asked + self.terms.deadline, asked + self.terms.every
                return [Claim(lease)]
            case Failed():
                return self._again(now)
        return []

    def _claiming(self, event: Event, now: float) -> list[Action]:
        match event:
            case Claimed(lease, at) if lease == self._lease:
                if now >= self._safe:
                    return self._give_up(now)
                self.phase, self._busy, self._since = Phase.LEADING, False, at
                return [Lead(), self._next()]
            case Failed() | Lost():
                return self._give_up(now)
        return []

    def _leading(self, event: Event, now: float) -> list[Action]:
        match event:
            case Renewed(lease, asked) if lease == self._lease:
                self._busy = False
                self._safe, self._renew = asked + self.terms.deadline, asked + self.terms.every
                return [self._next()]
            case Failed():
                self._busy, self._renew = False, now + self.terms.every
                return [self._next()]
            case Lost(lease) if lease == self._lease:
                return self._step_down("the lease has ended", now)
            case Vacant(at) if at > self._since:
                return self._step_down("the record is gone", now)
            case Held(lease, at) if at > self._since and lease != self._lease:
                return self._step_down("another one leads", now)
            case Elapsed() if now >= self._renew and not self._busy:
                self._busy = True
                return [Renew(self._lease), self._next()]
            case Elapsed():
                return [self._next()]
        return []

    def _next(self) -> Wake:
        return Wake(self._safe if self._busy else min(self._renew, self._safe))

    def _step_down(self, why: str, now: float) -> list[Action]:
        return [StepDown(why), *self._give_up(now)]

    def _give_up(self, now: float) -> list[Action]:
        lease, self._lease = self._lease, 0
        return [Revoke(lease), *self._again(now)]

    def _again(self, now: float) -> list[Action]:
        self.phase = Phase.WATCHING
        return [Wake(now + self.terms.every)]
