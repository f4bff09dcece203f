"""Pure: what to do with one Envoy, decided from events and the time; `node/envoy.py` carries it out.

new → starting → ready → draining → stopping → stopped, with waiting (for the back-off to pass) beside starting: an Envoy that
ends without having been asked to is started again, at once the first time, then later and later until it has served for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where one Envoy is."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """Wanted from now on."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """A process of an earlier agent is running and is taken over."""


@dataclass(frozen=True, slots=True)
class Live:
    """Envoy's admin interface says LIVE: every listener it waited for is there."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended. `status` is its exit code, negative for a signal, None where it cannot be known (an adopted one)."""

    status: int | None


@dataclass(frozen=True, slots=True)
class Drain:
    """No longer wanted: finish what is under way, for at most `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """While draining: nothing is under way any more."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The time asked for by `Wake` has come."""


Event = Start | Adopt | Live | Exited | Drain | Idle | Elapsed


# Actions


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the process and watch it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask the admin interface until it says LIVE."""


@dataclass(frozen=True, slots=True)
class BeginDrain:
    """Tell Envoy to refuse new work gracefully."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Feed `Elapsed` at this time (a later `Wake` replaces it)."""

    at: float


@dataclass(frozen=True, slots=True)
class Crashed:
    """For the log: it ended by itself with `status`, the `count`th time in a row, and is started again in `delay` seconds."""

    status: int | None
    count: int
    delay: float


@dataclass(frozen=True, slots=True)
class Gone:
    """The end: nothing runs any more."""


Action = Spawn | Watch | BeginDrain | Terminate | Kill | Wake | Crashed | Gone


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. Back-off doubles from `base` to `longest`, and is forgotten after `stable` seconds of serving."""

    base: float = 0.2
    longest: float = 10.0
    stable: float = 60.0
    terminate: float = 2.0  # after SIGTERM, before SIGKILL


# Which events mean something in which state; all others are ignored there (a late timer, a second Drain).
TRANSITIONS: dict[State, tuple[type[Event], ...]] = {
    State.NEW: (Start, Adopt, Drain),
    State.STARTING: (Live, Exited, Drain),
    State.READY: (Exited, Drain),
    State.WAITING: (Elapsed, Drain),
    State.DRAINING: (Idle, Elapsed, Exited, Drain),
    State.STOPPING: (Elapsed, Exited),
    State.STOPPED: (),
}


class Supervision:
    """One Envoy's life. `feed` is all there is; `state`, `crashes` (in a row) and `restarts` (ever) are there to be read."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.state = State.NEW
        self.crashes = 0
        self.restarts = 0
        self._ready_since = 0.0

    def feed(self, event: Event, now: float) -> list[Action]:
        """The actions that follow, in order. `now` is any growing clock in seconds."""
        if not isinstance(event, TRANSITIONS[self.state]):
            return []
        match event:
            case Start():
                return self._start()
            case Adopt():
                self.state = State.STARTING
                return [Watch()]
            case Live():
                self.state = State.READY
                self._ready_since = now
                return []
            case Exited(status):
                return self._exited(status, now)
            case Drain(seconds):
                return self._drain(seconds, now)
            case Idle():
                return self._terminate(now)
            case Elapsed():
                return self._elapsed(now)

    def _start(self) -> list[Action]:
        self.state = State.STARTING
        return [Spawn(), Watch()]

    def _exited(self, status: int | None, now: float) -> list[Action]:
        if self.state in (State.DRAINING, State.STOPPING):
            self.state = State.STOPPED
            return [Gone()]
        if self.state is State.READY and now - self._ready_since >= self.policy.stable:
            self.crashes = 0
        self.crashes += 1
        self.restarts += 1
        delay = self.delay(self.crashes)
        said = Crashed(status=status, count=self.crashes, delay=delay)
        if delay == 0:
            return [said, *self._start()]
        self.state = State.WAITING
        return [said, Wake(now + delay)]

    def delay(self, crashes: int) -> float:
        """Seconds before the restart after that many crashes in a row: none after the first, for callers are waiting."""
        if crashes <= 1:
            return 0.0
        return min(self.policy.longest, self.policy.base * 2.0 ** min(crashes - 2, 30))

    def _drain(self, seconds: float, now: float) -> list[Action]:
        if self.state in (State.NEW, State.WAITING):
            self.state = State.STOPPED
            return [Gone()]
        if seconds <= 0 or self.state is State.STARTING:
            return self._terminate(now)
        first = self.state is not State.DRAINING
        self.state = State.DRAINING
        return [*([BeginDrain()] if first else []), Wake(now + seconds)]

    def _terminate(self, now: float) -> list[Action]:
        self.state = State.STOPPING
        return [Terminate(), Wake(now + self.policy.terminate)]

    def _elapsed(self, now: float) -> list[Action]:
        if self.state is State.WAITING:
            return self._start()
        if self.state is State.DRAINING:
            return self._terminate(now)
        return [Kill(), Wake(now + self.policy.terminate)]  # until the process is seen to have ended
