"""Webhooks: who is asked at a point of a rollout, and what the answers mean. Pure.

A point is a rollout at one moment of its life (`point`). Answers count at the point at which they were asked for, and are not
kept: whoever goes on after a crash asks again. What followed of them is in the state, so nobody is asked for that again.

    confirm-rollout ─▶ pre-rollout ─▶ (load-test ─▶ rollout)* ─▶ confirm-traffic-increase or confirm-promotion ─▶ ...
    rollback: each interval, until it is through                                                   post-rollout at the end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from tulle.api.own.rollout import Webhook
from tulle.api.values import seconds

# What is asked again after an interval at the same point; of what confirms only where it has not.
_AGAIN = ("rollback", "load-test")
_CONFIRMS = ("confirm-rollout", "confirm-traffic-increase", "confirm-promotion")


class Hook(msgspec.Struct, frozen=True):
    """A webhook. `timeout` (seconds) is that of one attempt; `key` names the Secret and the field of it that signs ("": none)."""

    name: str
    type: str
    url: str
    timeout: float = 10.0
    retries: int = 0
    metadata: tuple[tuple[str, str], ...] = ()
    key: tuple[str, str] = ("", "")


class Answer(msgspec.Struct, frozen=True):
    """Whether it was 2xx; if not, why, for a person; and when it came (seconds since the epoch)."""

    good: bool
    why: str = ""
    at: float = 0.0


class Heard(NamedTuple):
    """What webhooks have said: whom to ask now, who has not answered, and who has refused, in sentences."""

    asks: tuple[str, ...]
    pending: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Why it does not go on; "" where all have agreed."""
        return "; ".join((*self.refused, *self.pending))


def hooks_of(webhooks: tuple[Webhook, ...]) -> tuple[Hook, ...]:
    """Those of a Rollout."""
    return tuple(
        Hook(
            name=one.name,
            type=one.type,
            url=one.url,
            timeout=seconds(one.timeout),
            retries=one.retries,
            metadata=tuple(sorted(one.metadata.items())),
            key=(one.signature_key_ref.name, one.signature_key_ref.key) if one.signature_key_ref else ("", ""),
        )
        for one in webhooks
    )


def heard(hooks: tuple[Hook, ...], answers: Mapping[str, Answer], now: float, interval: float, *types: str) -> Heard:
    """What those of some types have said."""
    asks, pending, refused = [], [], []
    for hook in hooks:
        if hook.type not in types:
            continue
        answer = answers.get(hook.name)
        if answer is None:
            asks.append(hook.name)
            pending.append(f"waits for webhook {hook.name} ({hook.type})")
            continue
        if not answer.good:
            refused.append(f"webhook {hook.name} ({hook.type}): {answer.why}")
        again = hook.type in _AGAIN or (hook.type in _CONFIRMS and not answer.good)
        if again and now - answer.at >= interval:
            asks.append(hook.name)
    return Heard(tuple(asks), tuple(pending), tuple(refused))


def agreed(hooks: tuple[Hook, ...], answers: Mapping[str, Answer], kind: str) -> Iterator[str]:
    """The names of those of a type that have said yes."""
    yield from (hook.name for hook in hooks if hook.type == kind and hook.name in answers and answers[hook.name].good)
