"""Identities of this host's processes: in workloads the workload's, elsewhere what the node's entries give them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from tulle.kit.errors import TulleError, Unavailable
from tulle.node.attestation import Entries, Peer
from tulle.node.identity import Identity, IdentityClient, Kept
from tulle.node.news import News
from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

_AGAIN = 10.0  # seconds before a first certificate is asked for again


class HostIdentities:
    """`entitled` is the Workload API's question."""

    def __init__(
        self,
        entries: Entries,
        workloads: Callable[[], Mapping[str, Workload]],
        own: Kept,
        client: IdentityClient,
        folder: Path,
        news: News,
    ) -> None:
        self._entries, self._workloads, self._own, self._client = entries, workloads, own, client
        self._folder, self._news = folder, news
        self._kept: dict[str, Kept] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def entitled(self, peer: Peer) -> Sequence[Kept]:
        """The identities of a process: none where it is in no workload and no entry is for it."""
        for workload in self._workloads().values():
            if workload.sandbox is not None and workload.sandbox.holds(peer.pid):
                account = f"{workload.spec.namespace}/{workload.spec.service_account}"
                entries = self._entries.of(account)
                return [workload.identity] if not entries or any(one.gives(peer) for one in entries) else []
        return [self._keep(account) for account in self._entries.identities(peer)]

    async def trust(self, bundle: str, signs: str) -> None:
        """The roots of now, and what signs."""
        for kept in list(self._kept.values()):
            await kept.trust(bundle, signs)

    async def close(self) -> None:
        """Keep them no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, account: str) -> Kept:
        """The identity of an entry, asked for when the first process needs it and kept from then on."""
        if account not in self._kept:
            namespace, _, name = account.partition("/")

            async def ask() -> Identity:
                own = self._own.current
                if own is None:
                    raise Unavailable("this node has no certificate yet")
                return await self._client.sign(own, f"spiffe://{own.trust_domain}/ns/{namespace}/sa/{name}")

            kept = Kept(self._folder / f"{namespace}.{name}.json", ask, lambda _identity: self._news.tell())
            self._kept[account] = kept
            self._tasks.append(asyncio.create_task(self._run(account, kept), name=f"identity {account}"))
        return self._kept[account]

    async def _run(self, account: str, kept: Kept) -> None:
        namespace, _, name = account.partition("/")
        while kept.current is None:
            own = self._own.current
            domain = own.trust_domain if own else ""
            try:
                await kept.open(f"spiffe://{domain}/ns/{namespace}/sa/{name}")
            except TulleError as error:
                log.warning("an entry's identity is not to be had; trying again", identity=account, error=error.message)
                await asyncio.sleep(_AGAIN)
        await kept.run()
