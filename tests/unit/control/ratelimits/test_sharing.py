"""What control planes do with the demand that nodes tell: one weighs, all give the same shares, and silence is no zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from tests.support.clock import TurnedClock
from tulle.control.ratelimits.demand import Demands
from tulle.control.ratelimits.sharing import Sharing
from tulle.control.telemetry.others import nobody
from tulle.core.encoded import Published
from tulle.core.model.limit_counts import LimitCount
from tulle.core.model.rate_limit import Counting, Limit, SharedLimit

RULE = "default/all/0"
MEMBERS = ("default/a", "default/b", "default/c")


class Mesh:
    """What a pipeline has of shares."""

    def __init__(self, members: tuple[str, ...] = MEMBERS) -> None:
        self.limits: tuple[SharedLimit, ...] = (SharedLimit(Limit(RULE, 100, counting=Counting.SHARED), members),)
        self.given: dict[tuple[str, str], float] = {}
        self.published = 0

    @property
    def shared_limits(self) -> tuple[SharedLimit, ...]:
        return self.limits

    def take_shares(self, given: Mapping[tuple[str, str], float | None]) -> Published:
        for key, share in given.items():
            if share is None:
                del self.given[key]
            else:
                self.given[key] = share
        return Published(revision=1, changed={"workload/default/a": {"costs": {}}} if given else {})

    def publish(self, _published: Published) -> None:
        self.published += 1


class Plane:
    """A control plane; `others` are asked as over HTTP."""

    def __init__(self, clock: TurnedClock, leads: bool = True, others: Sequence[Plane] = ()) -> None:
        self.mesh, self.leads, self.others = Mesh(), leads, others
        asking = self._ask if others else nobody
        self.sharing = Sharing(self.mesh, self.mesh.publish, lambda: self.leads, asking, clock.now)

    async def _ask(self, _path: str, _query: Mapping[str, str]) -> Sequence[Any]:
        return [msgspec.json.decode(msgspec.json.encode(one.sharing.exchange())) for one in self.others]

    def report(self, now: float, counts: Mapping[str, int], *more: str) -> None:
        """What the proxies of a node counted in a second; `more` counted nothing."""
        rows = [LimitCount(proxy, RULE, count // 2, count - count // 2) for proxy, count in counts.items()]
        self.sharing.demands.add([*counts, *more], rows, 1.0, now)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


async def test_shares_follow_the_demand(clock: TurnedClock) -> None:
    """Otherwise a limit would be a third of itself where one replica gets all."""
    plane = Plane(clock)
    for _ in range(4):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
        await plane.sharing.once()
    assert plane.mesh.given[RULE, MEMBERS[0]] > 0.9
    assert sum(plane.mesh.given.values()) == pytest.approx(1)
    published = plane.mesh.published
    clock.advance(1)
    plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
    await plane.sharing.once()
    assert plane.mesh.published == published, "where nothing changes proxies are told nothing"


async def test_who_is_silent_keeps_its_share(clock: TurnedClock) -> None:
    """Otherwise a proxy whose node has lost the control plane would still use a share that others were given, too."""
    plane = Plane(clock)
    for _ in range(10):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[0]: 1000}, MEMBERS[1])
        await plane.sharing.once()
    assert plane.sharing.shares[RULE][MEMBERS[2]] == pytest.approx(1 / 3)
    assert sum(plane.sharing.shares[RULE].values()) <= 1 + 1e-9


async def test_who_leaves_gives_its_share_to_the_others(clock: TurnedClock) -> None:
    """Otherwise a limit would shrink with every proxy that ever was."""
    plane = Plane(clock)
    clock.advance(1)
    plane.report(clock.now(), dict.fromkeys(MEMBERS, 500))
    await plane.sharing.once()
    plane.mesh.limits = Mesh(MEMBERS[:2]).limits
    await plane.sharing.once()
    assert set(plane.mesh.given) == {(RULE, one) for one in MEMBERS[:2]}
    assert sum(plane.mesh.given.values()) == pytest.approx(1)


async def test_a_rule_that_goes_takes_its_shares_along(clock: TurnedClock) -> None:
    """Otherwise a rule of that name would begin with the shares of another."""
    plane = Plane(clock)
    clock.advance(1)
    plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
    await plane.sharing.once()
    assert plane.mesh.given != {}
    plane.mesh.limits = ()
    await plane.sharing.once()
    assert plane.mesh.given == {}


async def test_several_control_planes_give_the_same_shares(clock: TurnedClock) -> None:
    """Otherwise proxies of two control planes would have more than the limit together."""
    one, other = Plane(clock), Plane(clock, leads=False)
    one.others, other.others = [other], [one]
    one.sharing._others, other.sharing._others = one._ask, other._ask
    for _ in range(4):
        clock.advance(1)
        one.report(clock.now(), {MEMBERS[0]: 10})
        other.report(clock.now(), {MEMBERS[1]: 900}, MEMBERS[2])
        await one.sharing.once()
        await other.sharing.once()
    assert one.mesh.given == other.mesh.given
    assert one.mesh.given[RULE, MEMBERS[1]] > 0.85
    # Whoever leads next goes on from there.
    one.leads, other.leads = False, True
    before = dict(other.mesh.given)
    await other.sharing.once()
    await one.sharing.once()
    assert one.mesh.given == other.mesh.given == before


async def test_without_a_leader_shares_stay(clock: TurnedClock) -> None:
    """Otherwise every change of the leader would throw the shares away."""
    plane = Plane(clock)
    clock.advance(1)
    plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
    await plane.sharing.once()
    before = dict(plane.mesh.given)
    plane.leads = False
    await plane.sharing.once()
    assert plane.mesh.given == before


async def test_what_nobody_would_notice_is_told_nobody(clock: TurnedClock) -> None:
    """Otherwise a thousand limits that are never reached would keep the control plane busy whenever load moves."""
    plane = Plane(clock)
    for second in range(40):
        clock.advance(1)
        comes = dict.fromkeys(MEMBERS, 2) | {MEMBERS[second // 10 % 3]: 18}
        plane.report(clock.now(), comes)
        await plane.sharing.once()
        assert sum(plane.mesh.given.values()) <= 1 + 1e-9
    assert plane.mesh.published <= 8, "at most at the look every five seconds"
    # And the whole of it when it matters.
    for _ in range(3):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
        await plane.sharing.once()
    assert plane.mesh.given[RULE, MEMBERS[0]] > 0.9


async def test_what_was_uneven_is_even_again_when_nothing_comes(clock: TurnedClock) -> None:
    """Otherwise the first requests of the next morning would find the shares of last night."""
    plane = Plane(clock)
    for _ in range(3):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
        await plane.sharing.once()
    for _ in range(12):
        clock.advance(1)
        plane.report(clock.now(), {}, *MEMBERS)
        await plane.sharing.once()
    assert list(plane.mesh.given.values()) == pytest.approx([1 / 3] * 3, abs=0.05)


async def test_a_clock_that_goes_back_gives_nobody_more(clock: TurnedClock) -> None:
    """Otherwise shares would be more than the limit together, or stand still until the clock is where it was."""
    plane = Plane(clock)
    clock.advance(7200)
    for _ in range(4):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[0]: 1000}, *MEMBERS[1:])
        await plane.sharing.once()
    clock.advance(-3600)
    for _ in range(4):
        clock.advance(1)
        plane.report(clock.now(), {MEMBERS[1]: 1000}, MEMBERS[0], MEMBERS[2])
        await plane.sharing.once()
        assert sum(plane.mesh.given.values()) <= 1 + 1e-9
        assert min(plane.mesh.given.values()) > 0
    assert plane.mesh.given[RULE, MEMBERS[1]] > 0.9


def test_memory_for_demand_is_bounded() -> None:
    """Otherwise a node that tells tales could fill the control plane."""
    demands = Demands()
    for number in range(60):
        demands.add([], [LimitCount(f"p{number}", f"r{one}", 1) for one in range(1000)], 1.0, float(number))
    assert demands._size <= 50_000
    demands.add([], [], 1.0, 1000.0)
    assert demands._size == 0
