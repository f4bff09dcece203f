"""RateLimit: how much of what a Service, a Gateway or a route takes from whom, and what happens to the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.shared import WorkloadSelector
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.own.status import RateLimitStatus
from tulle.api.regex import regex_fault
from tulle.api.rules import distinct, exactly_one
from tulle.api.values import (
    HEADER_VALUE,
    Defaulted,
    DnsLabel,
    Duration,
    Group,
    HeaderName,
    KindName,
    Many,
    ObjectName,
    SectionName,
    UInt32,
    Words,
    seconds,
)

GATEWAY_API = "gateway.networking.k8s.io"
LONGEST_WINDOW = 24 * 3600  # seconds
LEAST_BYTES = 1024  # in a second

# What a limit can be for, and whether a part of it has a name (a Service's port, a Gateway's listener, a route's rule).
TARGETS = {
    ("", "Service"),
    (GATEWAY_API, "Gateway"),
    (GATEWAY_API, "HTTPRoute"),
    (GATEWAY_API, "GRPCRoute"),
}

# The statuses of refusals that Envoy can answer with.
STATUSES = frozenset(
    {*range(400, 418), *range(421, 425), 426, 428, 429, 431, *range(500, 509), 510, 511},
)

Limit = Annotated[int, Field(ge=1, le=2**32 - 1, json_schema_extra={"format": "int64"})]


class TargetRef(Ruled):
    """What is limited: a Service, a Gateway or a route of the same namespace; by `sectionName` a port, listener or rule of it."""

    group: Defaulted[Group] = ""
    kind: KindName
    name: ObjectName
    section_name: SectionName | None = None

    def faults(self) -> Iterator[Fault]:
        """A kind that requests pass."""
        if (self.group, self.kind) not in TARGETS:
            known = ", ".join(f"{kind}.{group}" if group else kind for group, kind in sorted(TARGETS))
            found = f"{self.kind}.{self.group}" if self.group else self.kind
            yield Fault(("kind",), f'found "{found}"; needed one of {known}', "BadEnum")


class PathMatch(Ruled):
    """A path: all of it, a prefix that ends at a "/", or an RE2 expression of the whole."""

    type: Defaulted[Literal["Exact", "PathPrefix", "RegularExpression"]] = "PathPrefix"
    value: Defaulted[Annotated[str, Field(min_length=1, max_length=1024)]] = "/"

    def faults(self) -> Iterator[Fault]:
        """An absolute path, or an expression."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")
        elif not self.value.startswith("/"):
            yield Fault(("value",), f'found "{self.value}"; needed a path that starts with "/"', "BadPath")


class HeaderMatch(Ruled):
    """A header's value."""

    type: Defaulted[Literal["Exact", "RegularExpression"]] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    def faults(self) -> Iterator[Fault]:
        """An RE2 expression."""
        if self.type == "RegularExpression":
            yield from regex_fault(self.value, "value")


class SourceMatch(Ruled):
    """Who calls: the workloads of a namespace, or of a Service in it."""

    namespace: DnsLabel | None = None
    service: ObjectName | None = None

    def faults(self) -> Iterator[Fault]:
        """Something in it."""
        if self.namespace is None and self.service is None:
            yield Fault((), "found an empty source; needed namespace or service", "Required")


