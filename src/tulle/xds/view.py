"""What one proxy is to have: the layers of a `core.encoded.Source` that it sees, as they were when they were last pinned.

`stream.py` pins once for each of its waves, so that all that a wave sends is of one revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tulle.core.encoded import Encoded, Source
from tulle.core.type_urls import ORDER, VIRTUAL_HOST
from tulle.xds.subscription import matches


class View:
    """`layers` are those that the proxy sees, empty where the source does not know it; `revision` is of what is pinned."""

    def __init__(self, source: Source, proxy: str) -> None:
        self.layers: tuple[str, ...] = ()
        self.revision = 0
        self._source = source
        self._proxy = proxy
        self._tables: dict[str, tuple[Mapping[str, Encoded], ...]] = {}
        self._stale: set[str] = set()

    def enter(self) -> bool:
        """See the layers that the proxy sees by now; whether they are others than before. Without any, what is pinned stays."""
        before, self.layers = self.layers, self._source.layers(self._proxy)
        if self.layers and self.layers != before:
            self._stale = set(ORDER)
        return self.layers != before

    def changed(self, type_urls: Iterable[str]) -> None:
        """The source has other tables of these types."""
        self._stale.update(type_urls)

    def pin(self) -> None:
        """From here on: the newest tables."""
        for type_url in self._stale:
            self._tables[type_url] = tuple(self._source.table(layer, type_url) for layer in reversed(self.layers))
        self._stale = set()
        self.revision = self._source.revision

    def newest(self, type_url: str) -> Iterator[str]:
        """The names that there would be if this were pinned now."""
        return (name for layer in self.layers for name in self._source.table(layer, type_url))

    def target(self, type_url: str, name: str) -> Encoded | None:
        """A resource: of a name in several layers that of the last."""
        for table in self._tables.get(type_url, ()):
            if (found := table.get(name)) is not None:
                return found
        return None

    def names(self, type_url: str, pattern: str) -> Iterator[str]:
        """The names that a wildcard, or a table of virtual hosts, stands for."""
        return (name for table in self._tables.get(type_url, ()) for name in table if matches(pattern, name))

    def refs(self, type_url: str, name: str) -> tuple[tuple[str, str], ...]:
        """What a resource refers to."""
        target = self.target(type_url, name)
        return target.refs if target is not None else ()

    def has(self, type_url: str, name: str) -> bool:
        """Whether there is a resource; for a table of virtual hosts, whether it has one."""
        if type_url == VIRTUAL_HOST and "/" not in name:
            return next(self.names(type_url, name), None) is not None
        return self.target(type_url, name) is not None

    def any(self, type_url: str) -> bool:
        """Whether there is any resource of a type."""
        return any(self._tables.get(type_url, ()))
