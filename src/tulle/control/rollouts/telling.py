"""Alerts, and webhooks of type `event`: people and programs are told, and no rollout waits for that.

What cannot be sent at once, for too much is under way already, is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import structlog

from tulle.api.own.rollout import Alert
from tulle.control.metrics import Metric
from tulle.control.rollouts.posting import Poster
from tulle.control.rollouts.secrets import secret_value
from tulle.core.rollout.alerts import message, wanted
from tulle.core.rollout.decide import Note
from tulle.core.rollout.hooks import Hook
from tulle.kit.errors import TulleError
from tulle.ports import Store

log = structlog.get_logger("tulle.rollouts")

Raw = dict[str, Any]
_MOST = 256  # messages under way
_TIMEOUT = 10.0  # seconds
_RETRIES = 2


class Telling:
    """Sends, and counts what came of it."""

    def __init__(self, store: Store, most: int = _MOST) -> None:
        self._store, self._most = store, most
        self._tasks: set[asyncio.Task[None]] = set()
        self.counted: Counter[str] = Counter(sent=0, failed=0, dropped=0)

    def metrics(self) -> list[Metric]:
        """How many messages were taken, were not, and were not even sent."""
        samples = [({"result": result}, float(number)) for result, number in sorted(self.counted.items())]
        return [
            Metric("tulle_rollout_messages_total", "counter", "Alerts and events of roll-outs, by what came of them.", samples)
        ]

    def alert(self, poster: Poster, about: Raw, alerts: Iterable[Alert], target: str, weight: int, note: Note) -> None:
        """Tell those whom a note concerns."""
        place = about["metadata"]["namespace"], about["metadata"]["name"]
        for one in alerts:
            if wanted(one.severity, note):
                reference = (one.url_ref.name, one.url_ref.key) if one.url_ref else ("", "")
                body = message(*place, target, weight, note)
                self._start(poster, place, f"alert {one.name}", one.url or "", reference, ("", ""), body, _TIMEOUT, _RETRIES)

    def event(self, poster: Poster, about: Raw, hooks: Iterable[Hook], told: Raw, note: Note) -> None:
        """Tell webhooks of type `event`, as Flagger does."""
        place = about["metadata"]["namespace"], about["metadata"]["name"]
        for hook in hooks:
            if hook.type == "event":
                said = {
                    "eventType": "Warning" if note.bad else "Normal",
                    "eventReason": note.reason,
                    "eventMessage": note.message,
                }
                body = {
                    **told,
                    "name": place[1],
                    "namespace": place[0],
                    "type": "event",
                    "metadata": {**dict(hook.metadata), **said},
                }
                self._start(poster, place, f"webhook {hook.name}", hook.url, ("", ""), hook.key, body, hook.timeout, hook.retries)

    def _start(self, poster: Poster, *of: Any) -> None:
        if len(self._tasks) >= self._most:
            self.counted["dropped"] += 1
            return
        task = asyncio.create_task(self._send(poster, *of), name=of[1])
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(
        self,
        poster: Poster,
        place: tuple[str, str],
        who: str,
        url: str,
        reference: tuple[str, str],
        signing: tuple[str, str],
        body: Raw,
        timeout: float,
        retries: int,
    ) -> None:
        try:
            if reference[0]:
                url = (await secret_value(self._store, place[0], *reference)).strip()
            key = await secret_value(self._store, place[0], *signing) if signing[0] else ""
            why = await poster.post(url, body, timeout, retries=retries, key=key)
        except TulleError as error:
            why = error.message
        self.counted["failed" if why else "sent"] += 1
        if why:
            log.warning("somebody could not be told of a rollout", rollout="/".join(place), who=who, why=why)

    def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
