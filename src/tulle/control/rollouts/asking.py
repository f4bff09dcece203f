"""Questions of roll-outs to others, asked beside the controller, which never waits for one; the answers are kept until they are
not about the present any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
Place = tuple[str, str]  # namespace, name


class Asking(Generic[T]):
    """The questions of all roll-outs to some others, and the answers."""

    def __init__(self) -> None:
        self._asked: dict[tuple[Place, str], asyncio.Task[None]] = {}
        self._answers: dict[Place, tuple[str, dict[str, T]]] = {}

    def answers(self, place: Place, point: str) -> dict[str, T]:
        """Those of a rollout at a point of it, by name."""
        at, found = self._answers.get(place, ("", {}))
        return dict(found) if at == point else {}

    def follow(self, place: Place, point: str, questions: Mapping[str, Callable[[T | None], Awaitable[T]]]) -> None:
        """A rollout is at a point of it: what was asked before is of no interest any more, and these are asked now.

        A question that is under way is not asked again. Each gets the answer that it had before.
        """
        if self._answers.get(place, ("", {}))[0] != point:
            self._drop(place)
            self._answers[place] = point, {}
        for name, question in questions.items():
            asked = self._asked.get((place, name))
            if asked is None or asked.done():
                self._asked[place, name] = asyncio.create_task(self._ask(place, point, name, question), name=f"asks {name}")

    def keep(self, places: set[Place]) -> None:
        """Forget the others."""
        for place in [place for place in self._answers if place not in places]:
            self._drop(place)
            del self._answers[place]

    def close(self) -> None:
        """End what is under way."""
        for place in list(self._answers):
            self._drop(place)

    def _drop(self, place: Place) -> None:
        for key in [key for key in self._asked if key[0] == place]:
            self._asked.pop(key).cancel()

    async def _ask(self, place: Place, point: str, name: str, question: Callable[[T | None], Awaitable[T]]) -> None:
        answer = await question(self.answers(place, point).get(name))
        at, found = self._answers.get(place, ("", {}))
        if at == point:
            found[name] = answer
