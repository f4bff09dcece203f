"""Webhooks of roll-outs: how they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
    """Asks them. `now`: seconds since the epoch."""

    def __init__(self, store: Store, poster: Poster, events: Events, now: Callable[[], float]) -> None:
        self._store, self._poster, self._events, self._now = store, poster, events, now

    async def ask(self, about: Raw, point: str, hook: Hook, body: Raw) -> Answer:
        """The answer of one, about a point of a rollout."""
        place = about["metadata"]["namespace"], about["metadata"]["name"]
        why = await self._asked_of(about, place, point, hook, body)
        if why:
            log.info("a webhook of a rollout", rollout="/".join(place), webhook=hook.name, type=hook.type, why=why)
            if hook.type in _UNHEARD:
                await self._events.record(about, "Warning", "WebhookFailed", f"webhook {hook.name} ({hook.type}): {why}")
        return Answer(not why, why, self._now())

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
