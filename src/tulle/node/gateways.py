"""Gateway workloads that Gateway objects ask for: this node takes their Leases, and runs one for each that it holds.

    Lease `NAME-tulle` (`control/gateway_starts.py`) ──watch──▶ take it (an update that only one node can win) ──▶ Agent.add
                                                        renew ◀──┘     Lease gone, or another's ──▶ Agent.remove

A Lease that was not renewed for its time may be taken by another node: its agent is gone. Without an API server everything goes
on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.client.errors import NotFound, WriteConflict
from tulle.client.node_api import Kind, Port, WorkloadSpec
from tulle.kit.errors import Refused, TulleError
from tulle.node.agent import Agent
from tulle.node.objects import NODE
from tulle.node.ports import check_free

log = structlog.get_logger("tulle.node")

Raw = dict[str, Any]

# On a Lease (core/compile/gateway_starts.py): the Gateway that it is for (a label), its ports, the addresses that it wants, and
# before a node's name why that node could not.
FOR, PORTS, ADDRESSES, REFUSED = "tulle.dev/gateway", "tulle.dev/ports", "tulle.dev/addresses", "refused.tulle.dev/"
# On the workload: the Gateway that it alone serves, and that it was started for it.
GATEWAY_NAME, STARTED = "gateway.networking.k8s.io/gateway-name", "tulle.dev/started"
DURATION = 40  # seconds after its last renewal that a Lease counts as held
_RENEWAL = 10.0  # seconds between two renewals, and between two looks at everything
_GRACE = 2.0  # seconds that a Lease is left to a gateway that is only being started anew
_PAUSE = 30.0  # seconds before this node tries again what it could not start
_MANAGER = "tulle-node"


class Claim(msgspec.Struct, frozen=True):
    """A Lease as it was last seen."""

    namespace: str
    name: str
    gateway: str
    node: str
    ports: tuple[int, ...]
    addresses: tuple[str, ...]
    holder: str
    until: float  # seconds since the epoch

    @property
    def id(self) -> str:
        """Of the workload: it has the Lease's name."""
        return f"{self.namespace}/{self.name}"

    @property
    def wish(self) -> object:
        """What a start depends on: with another wish it is tried again at once."""
        return self.id, self.ports, self.addresses

    def spec(self) -> WorkloadSpec:
        """The workload for it. `ports` are what a relay has to pass on; there is no Service."""
        return WorkloadSpec(
            name=self.name,
            namespace=self.namespace,
            service_account=self.name,
            ports=tuple(Port(number) for number in self.ports),
            labels={"app": self.name, GATEWAY_NAME: self.gateway, STARTED: "true"},
            kind=Kind.GATEWAY,
        )


def claim_of(lease: Mapping[str, Any]) -> Claim:
    """Read off a Lease."""
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    notes = metadata.get("annotations") or {}
    renewed = spec.get("renewTime")
    since = datetime.datetime.fromisoformat(renewed).timestamp() if renewed else 0.0
    return Claim(
        namespace=metadata["namespace"],
        name=metadata["name"],
        gateway=(metadata.get("labels") or {}).get(FOR, ""),
        node=notes.get(NODE, ""),
        ports=tuple(int(port) for port in notes.get(PORTS, "").split(",") if port),
        addresses=tuple(filter(None, notes.get(ADDRESSES, "").split(","))),
        holder=spec.get("holderIdentity") or "",
        until=since + (spec.get("leaseDurationSeconds") or 0),
    )


