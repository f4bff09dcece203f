"""Routes of the kinds on which the mesh does not act yet: what they name is there all the same, or is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import ROUTES
from tulle.core.compile.parents import attachments_of
from tulle.core.flow import Fetch
from tulle.core.status.routes import unresolved
from tulle.kit.problem import Problem


def references(kind: str) -> Callable[[Fetch, Key], Iterator[Problem]]:
    """The analyzer of a kind of route: parents and backends that are not there."""

    def absent(fetch: Fetch, key: Key) -> Iterator[Problem]:
        row = fetch(ROUTES[kind], key)
        if row is None:
            return
        for one in fetch(attachments_of, (kind, key)) or ():
            # Others say that the kind is not acted on, which is said once for the object.
            if one.fault and (one.fault.problem or one.fault.reason == "InvalidKind"):
                yield one.fault.of(row.ref)
        yield from unresolved(fetch, kind, row)

    return absent
