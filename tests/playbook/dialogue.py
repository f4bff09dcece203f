"""A source and a client to play against each other: playbooks read as dialogues, with no I/O between the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tulle.core.encoded import Encoded, Published, encode
from tulle.core.type_urls import CLUSTER, ENDPOINT, LISTENER, NAME, ROUTE, SECRET, SHORT, VIRTUAL_HOST
from tulle.kit.wire import field
from tulle.xds.events import Changed, Event, Overdue, Settled
from tulle.xds.messages import Request, Send
from tulle.xds.stream import DeltaStream

LONG = {short: url for url, short in SHORT.items()}
PROXY = "default/curl"
LAYER = "mesh"

__all__ = ["CLUSTER", "ENDPOINT", "LISTENER", "LONG", "NAME", "PROXY", "ROUTE", "SECRET", "VIRTUAL_HOST", "Book", "Dialogue"]


class Book:
    """A `Source` that a test writes: `layer → type → name → resource`; `tell` is one revision."""

    def __init__(self, layers: Sequence[str] = (LAYER,)) -> None:
        self.revision = 0
        self.seen: dict[str, tuple[str, ...]] = {}
        self.default = tuple(layers)
        self._tables: dict[tuple[str, str], Mapping[str, Encoded]] = {}

    def layers(self, proxy: str) -> tuple[str, ...]:
        return self.seen.get(proxy, self.default)

    def table(self, layer: str, type_url: str) -> Mapping[str, Encoded]:
        return self._tables.get((layer, type_url), {})

    def all(self, proxy: str, type_url: str) -> dict[str, str]:
        """Name → version of what a proxy is to see."""
        return {name: it.version for layer in self.layers(proxy) for name, it in self.table(layer, type_url).items()}

    def tell(self, *resources: Encoded, gone: Sequence[tuple[str, str]] = (), layer: str = LAYER) -> Published:
        """The next revision: these resources are new or changed, those (type, name) went."""
        changed: dict[str, dict[str, Encoded | None]] = {}
        for resource in resources:
            changed.setdefault(resource.type_url, {})[resource.name] = resource
        for type_url, name in gone:
            changed.setdefault(type_url, {})[name] = None
        for type_url, names in changed.items():
            table = dict(self.table(layer, type_url))
            for name, resource_or_none in names.items():
                if resource_or_none is None:
                    table.pop(name, None)
                else:
                    table[name] = resource_or_none
            self._tables[layer, type_url] = table
        self.revision += 1
        return Published(revision=self.revision, changed={layer: changed})


def thing(type_url: str, name: str, content: str = "1", refs: Sequence[tuple[str, str]] = ()) -> Encoded:
    """A resource whose content, and so its version, is a text."""
    return encode(type_url, name, content.encode(), tuple(refs))


def labelled(type_url: str, name: str, version: str) -> Encoded:
    """A resource whose version is a text of the test's choice, and whose content is its name."""
    wrapped = field(1, type_url.encode()) + field(2, name.encode())
    resource = field(1, version.encode()) + field(2, wrapped) + field(3, name.encode())
    return Encoded(type_url=type_url, name=name, version=version, any=wrapped, resource=resource)


def cluster(name: str, content: str = "1") -> Encoded:
    """A cluster whose endpoints have its name."""
    return thing(CLUSTER, name, content, [(ENDPOINT, name)])


def endpoints(name: str, content: str = "1") -> Encoded:
    return thing(ENDPOINT, name, content)


class Dialogue:
    """A `DeltaStream` and what its client heard: each line returns what the server says to it, as short texts.

    `CDS+a+b-c#3` is response number 3: clusters a and b, and c is removed; `?` marks what does not exist.
    """

    def __init__(
        self, book: Book, proxy: str = PROXY, known: Callable[[str, str, str], bool] = lambda proxy, type_url, name: True
    ) -> None:
        self.book = book
        self.stream = DeltaStream(book, proxy, known)
        self.log: list[object] = []

    def asks(self, type_url: str, *names: str, having: Mapping[str, str] | None = None) -> list[str]:
        return self._feed(Request(type_url, subscribe=names, versions=having or {}))

    def drops(self, type_url: str, *names: str) -> list[str]:
        return self._feed(Request(type_url, unsubscribe=names))

    def acks(self, type_url: str, nonce: int, *, subscribe: Sequence[str] = ()) -> list[str]:
        return self._feed(Request(type_url, nonce=str(nonce), subscribe=subscribe))

    def nacks(self, type_url: str, nonce: int, why: str) -> list[str]:
        return self._feed(Request(type_url, nonce=str(nonce), error=why))

    def told(self, *resources: Encoded, gone: Sequence[tuple[str, str]] = (), layer: str = LAYER) -> list[str]:
        """The source moves."""
        return self._feed(Changed(self.book.tell(*resources, gone=gone, layer=layer)))

    def settles(self) -> list[str]:
        """The proxy came back and had time to say everything."""
        return self._feed(Settled())

    def waits(self) -> list[str]:
        """The server's patience is over."""
        return self._feed(Overdue())

    def _feed(self, event: Event) -> list[str]:
        said: list[str] = []
        for action in self.stream.feed(event):
            self.log.append(action)
            if isinstance(action, Send):
                said.append(spoken(action))
        return said


def spoken(send: Send) -> str:
    """A response as a short text."""
    text = SHORT[send.type_url]
    text += "".join(f"+{resource.name}" for resource in send.resources)
    text += "".join(f"-{name}" for name in send.removed) + "".join(f"?{name}" for name in send.absent)
    return f"{text}#{send.nonce}"
