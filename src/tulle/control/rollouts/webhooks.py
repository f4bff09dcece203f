"""Webhooks of roll-outs: asked beside the controller, which never waits for one, and their answers kept until they are not
about the present any more.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from tulle.control.events import Events
from tulle.control.rollouts.posting import Poster
from tulle.control.rollouts.secrets import secret_value
from tulle.core.rollout.hooks import Answer, Hook
from tulle.kit.errors import TulleError
from tulle.ports import Store

log = structlog.get_logger("tulle.rollouts")

Raw = dict[str, Any]
Place = tuple[str, str]  # namespace, name

DELIVERY = "X-Tulle-Delivery"
# What nobody waits for; that it failed is worth an Event of its own.
_UNHEARD = ("load-test", "post-rollout")


class Webhooks:
    """Asks, and knows the answers. `now`: seconds since the epoch."""

    def __init__(self, store: Store, poster: Poster, events: Events, now: Callable[[], float]) -> None:
        self._store, self._poster, self._events, self._now = store, poster, events, now
        self._asked: dict[tuple[Place, str], asyncio.Task[None]] = {}
        self._answers: dict[Place, tuple[str, dict[str, Answer]]] = {}

    def answers(self, place: Place, point: str) -> dict[str, Answer]:
        """Those of a rollout at a point of it, by name."""
        at, found = self._answers.get(place, ("", {}))
        return dict(found) if at == point else {}

    def follow(self, about: Raw, point: str, hooks: Iterable[Hook], body: Raw) -> None:
        """A rollout is at a point of it: what was asked before is of no interest any more, and `hooks` are asked with `body`."""
        place = about["metadata"]["namespace"], about["metadata"]["name"]
        if self._answers.get(place, ("", {}))[0] != point:
            self._drop(place)
            self._answers[place] = point, {}
        for hook in hooks:
            asked = self._asked.get((place, hook.name))
            if asked is None or asked.done():
                work = self._ask(about, place, point, hook, body)
                self._asked[place, hook.name] = asyncio.create_task(work, name=f"webhook {hook.name}")

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

    async def _ask(self, about: Raw, place: Place, point: str, hook: Hook, body: Raw) -> None:
        why = await self._asked_of(about, place, point, hook, body)
        at, found = self._answers.get(place, ("", {}))
        if at == point:
            found[hook.name] = Answer(not why, why, self._now())
        if why:
            log.info("a webhook of a rollout", rollout="/".join(place), webhook=hook.name, type=hook.type, why=why)
            if hook.type in _UNHEARD:
                await self._events.record(about, "Warning", "WebhookFailed", f"webhook {hook.name} ({hook.type}): {why}")

    async def _asked_of(self, about: Raw, place: Place, point: str, hook: Hook, body: Raw) -> str:
        key = ""
        if hook.key[0]:
            try:
                key = await secret_value(self._store, place[0], *hook.key)
            except TulleError as error:
                return error.message
        said = {**body, "name": place[1], "namespace": place[0], "type": hook.type, "metadata": dict(hook.metadata)}
        # The same where it is asked again of the same: by whoever goes on after a crash, or after an attempt that failed.
        named = f"{about['metadata'].get('uid')} {point} {hook.name}"
        delivery = hashlib.sha256(named.encode()).hexdigest()[:32]
        return await self._poster.post(hook.url, said, hook.timeout, retries=hook.retries, key=key, headers={DELIVERY: delivery})
