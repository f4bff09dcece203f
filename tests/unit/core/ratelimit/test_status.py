"""What people are told of limits, from what two control planes know."""

from __future__ import annotations

from tulle.core.model.calls import Count, Edge
from tulle.core.model.rate_limit import Counting, KeyKind, Limit, LimitKey
from tulle.core.ratelimit.status import TOP, CallerStatus, KeyStatus, ProxyStatus, RuleStatus, bound, callers, merged, top_keys

REVIEWS = "reviews.default.svc.cluster.local"


def test_who_is_refused_most_comes_first() -> None:
    """Otherwise the one who uses up a limit would not be found; or counted twice, for both ends tell of a call."""
    calls = {
        Edge("destination", source="default/a", service=REVIEWS, code="200"): Count(70),
        Edge("destination", source="default/a", service=REVIEWS, code="429", flags="RL"): Count(30),
        Edge("source", source="default/a", service=REVIEWS, code="429"): Count(30),
        Edge("destination", source="default/b", service=REVIEWS, code="429", flags="RL"): Count(90),
        Edge("destination", source="default/c", service=REVIEWS, code="503", flags="UH,URX"): Count(9),
    }
    assert callers(calls) == (CallerStatus("default/b", REVIEWS, 90, 90), CallerStatus("default/a", REVIEWS, 30, 100))


def test_control_planes_know_of_different_proxies() -> None:
    """Otherwise half of the traffic would be missing, depending on which of them is asked."""
    one = RuleStatus("r", "shared", 100, 1.0, rate=10, refused=5, proxies=(ProxyStatus("a", 0.9, 10), ProxyStatus("b", 0.1)))
    other = RuleStatus("r", "shared", 100, 1.0, rate=7, refused=2, proxies=(ProxyStatus("a", 0.9), ProxyStatus("b", 0.1, 7)))
    (found,) = merged([one], [[other, RuleStatus("gone", "local", 1, 1.0)]])
    assert (found.rate, found.refused) == (17, 7)
    assert found.proxies == (ProxyStatus("a", 0.9, 10), ProxyStatus("b", 0.1, 7))


def test_keys_are_those_that_matter_and_not_too_many() -> None:
    """Otherwise an attacker with a million keys would fill the answer, and the page."""
    keys = [KeyStatus(f"k{number}", 0.1, 1, 0) for number in range(1000)]
    found = top_keys([*keys, KeyStatus("near", 0.9, 9, 0), KeyStatus("over", 0.2, 9, 4)])
    assert [one.key for one in found[:2]] == ["over", "near"]
    assert len(found) == TOP


def test_every_way_to_count_says_how_exact_it_is() -> None:
    """Otherwise nobody could choose between them."""
    limit = Limit("default/a/0", 1000, burst=500)
    shared = Limit("default/a/0", 1000, counting=Counting.SHARED)
    keyed = Limit("default/a/0", 1000, counting=Counting.SHARED, key=LimitKey(KeyKind.IDENTITY))
    exact = Limit("default/a/0", 1000, counting=Counting.EXACT, denies=True)
    assert bound(limit, 3) == "each of 3 proxies by itself; 1,500 at once at each"
    assert "up to 5% below" in bound(shared, 3)
    assert "up to 20% below" in bound(keyed, 3)
    assert bound(exact, 3).endswith("while nobody counts, requests are refused")
    assert "each control plane for itself" in bound(exact, 3, several=True)
