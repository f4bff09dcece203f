"""Keeps the policy of `rbac.py` as the store has it, and answers from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from tulle.control.apiserver.auth import MASTERS, Attributes, Decision, User
from tulle.control.apiserver.rbac import RESOURCES, Policy
from tulle.kit.errors import TulleError, Unavailable
from tulle.ports import Compacted, Store

log = structlog.get_logger("tulle.apiserver")

_PAUSE = 1.0  # seconds before a store that failed is asked again


class RbacAuthorizer:
    """`Authorizer` by the RBAC objects of a store. `load` first, then `run` beside everything else.

    A decision reads memory only. Where the store does not answer, what was read last holds.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.policy = store, Policy()
        self._since: dict[str, int] = {}

    async def allowed(self, user: User, request: Attributes) -> Decision:
        """As `Authorizer`; before the roles are read it raises `Unavailable`, for nobody but `system:masters` is known then."""
        if MASTERS in user.groups:
            return Decision(True, f'Group "{MASTERS}" may everything')
        if not self._since:
            raise Unavailable("who may what is not read yet", hint="try again in a moment")
        return self.policy.allowed(user, request)

    async def load(self) -> None:
        """Read all roles and bindings. Raises what the store raises."""
        policy, since = Policy(), {}
        for resource in RESOURCES:
            found, since[resource] = await self.store.list(resource)
            for one in found:
                policy.put(resource, one.key.namespace, one.key.name, one.body)
        self.policy, self._since = policy, since

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    for resource in RESOURCES:
                        group.create_task(self._follow(resource))
            except* Compacted:
                pass  # read anew at once
            except* TulleError as errors:
                log.warning("roles cannot be followed; what was read last holds", error=str(errors.exceptions[0]))
                await asyncio.sleep(_PAUSE)
            # The table may have missed something; it holds until it is read anew.
            while True:
                try:
                    await self.load()
                    break
                except TulleError:
                    await asyncio.sleep(_PAUSE)

    async def _follow(self, resource: str) -> None:
        events = self.store.watch(self._since[resource], resource)
        try:
            async for event in events:
                self.policy.put(resource, event.key.namespace, event.key.name, event.body)
                self._since[resource] = event.revision
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        raise Unavailable("the store ended a watch")
