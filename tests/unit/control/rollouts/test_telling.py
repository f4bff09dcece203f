"""Alerts: who is told of what, in which words, and what happens where nobody takes them."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.control.rollouts.test_webhooks import ABOUT, hooked, secret
from tulle.api.own.rollout import Alert
from tulle.control.rollouts.posting import Poster
from tulle.control.rollouts.telling import Telling
from tulle.control.store.memory import MemoryStore
from tulle.core.rollout.alerts import message, wanted
from tulle.core.rollout.decide import Note
from tulle.core.rollout.hooks import Hook

BACK = Note("RolledBack", "request-success-rate: 80%: needed > 99%", bad=True)


@pytest.mark.parametrize(
    ("severity", "told"),
    [("info", {"Started", "Succeeded", "Paused", "RolledBack"}), ("warn", {"Paused", "RolledBack"}), ("error", {"RolledBack"})],
)
def test_who_is_told_of_what(severity: str, told: set[str]) -> None:
    """Broken: a pager would ring for each step, or not for a roll-back."""
    reasons = "Started", "Progressing", "CheckFailed", "Promoting", "Promoted", "Succeeded", "Paused", "RolledBack"
    assert {reason for reason in reasons if wanted(severity, Note(reason, ""))} == told


def test_as_slack_reads_it() -> None:
    """Broken: Slack would refuse the message, or show names as links and mentions."""
    said = message("default", "shop", "shop", 0, BACK)
    assert said["text"] == "Rollout default/shop: RolledBack: request-success-rate: 80%: needed &gt; 99%"
    (shown,) = said["attachments"]
    assert (shown["color"], shown["text"]) == ("danger", "request-success-rate: 80%: needed &gt; 99%")


async def test_told_and_counted() -> None:
    """Broken: an alert would be lost without a trace, or one that hangs would stop the roll-outs."""
    store = MemoryStore()
    async with hooked() as (server, url), Poster() as poster, asyncio.timeout(20):
        await store.write([secret(f"{url}/ok\n".encode())])
        telling = Telling(store, most=4)
        said = [
            {"name": "held", "url": f"{url}/hang"},
            {"name": "secret", "urlRef": {"name": "hooks", "key": "key"}},
            {"name": "none", "urlRef": {"name": "other", "key": "key"}},
        ]
        alerts = [Alert.model_validate(one) for one in said]
        telling.alert(poster, ABOUT, alerts, "shop", 0, BACK)
        telling.event(poster, ABOUT, [Hook("bus", "event", f"{url}/ok"), Hook("no", "rollout", f"{url}/ok")], {}, BACK)
        telling.alert(poster, ABOUT, alerts[:1], "shop", 0, BACK)
        assert telling.counted["dropped"] == 1
        held, *others = sorted(telling._tasks, key=lambda task: "held" not in task.get_name())
        await asyncio.gather(*others)
        assert telling.counted == {"sent": 2, "failed": 1, "dropped": 1}
        assert not held.done()
        bodies = [json.loads(data) for path, _headers, data in server.heard if path == "/ok"]
        assert {one["text"] for one in bodies if "text" in one} == {message("default", "shop", "shop", 0, BACK)["text"]}
        assert [one["metadata"]["eventReason"] for one in bodies if "metadata" in one] == ["RolledBack"]
        telling.close()
        await asyncio.gather(held, return_exceptions=True)
