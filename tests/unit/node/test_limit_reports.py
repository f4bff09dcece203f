"""What a node reads of Envoy's counts of limits, and how often."""

from __future__ import annotations

from collections.abc import Mapping

from tulle.core import type_urls
from tulle.core.model.limit_counts import LimitCount
from tulle.node.metrics.limits import pace, read, since

STATS = """\
ratelimit.default/all/0.http_local_rate_limit.enabled: 12
ratelimit.default/all/0.http_local_rate_limit.enforced: 2
ratelimit.default/all/0.http_local_rate_limit.ok: 9
ratelimit.default/all/0.http_local_rate_limit.rate_limited: 3
ratelimit.default/a.b/per.client.http_local_rate_limit.ok: 7
ratelimit.default/all/0.something.else: 4
cluster.x.ratelimit.ok: 5
"""


def test_what_envoy_counts_is_read_by_rule() -> None:
    """Otherwise a rule whose name has dots would be another, and shares follow what nobody asked for."""
    assert read(STATS) == {"default/all/0": (9, 3, 2), "default/a.b/per.client": (7, 0, 0)}


def test_only_news_are_told_and_a_new_envoy_begins_anew() -> None:
    """Otherwise a restarted Envoy would count for nothing until it had caught up with its predecessor."""
    key = ("default/a", "default/all/0")
    assert since({key: (5, 1, 1)}, {key: (9, 3, 2)}) == (LimitCount(*key, 4, 2, 1),)
    assert since({key: (500, 100, 100)}, {key: (9, 3, 2)}) == (LimitCount(*key, 9, 3, 2),)


class Told:
    def __init__(self, *names: str) -> None:
        self.names = names

    def table(self, _layer: str, type_url: str) -> Mapping[str, object]:
        return dict.fromkeys(self.names if type_url == type_urls.EXTENSION else ())


def test_only_who_shares_a_limit_tells_of_it_every_second() -> None:
    """Otherwise a mesh without shared limits would pay for them."""
    assert pace(Told("authz-deny-http")) == 0
    assert pace(Told("limits~9080")) == 5
    assert pace(Told("limits~9080", "limit-costs~9080")) == 1
