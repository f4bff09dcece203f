"""Who looks at what (`tulle logs`, `tulle tap`): between the person who asks here and the node that has it. Kept in memory only.

    GET /tulle/v1/{logs,tap,config}/NAMESPACE/NAME                     a person: an answer without end, one JSON a line
    GET /tulle/v1/looks?node=&tag=                                     the node: what it is to show, held until that is another
    POST /tulle/v1/looks/ID                                            the node: what there is; 404 once nobody looks any more

A look is bound to the person's connection: with that it ends, here and (with the answer to its next batch) on the node. A person
who does not read keeps the node waiting, and nothing piles up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator

from tulle.core.model.looks import Look, Looks, Told

_WAIT = 25.0  # seconds that a node's question is held
_PRESENT = 35.0  # seconds since its last question in which a node counts as being there
_SILENCE = 20.0  # seconds without a word of the node after which it is given up
_WAITING = 4  # batches that wait for the person
_ROOM = 5.0  # seconds that a batch waits for room among them
_MOST = 200  # looks at once


class Board:
    """The looks of this control plane."""

    def __init__(self) -> None:
        self._looks: dict[str, tuple[str, Look, asyncio.Queue[Told]]] = {}
        self._asked: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._number = 0
        self._epoch = secrets.token_hex(4)  # so that no tag of another control plane, or of before, fits

    def has(self, node: str) -> bool:
        """Whether a node asks here what it is to show."""
        return self._held[node] > 0 or asyncio.get_running_loop().time() - self._asked.get(node, float("-inf")) < _PRESENT

    async def after(self, node: str, tag: str) -> Looks:
        """What a node is to show, once it is another than what `tag` says, or after a while."""
        loop = asyncio.get_running_loop()
        self._held[node] += 1
        try:
            until = loop.time() + _WAIT
            while True:
                changed = self._changed
                mine = tuple(look for of, look, _queue in self._looks.values() if of == node)
                now = f"{self._epoch}:" + ",".join(look.id for look in mine)
                left = until - loop.time()
                if now != tag or left <= 0:
                    return Looks(now, mine)
                try:
                    async with asyncio.timeout(left):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._held[node] -= 1
            self._asked[node] = loop.time()
            if len(self._asked) > 10_000:
                self._asked.pop(next(iter(self._asked)))

    def full(self) -> bool:
        """Whether nobody more may look."""
        return len(self._looks) >= _MOST

    async def take(self, node: str, id_: str, told: Told) -> bool:
        """Take a batch of a node, as soon as there is room; False where there was none for a while: it is to come again.

        Raises KeyError where nobody looks any more. `node` "" is anybody.
        """
        of, _look, queue = self._looks[id_]
        if node not in ("", of):
            raise KeyError(id_)
        try:
            async with asyncio.timeout(_ROOM):
                await queue.put(told)
        except TimeoutError:
            return False
        return True

    async def look(self, node: str, look: Look) -> AsyncGenerator[Told, None]:
        """What a node shows, until it has shown all or says nothing any more. Closing this ends the look."""
        queue: asyncio.Queue[Told] = asyncio.Queue(_WAITING)
        self._looks[look.id] = (node, look, queue)
        self._tell()
        try:
            while True:
                try:
                    async with asyncio.timeout(_SILENCE):
                        told = await queue.get()
                except TimeoutError:
                    yield Told(ended=True, error=f"node {node} does not answer any more")
                    return
                yield told
                if told.ended:
                    return
        finally:
            del self._looks[look.id]
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def new_id() -> str:
    """Of a look: not to be guessed."""
    return secrets.token_urlsafe(12)
