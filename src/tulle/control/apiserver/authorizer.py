"""Keeps the policy of `rbac.py` as the store has it, and answers from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from tulle.control.apiserver.auth import MASTERS, Attributes, Decision, User
from tulle.control.apiserver.rbac import EVERYTHING, RESOURCES, Granted, Policy, Rule
from tulle.kit.errors import TulleError, Unavailable
from tulle.ports import Compacted, Store

log = structlog.get_logger("tulle.apiserver")

_PAUSE = 1.0  # seconds before a store that failed is asked again


class RbacAuthorizer:
    """`Authorizer` by the RBAC objects of a store. `load` first, then `run` beside everything else.

    A decision reads memory only. Where the store does not answer, what was read last holds.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._policy: Policy | None = None
        self._since = 0

    async def allowed(self, user: User, request: Attributes) -> Decision:
        """As `Authorizer`. Before the roles are read only `system:masters` may anything."""
        if MASTERS in user.groups:
            return Decision(True, f'Group "{MASTERS}" may everything')
        return self._read.allowed(user, request)

    def role(self, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """The rules of a Role (of a ClusterRole, where `namespace` is ""), or None where there is none."""
        return self._read.role(namespace, name)

    def rules(self, user: User, namespace: str) -> tuple[Granted, ...]:
        """What the user has in a namespace."""
        said = f'Group "{MASTERS}"'
        every = tuple((rule, said) for rule in EVERYTHING) if MASTERS in user.groups else ()
        return every + self._read.rules(user, namespace)

    @property
    def revision(self) -> int:
        """The newest revision of the store that decisions are by."""
        return self._since

    @property
    def _read(self) -> Policy:
        if self._policy is None:
            raise Unavailable("who may what is not read yet", hint="try again in a moment")
        return self._policy

    async def load(self) -> None:
        """Read all roles and bindings. Raises what the store raises."""
        policy, revisions = Policy(), []
        for resource in RESOURCES:
            found, revision = await self.store.list(resource)
            revisions.append(revision)
            for one in found:
                policy.put(resource, one.key.namespace, one.key.name, one.body)
        # What changed while this read is put once more by the watch.
        self._policy, self._since = policy, min(revisions)

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                await self._follow()
            except Compacted:
                pass  # read anew at once
            except TulleError as error:
                log.warning("roles cannot be followed; what was read last holds", error=error.message)
                await asyncio.sleep(_PAUSE)
            # The table may have missed something; it holds until it is read anew.
            while True:
                try:
                    await self.load()
                    break
                except TulleError:
                    await asyncio.sleep(_PAUSE)

    async def _follow(self) -> None:
        events = self.store.watch(self._since)
        try:
            async for event in events:
                if event.key.resource in RESOURCES:
                    self._read.put(event.key.resource, event.key.namespace, event.key.name, event.body)
                self._since = event.revision
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        raise Unavailable("the store ended a watch")
