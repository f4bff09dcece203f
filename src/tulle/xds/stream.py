"""One proxy's delta ADS stream as a pure protocol: events in, actions out; no I/O, no clock. `server.py` is its shell.

The proxy sees the layers of a `core.encoded.Source`. What changes reaches it in *waves*. A wave pins the source's tables as
they are, then goes through its phases, and only then the next wave begins with whatever is newest by then; so several revisions
that arrive meanwhile coalesce, a proxy that is always behind still gets forward, and a route of a revision is never sent with
the clusters of an older one.

| phase | sends | goes on when |
|---|---|---|
| make 1 | new and changed secrets, clusters, endpoints | answered, and what new clusters refer to is subscribed and answered |
| make 2 | new and changed listeners, their filters, routes, virtual hosts | the same |
| make 3 | names | the same |
| break 3, 2, 1 | removals, in the reverse order: whatever points to a thing goes before it (never of filters) | answered |

The phase is not stored: it follows from what is due, in flight and awaited (`_pump`). A subscription is answered from the
pinned tables under the same gates. A refusal (NACK) counts as an answer, and is kept until that resource changes or goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from tulle.core.encoded import Encoded, Published, Source
from tulle.core.type_urls import CLUSTER, ENDPOINT, EXTENSION, LISTENER, NAME, ORDER, ROUTE, SECRET, VIRTUAL_HOST
from tulle.xds.events import Acked, Action, Changed, Event, Overdue, Refused, Settled, Subscribed, Synced
from tulle.xds.messages import WILDCARD, Request, Send
from tulle.xds.status import Nack, TypeStatus
from tulle.xds.subscription import Flight, Subscription, matches, mentions
from tulle.xds.view import View

GROUPS = ((SECRET, CLUSTER, ENDPOINT), (LISTENER, EXTENSION, ROUTE, VIRTUAL_HOST), (NAME,))
_GROUP = {type_url: number for number, group in enumerate(GROUPS) for type_url in group}

# Removals in the opposite direction, except that a cluster goes before its endpoints, and a listener before its routes.
_BREAK = ((NAME,), (LISTENER, EXTENSION, ROUTE, VIRTUAL_HOST), (CLUSTER, ENDPOINT, SECRET))

# Types for which an empty first subscription means all of them. For virtual hosts Envoy means: those of the route tables that
# I have; it names neither, and does not ask again for a table that comes later.
_LEGACY_WILDCARD = frozenset({CLUSTER, LISTENER, VIRTUAL_HOST, NAME})


class DeltaStream:
    """The protocol of one stream. `known` as in `AdsServer`: whether the absence of a name from the source is a fact.

    `synced` is the latest revision with nothing outstanding. `recovering`: the proxy brought resources along from an earlier
    stream, and nothing is removed before `Settled` is fed.
    """

    def __init__(
        self, source: Source, proxy: str, known: Callable[[str, str, str], bool] = lambda proxy, type_url, name: True
    ) -> None:
        self.proxy = proxy
        self.synced = 0
        self.recovering = False
        self._view = View(source, proxy)
        self._known = known
        self._types: dict[str, Subscription] = {}
        self._news = False
        self._awaited: dict[tuple[str, str], int] = {}
        self._nonce = 0
        self._enter()

    @property
    def held(self) -> bool:
        """Whether this waits for a proxy that the source does not know (yet)."""
        return not self._view.layers

    @property
    def outstanding(self) -> tuple[str, ...]:
        """The types that the proxy has yet to answer, or to subscribe to because of what it was sent; without the overdue."""
        unanswered = {url for url, kind in self._types.items() if kind.flight is not None and not kind.late}
        return tuple(url for url in ORDER if url in unanswered or any(url == ref[0] for ref in self._awaited))

    @property
    def refused(self) -> dict[tuple[str, str], str]:
        """What the proxy refuses now, by (type URL, name), and why."""
        return {(url, name): why for url, kind in self._types.items() for name, why in kind.refused.items()}

    def has(self, type_url: str, name: str) -> str:
        """The version of a resource that the proxy has said it took; "" where it has said of none."""
        kind = self._types.get(type_url)
        if kind is None or name in kind.refused or (kind.flight is not None and name in kind.flight.resources):
            return ""
        return kind.held.get(name) or ""

    def status(self) -> tuple[TypeStatus, ...]:
        """What each subscribed type stands at."""
        return tuple(
            TypeStatus(url, kind.sent, kind.acked, sum(1 for version in kind.held.values() if version), dict(kind.refused))
            for url in ORDER
            if (kind := self._types.get(url)) is not None
        )

    def feed(self, event: Event) -> list[Action]:
        """The one way in: what happened, and what is to be done about it, in that order."""
        actions: list[Action] = []
        match event:
            case Request():
                self._request(event, actions)
            case Changed(published):
                self._changed(published)
            case Settled():
                self.recovering = False
            case Overdue():
                self._awaited.clear()
                for kind in self._types.values():
                    kind.late = kind.flight is not None
        self._pump(actions)
        return actions

    # What comes in

    def _request(self, request: Request, actions: list[Action]) -> None:
        kind = self._types.get(request.type_url)
        first = kind is None
        if kind is None:
            kind = self._types[request.type_url] = Subscription()
            if request.versions:
                self.recovering = True
                # Held before anything else is; what is held and no longer there will be told.
                kind.split()
                kind.held.update((sys.intern(name), sys.intern(version)) for name, version in request.versions.items())
        if request.nonce:
            self._answer(request, kind, actions)
        subscribe = tuple(request.subscribe)
        if first and not subscribe and request.type_url in _LEGACY_WILDCARD:
            subscribe = (WILDCARD,)
        for name in subscribe:
            self._subscribe(request.type_url, kind, sys.intern(name), request.versions if first else {})
        for name in request.unsubscribe:
            self._unsubscribe(request.type_url, kind, name)
        if first and request.versions:
            # Versions for what is not subscribed say nothing.
            for name in [name for name in kind.held if not kind.wants(name)]:
                kind.forget(name)
            if not kind.wildcard and not kind.tables:
                kind.explicit = None
        if subscribe or request.unsubscribe:
            actions.append(Subscribed(request.type_url, subscribe, tuple(request.unsubscribe)))

    def _answer(self, request: Request, kind: Subscription, actions: list[Action]) -> None:
        flight = kind.flight
        if flight is None or flight.nonce != request.nonce:
            return  # an answer to what is no longer asked
        kind.flight, kind.late = None, False
        if request.error is not None:
            self._refused(request.type_url, kind, flight, request.error, actions)
            return
        kind.acked = flight.revision
        for name in flight.resources if kind.refused else ():
            kind.refused.pop(name, None)
        if kind.batch and kind.due:
            return  # one part of several
        kind.batch = 0
        actions.append(Acked(request.type_url, flight.revision))

    def _refused(self, type_url: str, kind: Subscription, flight: Flight, why: str, actions: list[Action]) -> None:
        """Keep the refusal, and send the rest of that response again: Envoy may have taken none of it. Where it does not say
        which resource was wrong, that is found out by sending the halves.
        """
        named = [name for name in flight.resources if mentions(why, name)]
        several = len(flight.resources) > 1
        for name in flight.resources if several else ():
            if name not in named and kind.wants(name):
                kind.look(name, force=True)
        if several and not named:
            kind.batch = len(flight.resources) // 2
            return
        blamed = tuple(named or flight.resources)
        if blamed and not named:
            why = f"{blamed[0]}: {why}"
        kind.refused.update(dict.fromkeys(blamed, why))
        for name in blamed:  # what was refused will not lead to subscriptions
            for ref in self._view.refs(type_url, name):
                self._awaited.pop(ref, None)
        actions.append(Refused(Nack(type_url, blamed or flight.gone, why, flight.revision)))

    def _subscribe(self, type_url: str, kind: Subscription, name: str, versions: Mapping[str, str]) -> None:
        if name == WILDCARD or (type_url == VIRTUAL_HOST and "/" not in name):
            self._subscribe_pattern(type_url, kind, name, greet=not versions)
            return
        kind.add_named(name)
        # Asked again, a resource is sent again: the client may have dropped it. Unless it says that it has it; but a changed
        # cluster waits for its endpoints even then.
        awaited = self._awaited.pop((type_url, name), None) is not None
        kind.look(name, force=awaited or name not in versions)
        if self._news:
            kind.later.add(name)
        if type_url == ROUTE and name in versions:
            self._look_at_hosts(name, force=False)

    def _subscribe_pattern(self, type_url: str, kind: Subscription, pattern: str, greet: bool) -> None:
        kind.split()
        if pattern == WILDCARD:
            again, kind.wildcard = kind.wildcard, True
        else:
            again = pattern in kind.tables
            kind.tables |= {pattern}
        for name in self._view.names(type_url, pattern):
            kind.look(name, force=again or (type_url, name) in self._awaited)
        for name in kind.held:
            kind.look(name, force=False)
        if self._news:  # the next wave has tables of its own
            kind.later.update(name for name in self._view.newest(type_url) if matches(pattern, name))
        for ref in [ref for ref in self._awaited if ref[0] == type_url and (pattern == ref[1] or matches(pattern, ref[1]))]:
            del self._awaited[ref]
        if type_url == VIRTUAL_HOST and pattern == WILDCARD:
            routes = self._types.get(ROUTE)
            for table in [name for name, version in routes.held.items() if version] if routes and greet else ():
                self._look_at_hosts(table, force=again)
        elif greet:
            kind.greet |= {pattern}

    def _look_at_hosts(self, table: str, *, force: bool) -> None:
        """The client has (been sent) a route table: its virtual hosts are what is next. Even none of them is an answer."""
        kind = self._types.get(VIRTUAL_HOST)
        if kind is None or not (kind.wildcard or table in kind.tables):
            return
        hosts = list(self._view.names(VIRTUAL_HOST, table))
        for name in hosts:
            kind.look(name, force)
        if not hosts:
            kind.greet |= {table}

    def _unsubscribe(self, type_url: str, kind: Subscription, name: str) -> None:
        if name == WILDCARD or name in kind.tables:
            if name == WILDCARD:
                kind.wildcard = False
            kind.tables -= {name}
            kind.greet -= {name}
            for there in [there for there in kind.held if not kind.wants(there)]:
                kind.forget(there)
            for there in [there for there in kind.due if not kind.wants(there)]:
                kind.forget(there)
            return
        self._awaited.pop((type_url, name), None)
        if kind.explicit is not None:
            kind.explicit.discard(name)
        if kind.covered(name):
            # The client no longer knows whether it is to have it: tell again.
            kind.look(name, force=True)
        else:
            kind.forget(name)
        hosts = self._types.get(VIRTUAL_HOST)
        if type_url == ROUTE and hosts is not None:
            # The table's virtual hosts went with it, and come with it when it is asked for again.
            for host in [host for host in hosts.held if matches(name, host) and not self._deliverable(hosts, host)]:
                hosts.forget(host)

    def _changed(self, published: Published) -> None:
        if self._enter():
            return
        for layer in self._view.layers:
            changed = published.changed.get(layer, {})
            self._view.changed(changed)
            for type_url, names in changed.items():
                kind = self._types.get(type_url)
                if kind is not None:
                    kind.later.update(name for name in names if kind.wants(name))
        self._news = True
        if self._idle():
            self._begin()

    def _enter(self) -> bool:
        """Whether the proxy became known, or sees other layers: then look at everything. Where it went, leave it what it has."""
        was_held = self.held
        if not self._view.enter():
            return False
        if self.held:
            return True
        self._news = True
        if was_held:
            self._begin()
        for type_url, kind in self._types.items():
            if was_held:
                for name in (*self._covered(type_url, kind), *kind.held):
                    kind.look(name, force=False)
            else:
                kind.later.update(kind.held)
                kind.later.update(name for name in self._view.newest(type_url) if kind.wants(name))
        return True

    # What goes out

    def _pump(self, actions: list[Action]) -> None:
        """Send all that may be sent now. Ends at the first gate that is closed, or where there is nothing left to say."""
        while not self.held:
            if not (self._make(actions) and self._break(actions)):
                return
            if self._view.revision != self.synced and self._idle() and self._complete():
                self.synced = self._view.revision
                actions.append(Synced(self.synced))
            if not self._news:
                return
            self._begin()

    def _idle(self) -> bool:
        """Whether this wave is over, and nothing of an earlier one is overdue."""
        return not self._awaited and not any(kind.flight or kind.due or kind.gone for kind in self._types.values())

    def _begin(self) -> None:
        """The next wave: pin the newest tables."""
        self._view.pin()
        self._news = False
        for kind in self._types.values():
            if kind.later:
                for name in kind.later:
                    kind.look(name, force=False)
                kind.later = set()

    def _make(self, actions: list[Action]) -> bool:
        """Additions and changes, group by group; whether all of them are answered."""
        for number, group in enumerate(GROUPS):
            answered = True
            for type_url in group:
                kind = self._types.get(type_url)
                if kind is None:
                    continue
                if (kind.due or kind.greet) and kind.flight is None and not self._table_in_flight(type_url):
                    self._send_due(type_url, kind, actions)
                answered = answered and not kind.waits
            if not answered or any(waits == number for waits in self._awaited.values()):
                return False
        return True

    def _break(self, actions: list[Action]) -> bool:
        """Removals, in the reverse order; whether all of them are answered.

        A proxy that comes back asks for one type after the other: until it has, its routes to a cluster that is to go are
        not known here.
        """
        if self.recovering and any(kind.gone for kind in self._types.values()):
            return False
        for group in _BREAK:
            for type_url in group:
                kind = self._types.get(type_url)
                if kind is not None and kind.gone and kind.flight is None:
                    gone, kind.gone = sorted(kind.gone), set()
                    for name in gone:
                        kind.told_absent(name)
                    self._send(type_url, kind, actions, removed=tuple(gone))
            if any(kind.waits for url in group if (kind := self._types.get(url))):
                return False
        return True

    def _send_due(self, type_url: str, kind: Subscription, actions: list[Action]) -> None:
        due = kind.take_due()
        resources: list[Encoded] = []
        absent: list[str] = []
        for name in sorted(due):
            force, held = due[name], kind.held.get(name)
            target = self._view.target(type_url, name)
            if target is not None:
                if type_url == VIRTUAL_HOST and not self._deliverable(kind, name):
                    continue
                kind.gone.discard(name)
                if force or target.version != held:
                    resources.append(target)
                    kind.held[target.name] = target.version
                    self._follow(type_url, target, again=bool(held))
            elif not self._known(self.proxy, type_url, name):
                pass  # not a fact yet; a publish will name it
            elif held and type_url == EXTENSION:
                pass  # a listener that drains uses it to the end, and answers 500 without; the proxy unsubscribes by itself
            elif held:
                kind.gone.add(name)
            elif force or (held is None and kind.named(name)):
                absent.append(name)
                kind.told_absent(name)
        owed = [pattern for pattern in kind.greet if self._known(self.proxy, type_url, pattern)]
        if resources or absent or owed:
            # Envoy hands a virtual host's answer to the table that its name begins with; so "none" has to have such a name.
            absent += sorted(
                f"{pattern}/"
                for pattern in owed
                if pattern != WILDCARD and not any(matches(pattern, one.name) for one in resources)
            )
            self._send(type_url, kind, actions, resources=tuple(resources), absent=tuple(absent))

    def _deliverable(self, kind: Subscription, host: str) -> bool:
        """Whether the client can take this virtual host: under a wildcard only with the table that it belongs to."""
        table = host.rpartition("/")[0]
        routes = self._types.get(ROUTE)
        return table in kind.tables or kind.named(host) or (routes is not None and bool(routes.held.get(table)))

    def _table_in_flight(self, type_url: str) -> bool:
        """Envoy drops virtual hosts that come before it has taken their table."""
        routes = self._types.get(ROUTE)
        return type_url == VIRTUAL_HOST and routes is not None and routes.flight is not None and not routes.late

    def _send(
        self,
        type_url: str,
        kind: Subscription,
        actions: list[Action],
        *,
        resources: tuple[Encoded, ...] = (),
        removed: tuple[str, ...] = (),
        absent: tuple[str, ...] = (),
    ) -> None:
        self._nonce += 1
        send = Send(type_url, str(self._nonce), self._view.revision, resources, removed, absent)
        kind.flight = Flight(send.nonce, send.revision, tuple(resource.name for resource in resources), (*removed, *absent))
        kind.sent = send.revision
        kind.greet = frozenset(
            pattern
            for pattern in kind.greet
            if not (self._known(self.proxy, type_url, pattern) or any(matches(pattern, one.name) for one in resources))
        )
        actions.append(send)

    def _follow(self, type_url: str, resource: Encoded, again: bool) -> None:
        """What the proxy will ask for because of this resource. `again`: it had an earlier version of it."""
        for ref_type, ref_name in resource.refs:
            kind = self._types.get(ref_type)
            if ref_type == VIRTUAL_HOST and kind is not None and kind.wants(f"{ref_name}/"):
                self._look_at_hosts(ref_name, force=True)
            elif not self._view.has(ref_type, ref_name):
                continue
            elif kind is None or not kind.wants(ref_name):
                self._awaited[ref_type, ref_name] = _GROUP[type_url]
            elif again and type_url == CLUSTER and ref_type == ENDPOINT:
                # Envoy warms a changed cluster anew and waits for its endpoints, though it does not ask again.
                kind.look(ref_name, force=True)

    def _covered(self, type_url: str, kind: Subscription) -> Iterable[str]:
        patterns = (WILDCARD,) if kind.wildcard else sorted(kind.tables)
        return (name for pattern in patterns for name in self._view.names(type_url, pattern))

    def _complete(self) -> bool:
        """Whether the proxy has asked for what every proxy asks for; before that it is on its way, not in sync."""
        return all(type_url in self._types or not self._view.any(type_url) for type_url in (CLUSTER, LISTENER))
