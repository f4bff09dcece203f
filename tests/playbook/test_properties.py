"""Any order of publishes, subscriptions, answers and reconnects: the client ends with what the source has, and safely so."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.playbook.dialogue import CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, Book, cluster, endpoints, thing
from tulle.core.encoded import Encoded
from tulle.xds.events import Changed, Event, Overdue, Settled
from tulle.xds.messages import Request, Send
from tulle.xds.stream import DeltaStream

NAMES = "abcd"
TABLES = ("t", "u")


class Client:
    """Does what an Envoy does: asks for the endpoints of its clusters, the tables of its listeners and their virtual hosts.

    Answers when told to. Fails as soon as it is given a virtual host whose cluster it does not have with endpoints, or loses a
    cluster that one of its virtual hosts needs.
    """

    def __init__(self, book: Book) -> None:
        self.book = book
        self.has: dict[str, dict[str, Encoded]] = {url: {} for url in (CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST)}
        self.acked: set[tuple[str, str]] = set()
        self.asked: dict[str, set[str]] = {ENDPOINT: set(), ROUTE: set()}
        self.inbox: list[Send] = []
        self.connect()

    def connect(self) -> None:
        """A (new) stream; what is held is said, and what was not answered is forgotten."""
        self.stream = DeltaStream(self.book, "default/x")
        self.inbox = []
        for url in (CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST):
            names = tuple(sorted(self.asked.get(url, ())))
            if names or url not in self.asked:
                versions = {name: it.version for name, it in self.has[url].items()}
                self.say(Request(url, subscribe=names, versions=versions))
        self.say(Settled())

    def say(self, event: Event) -> None:
        self.inbox += [action for action in self.stream.feed(event) if isinstance(action, Send)]

    def answer(self) -> None:
        """Take the oldest response in, and acknowledge it."""
        if not self.inbox:
            return
        send = self.inbox.pop(0)
        holds = self.has[send.type_url]
        for name in (*send.removed, *send.absent):
            holds.pop(name, None)
            if send.type_url == CLUSTER:
                assert name not in self.needed(), f"cluster {name} went before the route to it"
        for resource in send.resources:
            holds[resource.name] = resource
            if send.type_url == VIRTUAL_HOST:
                assert resource.name.partition("/")[0] in self.has[ROUTE], "a virtual host came before its table"
                target = resource.value.decode().partition(" ")[0]
                assert (CLUSTER, target) in self.acked, f"a route to {target} came before the cluster"
                assert (ENDPOINT, target) in self.acked, f"a route to {target} came before its endpoints"
        self.acked |= {(send.type_url, resource.name) for resource in send.resources}
        self.say(Request(send.type_url, nonce=send.nonce))
        self.follow()

    def needed(self) -> set[str]:
        return {host.value.decode().partition(" ")[0] for host in self.has[VIRTUAL_HOST].values()}

    def follow(self) -> None:
        """Ask for what the resources refer to; drop what they no longer do."""
        for source, url in ((CLUSTER, ENDPOINT), (LISTENER, ROUTE)):
            refs = {name for it in self.has[source].values() for _, name in it.refs}
            more, less = refs - self.asked[url], self.asked[url] - refs
            self.asked[url] = refs
            if less:
                for name in less:
                    self.has[url].pop(name, None)
                    if url == ROUTE:
                        for host in [host for host in self.has[VIRTUAL_HOST] if host.startswith(name + "/")]:
                            del self.has[VIRTUAL_HOST][host]
            if more or less:
                self.say(Request(url, subscribe=tuple(sorted(more)), unsubscribe=tuple(sorted(less))))

    def settle(self) -> None:
        for _ in range(1000):
            if not self.inbox:
                break
            self.answer()
        assert not self.inbox, "it never ends"


def world(clusters: dict[str, int], hosts: dict[tuple[str, str], tuple[str, int]], tables: set[str]) -> dict[Any, Encoded]:
    """Consistent resources: hosts only to clusters that are there, in tables that are there, behind listeners."""
    found = [cluster(name, str(version % 3)) for name, version in clusters.items()]
    found += [endpoints(name, str(version)) for name, version in clusters.items()]
    for name in tables:
        found.append(thing(LISTENER, f"l{name}", refs=[(ROUTE, name)]))
        found.append(thing(ROUTE, name, refs=[(VIRTUAL_HOST, name)]))
    for (table, host), (target, version) in hosts.items():
        if table in tables and target in clusters:
            found.append(thing(VIRTUAL_HOST, f"{table}/{host}", f"{target} {version}"))
    return {(it.type_url, it.name): it for it in found}


worlds = st.builds(
    world,
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)),
    st.dictionaries(
        st.tuples(st.sampled_from(TABLES), st.sampled_from(NAMES)), st.tuples(st.sampled_from(NAMES), st.integers(0, 2))
    ),
    st.sets(st.sampled_from(TABLES)),
)
steps = st.lists(st.one_of(worlds, st.sampled_from(["answer", "answer", "answer", "answer", "connect"])), max_size=40)


@settings(max_examples=100, deadline=None)
@given(worlds, steps)
def test_the_client_ends_with_what_the_source_has(first: dict[Any, Encoded], story: list[Any]) -> None:
    """Would fail if some order of events lost an update, left something behind, or broke make-before-break."""
    book = Book()
    before = first
    book.tell(*first.values())
    client = Client(book)
    for step in story:
        if step == "answer":
            client.answer()
        elif step == "connect":
            client.connect()
        else:
            changed = [it for key, it in step.items() if before.get(key) != it]
            client.say(Changed(book.tell(*changed, gone=[key for key in before if key not in step])))
            before = step
    client.settle()
    assert client.stream.synced == book.revision
    for url, holds in client.has.items():
        wanted = book.all("default/x", url)
        if url in client.asked:
            wanted = {name: version for name, version in wanted.items() if name in client.asked[url]}
        assert {name: it.version for name, it in holds.items()} == wanted


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_request_breaks_the_stream(data: st.DataObject) -> None:
    """Would fail if a client that asks, drops, answers and refuses at random could crash its stream or jam it."""
    book = Book()
    book.tell(*world({"a": 1, "b": 1}, {("t", "a"): ("a", 1)}, {"t"}).values())
    stream = DeltaStream(book, "default/x")
    urls = st.sampled_from([CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, "type.googleapis.com/unknown"])
    names = st.lists(st.sampled_from(["a", "b", "x", "*", "t", "t/a", "t/x", ""]), max_size=3)
    open_: dict[str, str] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["ask", "ask", "answer", "answer", "publish", "overdue"]))
        event: Event
        if what == "ask":
            versions = data.draw(st.dictionaries(st.sampled_from(["a", "b", "z"]), st.just("old"), max_size=2))
            event = Request(data.draw(urls), data.draw(names), data.draw(names), versions)
        elif what == "answer" and open_:
            nonce = data.draw(st.sampled_from(sorted(open_)))
            event = Request(open_.pop(nonce), nonce=nonce, error=data.draw(st.sampled_from([None, None, "bad", "a: bad"])))
        elif what == "publish":
            event = Changed(book.tell(cluster(data.draw(st.sampled_from(NAMES)), data.draw(st.sampled_from("123")))))
        else:
            event = Overdue()
        for action in stream.feed(event):
            if isinstance(action, Send):
                assert (
                    action.resources or action.removed or action.absent or action.type_url in (CLUSTER, LISTENER, ENDPOINT, ROUTE)
                )
                assert sum(url == action.type_url for url in open_.values()) == 0, "one response in flight per type"
                open_[action.nonce] = action.type_url
    for _ in range(20):  # what it was pointed at and does not ask for, it is soon not waited for
        while open_:
            nonce, url = open_.popitem()
            for action in stream.feed(Request(url, nonce=nonce)):
                if isinstance(action, Send):
                    open_[action.nonce] = action.type_url
        for action in [*stream.feed(Settled()), *stream.feed(Overdue())]:
            if isinstance(action, Send):
                open_[action.nonce] = action.type_url
    assert not open_
    assert stream.outstanding == ()
