"""Rate limits: how much of what a proxy lets through, for whom, and what the rest sees.

A rule is counted in one of three ways (`Counting`). LOCAL: each proxy has the whole limit. SHARED: each proxy has a share of it,
and the shares of all its `members` are 1 together. EXACT: a service counts, which proxies ask for each request.

Names that proxies, the service and those who read figures agree upon:

- `Limit.id` is `NAMESPACE/OBJECT/RULE`, where RULE is the rule's name, or its place (`0`, `1`) where it has none.
- Envoy counts under `Limit.stat_prefix`: `PREFIX.http_local_rate_limit.{enabled,ok,rate_limited,enforced}` where it counts itself
  (`rate_limited`: over the limit, `enforced`: refused, so that in shadow mode only the first grows), and
  `PREFIX.ratelimit.{ok,over_limit,error,failure_mode_allowed}` (under the cluster of the service) where the service does.
- The service is asked in the domain `DOMAIN` for descriptors `(RULE_ENTRY, Limit.id)` and, where the rule has a key that the
  request has too, `(KEY_ENTRY, the key's value)` after it (`ADDRESS_ENTRY` where that is an address: Envoy's name). A request
  that lacks the key has the first entry alone.
- Envoy finds the service behind the cluster `LIMITER`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.authorization import Clause

DOMAIN = "tulle"
RULE_ENTRY, KEY_ENTRY, ADDRESS_ENTRY = "rule", "key", "remote_address"
LIMITER = "limiter"  # a cluster

# What one request takes out of a bucket, in the units in which shared limits are counted: a proxy with the share w pays 1/w of
# it. So a share can change while the bucket stays as it is.
ONE = 1000
MOST = 2**32 - 1  # what a bucket of Envoy's holds


class Counting(StrEnum):
    """Who counts what a rule limits."""

    LOCAL = "local"
    SHARED = "shared"
    EXACT = "exact"


class Unit(StrEnum):
    """What is counted. CONNECTIONS are those that begin, CONCURRENT those there are at once, BYTES what they carry each way."""

    REQUESTS = "Requests"
    BYTES = "Bytes"
    CONNECTIONS = "Connections"
    CONCURRENT = "ConcurrentConnections"


class KeyKind(StrEnum):
    """What tells the buckets of a rule apart."""

    IDENTITY = "Identity"
    SOURCE_IP = "SourceIP"
    HEADER = "Header"
    CLAIM = "Claim"
    ROUTE = "Route"


class LimitKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """Each value has a bucket of its own. `name` is the header's, or the way to a claim.

    Requests without a value share one bucket more; with `skip` they are not counted.
    """

    kind: KeyKind
    name: tuple[str, ...] = ()
    skip: bool = False


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """Another limit for some values of the key."""

    values: tuple[str, ...]
    limit: int
    burst: int = 0


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the refused see; `headers`: how much there is, and when to come again."""

    status: int = 429
    headers: bool = True
    body: str = ""
    content_type: str = "text/plain"


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """`limit` units in each `window` (seconds), and up to `limit + burst` at once, for each value of `key`.

    It is for what one of `matches` is true of; without any for everything. `denies`: what cannot be counted is refused.
    `shadow`: counted, and never refused.
    """

    id: str
    limit: int
    window: float = 1.0
    burst: int = 0
    unit: Unit = Unit.REQUESTS
    counting: Counting = Counting.LOCAL
    matches: tuple[Clause, ...] = ()
    key: LimitKey | None = None
    overrides: tuple[Override, ...] = ()
    denies: bool = False
    refusal: Refusal = Refusal()
    shadow: bool = False

    @property
    def sizes(self) -> tuple[Limit | Override, ...]:
        """What a bucket of it can be like."""
        return (self, *self.overrides)

    @property
    def object(self) -> tuple[str, str]:
        """Namespace and name of the RateLimit."""
        namespace, name, _rule = self.id.split("/")
        return namespace, name

    @property
    def stat_prefix(self) -> str:
        """How the names of what Envoy counts for it begin."""
        return f"ratelimit.{self.id}"


class Counter(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Requests are counted here: the rules are a resource named after the place `name`, what a request costs is another one,
    where a limit is `shared`.
    """

    name: str
    shared: bool = False

    @property
    def resource(self) -> str:
        """The name of the resource with the rules."""
        return f"limits~{self.name}"

    @property
    def costs(self) -> str:
        """The name of the resource with what a request takes from each shared limit."""
        return f"limit-costs~{self.name}"


class Limited(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a place, in their order. `members` is how many proxies share each, by its id."""

    counter: Counter
    limits: tuple[Limit, ...]
    members: dict[str, int] = {}


class Costs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request takes from each shared limit of a place, by the limit's id."""

    counter: Counter
    costs: dict[str, int]


class ConnectionCounter(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Connections, or what they carry, are counted here by the rule of an `id`."""

    id: str
    unit: Unit

    @property
    def resource(self) -> str:
        """The name of the resource with the rule."""
        return f"connection-limits~{self.id}"


class ConnectionLimited(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a workload's connections. `members` is how many proxies share each, by its id, in even parts."""

    limits: tuple[Limit, ...]
    members: dict[str, int] = {}


class RouteLimited(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of the routes that a proxy has: of `whole` ones and of single `rules`, by their names in `RouteCounters`.

    `members` is how many proxies share each, by its id.
    """

    whole: dict[str, tuple[Limit, ...]] = {}
    rules: dict[str, tuple[Limit, ...]] = {}
    members: dict[str, int] = {}

    @property
    def all(self) -> tuple[tuple[Limit, ...], ...]:
        """All of them."""
        return (*self.whole.values(), *self.rules.values())


# Where requests of whole routes are counted, and those of single rules. What they cost is with the first.
ROUTES, RULES = Counter("routes", shared=True), Counter("rules")
NO_ROUTES = RouteLimited()


class SharedLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A limit that proxies share: `members` are the ids of those that enforce it, sorted."""

    limit: Limit
    members: tuple[str, ...] = ()


def room(said: Limit | Override, members: int) -> int:
    """How many requests the bucket of a shared limit holds: at least so many that the smallest share lets one through."""
    return max(said.limit + said.burst, members)


def unit(limit: Limit, members: int) -> int:
    """What a request takes from a shared limit of which one proxy has everything; less than `ONE` where numbers would not fit."""
    most = max(room(said, members) for said in limit.sizes)
    return max(1, min(ONE, MOST // most))


class Price(msgspec.Struct, frozen=True):
    """What a request takes from a bucket of a shared limit: `one` where a proxy has all of the limit, never more than `most`."""

    one: int
    most: int

    def at(self, share: float) -> int:
        """For a proxy that has such a share."""
        return max(self.one, min(round(self.one / max(share, 1e-9)), self.most))


def price(limit: Limit, members: int) -> Price:
    """Of a limit that so many share: never more than a full bucket has, for with a smaller share nothing would ever pass."""
    one = unit(limit, members)
    return Price(one, one * min(room(said, members) for said in limit.sizes))