class ClaimMatch(Schema):
    """A claim of a token that a RequestAuthentication has checked; nested claims as `a.b`. One of `values` suffices."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    values: Annotated[Many[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=64)]


class Match(Ruled):
    """All of what is written must hold; one entry of a list suffices, but all of `headers` and of `claims`."""

    methods: Annotated[
        Many[Annotated[str, Field(pattern="^[A-Z]{1,32}$"), Words('a method such as "GET"')]], Field(max_length=16)
    ] = ()
    path: PathMatch | None = None
    headers: Annotated[Many[HeaderMatch], Field(max_length=16)] = ()
    sources: Annotated[Many[SourceMatch], Field(max_length=64)] = ()
    claims: Annotated[Many[ClaimMatch], Field(max_length=16)] = ()

    def faults(self) -> Iterator[Fault]:
        """Each header and claim once."""
        yield from distinct(self.headers, lambda header: header.name.lower(), ("headers",), "name")
        yield from distinct(self.claims, lambda claim: claim.name, ("claims",), "name")


class Key(Ruled):
    """What has a bucket of its own: each client's identity, source address, value of a header or claim, or route.

    `absent` says what happens to a request that has no such header or claim: it shares one bucket with all of its kind
    (`Share`), or the rule does not count it (`Skip`).
    """

    type: Literal["Identity", "SourceIP", "Header", "Claim", "Route"]
    header: HeaderName | None = None
    claim: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    absent: Defaulted[Literal["Share", "Skip"]] = "Share"

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        for field, value in (("header", self.header), ("claim", self.claim)):
            chosen = self.type.lower() == field
            if chosen and value is None:
                yield Fault((field,), f"found nothing; needed it, for the type is {self.type}", "Required")
            if not chosen and value is not None:
                yield Fault((field,), f"found it with type {self.type}; needed none, or type {field.capitalize()}", "OneOf")


class Override(Schema):
    """Another limit for clients whose key has one of `values`."""

    values: Annotated[Many[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=256)]
    limit: Limit
    burst: UInt32 | None = None


class Refusal(Ruled):
    """What the refused see (gRPC: RESOURCE_EXHAUSTED). `headers`: RateLimit-Limit, -Remaining, -Reset and Retry-After."""

    status_code: Defaulted[Annotated[int, Field(ge=400, le=599, json_schema_extra={"format": "int32"})]] = 429
    headers: bool = True
    body: Annotated[str, Field(max_length=4096)] = ""
    content_type: Annotated[str, Field(pattern=HEADER_VALUE, min_length=1, max_length=256)] = "text/plain"

    def faults(self) -> Iterator[Fault]:
        """A status that proxies can answer with, and a body that they can say."""
        if self.status_code not in STATUSES:
            yield Fault(
                ("statusCode",), f"found {self.status_code}; needed one that HTTP knows, such as 429 or 503", "OutOfRange"
            )
        if not self.body.isprintable():
            yield Fault(("body",), "found a line break or a character that is not printed; needed one line of text")


class Rule(Ruled):
    """`limit` units in each `window` for each key; up to `burst` more at once. With `shadow` it counts and refuses nothing.

    `unit` Connections is those that begin, ConcurrentConnections those there are at once (without a window), Bytes what they
    carry in each direction: more is held up, not refused.

    `scope` local counts in each proxy by itself, global over all replicas: by `shares` of the limit that are weighted anew about
    every second, or `exact`, which asks a service for each request. `onFailure` is what `exact` does while that is away.
    """

    name: SectionName | None = None
    match: Annotated[Many[Match], Field(max_length=64)] = ()
    key: Key | None = None
    unit: Defaulted[Literal["Requests", "Bytes", "Connections", "ConcurrentConnections"]] = "Requests"
    limit: Limit
    window: Defaulted[Duration] = "1s"
    burst: UInt32 = 0
    scope: Defaulted[Literal["local", "global"]] = "local"
    precision: Defaulted[Literal["shares", "exact"]] = "shares"
    on_failure: Literal["allow", "deny"] = "allow"
    overrides: Annotated[Many[Override], Field(max_length=256)] = ()
    refusal: Refusal = Field(default_factory=Refusal)
    shadow: bool = False

    def faults(self) -> Iterator[Fault]:
        """A window that can be counted; settings that belong together."""
        if seconds(self.window) > LONGEST_WINDOW:
            yield Fault(("window",), f"found {self.window}; needed at most 24h", "OutOfRange")
        if self.limit + self.burst > 2**32 - 1:
            yield Fault(("burst",), f"found {self.burst}; needed at most {2**32 - 1 - self.limit} with this limit", "OutOfRange")
        if self.overrides and self.key is None:
            yield Fault(("overrides",), "found them without a key; needed the key whose values they are for", "Required")
        if self.precision == "exact" and self.scope == "local":
            yield Fault(("precision",), "found exact with the scope local; needed shares, or the scope global", "OneOf")
        if "on_failure" in self.model_fields_set and self.precision != "exact":
            yield Fault(
                ("onFailure",), "found it without precision exact; needed none: nothing is asked that could fail", "OneOf"
            )
        if self.unit != "Requests":
            yield from self._connection_faults()
        yield from self._override_faults()

    def _connection_faults(self) -> Iterator[Fault]:
        """Connections and bytes are counted before anything is known of who makes them, and get no answer."""
        why = (
            f"with the unit {self.unit}; needed none: connections are counted before anybody has said who he is, or what he wants"
        )
        for field, value in (("match", self.match), ("key", self.key)):
            if value:
                yield Fault((field,), f"found it {why}", "OneOf")
        if "refusal" in self.model_fields_set:
            yield Fault(("refusal",), f"found it with the unit {self.unit}; needed none: a connection gets no answer", "OneOf")
        if self.shadow:
            yield Fault(("shadow",), f"found true with the unit {self.unit}; needed false: proxies cannot only count it", "OneOf")
        if self.precision == "exact":
            yield Fault(("precision",), f"found exact with the unit {self.unit}; needed shares, an even split of it", "OneOf")
        if self.unit == "Connections":
            return
        if self.burst:
            yield Fault(("burst",), f"found {self.burst} with the unit {self.unit}; needed none", "OneOf")
        if self.unit == "ConcurrentConnections" and self.window != type(self).model_fields["window"].default:
            message = f"found {self.window} with the unit ConcurrentConnections; needed none: what is there at once is counted"
            yield Fault(("window",), message, "OneOf")
        if self.unit == "Bytes" and self.limit / seconds(self.window) < LEAST_BYTES:
            message = f"found {self.limit} in {self.window}; needed at least {LEAST_BYTES} a second, the least that proxies count"
            yield Fault(("limit",), message, "OutOfRange")

    def _override_faults(self) -> Iterator[Fault]:
        seen: set[str] = set()
        for index, override in enumerate(self.overrides):
            for number, value in enumerate(override.values):
                if value in seen:
                    yield Fault(
                        ("overrides", index, "values", number), f'found "{value}" twice; needed each only once', "Duplicate"
                    )
                seen.add(value)


class RateLimitSpec(Ruled):
    """Limits of what `targetRefs` or `selector` name; a request must be within every rule that it matches."""

    target_refs: Annotated[Many[TargetRef], Field(min_length=1, max_length=16)] | None = None
    selector: WorkloadSelector | None = None
    rules: Annotated[Many[Rule], Field(min_length=1, max_length=64)]

    def faults(self) -> Iterator[Fault]:
        """One way to say for what; rules told apart."""
        yield from exactly_one(self, "targetRefs", "selector")
        refs = self.target_refs or ()
        yield from distinct(refs, lambda ref: (ref.group, ref.kind, ref.name, ref.section_name), ("targetRefs",), "name")
        yield from distinct(self.rules, lambda rule: rule.name, ("rules",), "name")
        for index, rule in enumerate(self.rules):
            if rule.name is not None and rule.name.isdigit() and rule.name != str(index):
                message = f'found "{rule.name}", which is what a rule without a name is called; needed another'
                yield Fault(("rules", index, "name"), message, "Duplicate")


class RateLimit(Object):
    """A rate limit."""

    kind: Literal["RateLimit"] = "RateLimit"
    spec: RateLimitSpec
    status: RateLimitStatus | None = None