class Gateways:
    """`run` until cancelled. `agent` has the workloads; `now`: seconds since the epoch."""

    def __init__(self, agent: Agent, api: Callable[[], Awaitable[ApiClient]], now: Callable[[], float] = time.time) -> None:
        self.agent, self._api, self._now = agent, api, now
        self.name = agent.node.name
        self._seen: dict[str, float] = {}  # when a Lease that nobody holds was first seen, by workload
        self._failed: dict[object, float] = {}  # when this node could not start what a Lease asks for

    async def run(self) -> None:
        """Look at all Leases: at every change of one, and every few seconds."""
        changed = asyncio.Event()
        watching = asyncio.create_task(self._watch(changed))
        try:
            while True:
                changed.clear()
                pause = _RENEWAL
                try:
                    pause = await self.settle()
                except (TulleError, OSError) as error:
                    log.debug("Gateways' leases cannot be followed; everything goes on as it is", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()
        finally:
            watching.cancel()

    async def _watch(self, changed: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TulleError):
                events = (await self._api()).watch(_lease_kind(), label_selector=FOR)
                try:
                    async for event in events:
                        if event.get("type") != "BOOKMARK":
                            changed.set()
                finally:
                    if isinstance(events, AsyncGenerator):
                        await events.aclose()
            await asyncio.sleep(1.0)

    async def settle(self) -> float:
        """Bring this node to what the Leases say; seconds after which that is worth another look."""
        leases = (await (await self._api()).list(_lease_kind(), label_selector=FOR))["items"]
        claims = {one.id: (one, lease) for lease in leases for one in (claim_of(lease),)}
        self._seen = {id_: since for id_, since in self._seen.items() if id_ in claims}
        wishes = {claim.wish for claim, _lease in claims.values()}
        self._failed = {wish: since for wish, since in self._failed.items() if wish in wishes}
        for id_, workload in list(self.agent.workloads.items()):
            if STARTED in workload.spec.labels and (id_ not in claims or not self._mine(claims[id_][0])):
                log.info("a Gateway needs its workload here no more", workload=id_)
                await self.agent.remove(id_)
        pause = _RENEWAL
        for claim, lease in claims.values():
            if self._mine(claim):
                await self._hold(claim, lease)
            elif (wait := self._wait(claim)) is not None:
                pause = min(pause, wait)
                if wait <= 0:
                    await self._take(claim, lease)
        return max(pause, 0.1)

    def _mine(self, claim: Claim) -> bool:
        return claim.holder == self.name and claim.node in ("", self.name)

    def _wait(self, claim: Claim) -> float | None:
        """Seconds until this node may take a Lease; None where it may not as things are."""
        now = self._now()
        if claim.node not in ("", self.name):
            return None
        if claim.holder and not claim.node:  # a node that is named takes it from another: that one lets go by itself
            return max(0.0, claim.until - now)
        since = self._seen.setdefault(claim.id, now)
        grace = 0.0 if claim.node else since + _GRACE - now
        return max(0.0, grace, self._failed.get(claim.wish, now - _PAUSE) + _PAUSE - now)

    async def _take(self, claim: Claim, lease: Raw) -> None:
        """Take a Lease, where that is still possible, and start what it is for."""
        try:
            await self._check(claim)
        except TulleError as error:
            await self._refuse(claim, lease, error)
            return
        taken = await self._write(lease, self.name)
        if taken is not None:
            await self._hold(claim_of(taken), taken)

    async def _check(self, claim: Claim) -> None:
        """Raise `Refused` where it cannot be: before anybody is told that it will."""
        box = await self.agent.node.network.gateway(claim.id, claim.ports)
        if claim.addresses and box.address not in claim.addresses:
            raise Refused(f"found its address {box.address}, needed {', '.join(claim.addresses)}")
        for port in claim.ports:
            check_free(port)

    async def _hold(self, claim: Claim, lease: Raw) -> None:
        """What this node holds runs, and is renewed."""
        standing, spec = self.agent.workloads.get(claim.id), claim.spec()
        if standing is not None and standing.spec != spec and self.agent.node.network.relayed:
            await self.agent.remove(claim.id)  # a relay binds its ports once
            standing = None
        if standing is None:
            try:
                await self.agent.add(spec)
            except TulleError as error:
                await self._refuse(claim, lease, error)
                return
            log.info("started a workload for a Gateway", workload=claim.id)
        if claim.until - self._now() < DURATION - _RENEWAL:
            await self._write(lease, self.name)

    async def _refuse(self, claim: Claim, lease: Raw, error: TulleError) -> None:
        """Say why not, for the Gateway's status, and leave the Lease to others."""
        if self.agent.ending:
            return
        if claim.wish not in self._failed:
            log.warning("cannot start a workload for a Gateway", workload=claim.id, why=error.message)
        self._failed[claim.wish] = self._now()
        await self._write(lease, "", error.message)

    async def _write(self, lease: Raw, holder: str, refused: str = "") -> Raw | None:
        """The Lease with a holder, where nobody changed it meanwhile; None where somebody did."""
        metadata, spec = lease["metadata"], dict(lease.get("spec") or {})
        notes = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != REFUSED + self.name}
        if refused:
            notes[REFUSED + self.name] = refused
        if not holder and not spec.get("holderIdentity") and notes == (metadata.get("annotations") or {}):
            return None  # nothing new
        now = datetime.datetime.fromtimestamp(self._now(), datetime.UTC).isoformat(timespec="microseconds")
        spec |= {"holderIdentity": holder, "renewTime": now.replace("+00:00", "Z"), "leaseDurationSeconds": DURATION}
        body = {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        body |= {"metadata": {**metadata, "annotations": notes}, "spec": spec}
        try:
            return await (await self._api()).update(body, field_manager=_MANAGER)
        except (WriteConflict, NotFound):
            return None


def _lease_kind() -> Any:
    from tulle.api.registry import kind_for

    found = kind_for("coordination.k8s.io", "Lease")
    assert found is not None
    return found
