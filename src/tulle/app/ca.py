"""The mesh's certificate authority as this control plane has it: what signs, what was signed, and the rotation of what signs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tulle.app.settings import ControlPlaneSettings
from tulle.app.stores import is_shared, when_there
from tulle.control.ca.authority import Authority
from tulle.control.ca.brought import Follower
from tulle.control.ca.external import ExternalSigner, external_status
from tulle.control.ca.files import StoredRoots
from tulle.control.ca.http import Counts
from tulle.control.ca.kubernetes import TokenReviewer, node_accounts
from tulle.control.ca.ledger import Issued, Ledger
from tulle.control.ca.nodes import Nodes, fingerprint
from tulle.control.ca.revocations import Revocations
from tulle.control.ca.rotating import Rotation
from tulle.control.ca.rotation import Slot, Step
from tulle.control.ca.shared import SharedAuthority
from tulle.control.ca.signer import OwnSigner
from tulle.control.ca.tokens import JoinTokens
from tulle.control.ca.vault import VaultPki
from tulle.control.metrics import Metric
from tulle.control.store.sealed import Keys
from tulle.core import type_urls
from tulle.core.analyze.finding import Finding, finding
from tulle.core.analyze.renewals import Renewal, late
from tulle.core.compile.layers import UNGUARDED
from tulle.core.compile.revoked import Revoked
from tulle.core.envoy.tls import ROOTS
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Refused
from tulle.ports import Signer, Store

_FORGOTTEN = 24 * 3600.0  # seconds after which a node that asks no more has no metrics


class MeshAuthority:
    """Make it with `open`; `wire` it to the pipeline once there is one."""

    def __init__(
        self, settings: ControlPlaneSettings, store: Store, own: Authority | ExternalSigner, shared: SharedAuthority | None
    ) -> None:
        self.signer: Signer = OwnSigner(own) if isinstance(own, Authority) else own
        self.ledger = Ledger(store)
        self.revocations = Revocations(store, settings.trust_domain)
        self.nodes = Nodes(store, self.revocations)
        self.tokens = JoinTokens(store, lambda: self.signer.pin)
        self._settings, self._shared = settings, shared
        self._changed: Callable[[], Awaitable[None]] = _nothing
        self._pipeline: Pipeline
        self._proxies: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
        self._own = own
        self._rotation: Rotation | None = None
        self._brought: Follower | None = None
        if isinstance(own, Authority):
            self._rotation = Rotation(own, self._keep, self._behind, self._in_use, self._moved)
            if settings.ca_dir is not None:
                self._brought = Follower(settings.ca_dir, self._rotation, self._is_empty)

    @classmethod
    async def open(cls, settings: ControlPlaneSettings, store: Store, keys: Keys) -> MeshAuthority:
        """The authority: in the state folder, shared through the store, or elsewhere."""
        domain, key_type = settings.trust_domain, settings.ca_key_type
        if settings.ca_signer_url:
            return cls(settings, store, _elsewhere(settings), None)
        if is_shared(settings):
            shared = await when_there(settings, lambda: SharedAuthority.open(store, domain, key_type=key_type))
            made = cls(settings, store, shared.authority, shared)
        else:
            own = Authority.open(settings.state_dir / "ca", domain, seal=keys, key_type=key_type)
            made = cls(settings, store, own, None)
        if made._brought is not None:
            await made._brought.begin()
        return made

    @property
    def rotation(self) -> Rotation:
        """The rotation of what signs; raises `Refused` where that is not here."""
        if self._rotation is None:
            raise Refused("what signs is elsewhere and rotated there; --ca-signer-root-file says what is trusted")
        return self._rotation

    def wire(
        self,
        pipeline: Pipeline,
        proxies: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`proxies` gives every connected proxy of the mesh, with the version of the roots that it took; `changed` is called when
        something else signs or is trusted.
        """
        self._pipeline, self._proxies, self._changed = pipeline, proxies, changed

    def tasks(self, taken_up: Callable[[], None], revoked: Callable[[], None]) -> Mapping[str, Awaitable[None]]:
        """What runs as long as the control plane does. `taken_up` is called when another control plane changed something, and
        `revoked` when an identity was, or was given back.
        """
        work: dict[str, Awaitable[None]] = {
            "certificates": self.ledger.run(),
            "revocations": self.revocations.run(revoked),
        }
        if self._shared is not None:
            work["authority"] = self._shared.run(taken_up)
        if self._brought is not None:
            work["brought authority"] = self._brought.run()
        if isinstance(self._own, ExternalSigner):
            work["roots"] = self._own.run(taken_up)
        return work

    @property
    def revoked(self) -> Revoked:
        """What is revoked, for proxies."""
        now, current = time.time(), self.revocations.current
        return Revoked(
            tuple(sorted({one.identity for one in current if not one.serial})),
            tuple(sorted({one.digest for one in current if one.serial and one.until > now})),
            self.revocations.cut,
        )

    async def certificates(self) -> Sequence[Issued]:
        """The newest certificate of each holder that is still there: of nodes, and of workloads that a node runs."""
        run = self._pipeline.run_by_nodes
        return [
            one
            for one in await self.ledger.all()
            if one.holder == f"node/{one.node}" or run.get(one.holder) == one.node or not one.node
        ]

    async def late(self) -> list[Finding]:
        """Certificates that should have been renewed."""
        held = [Renewal(one.holder, one.node, one.due, one.not_after) for one in await self.certificates() if one.node]
        return [finding(problem) for problem in late(held, time.time())]

    def near_end(self) -> str:
        """That what signs nears its end, while there is time to replace it: "" where it does not."""
        left = self.signer.not_after - time.time()
        if left > 2 * self._settings.certificate_lifetime:
            return ""
        return f"what signs certificates ends in {max(0.0, left) / 3600:.1f} hours: tulle ca status"

    async def metrics(self, counts: Counts) -> list[Metric]:
        """What was signed, and when what ends."""
        held, now = await self.certificates(), time.time()
        per = [({"operation": name}, float(count)) for name, count in sorted(counts.signed.items())]
        refused = [({"operation": name}, float(count)) for name, count in sorted(counts.refused.items())]
        ends = [({"holder": one.holder, "node": one.node, "identity": one.identity}, one.not_after) for one in held]
        signed, asked = float(sum(counts.signed.values())), float(sum(counts.refused.values()))
        late_ones = sum(1 for one in held if one.due < now)
        told = {node: said for node, said in sorted(counts.told.items()) if now - said[0] < _FORGOTTEN}
        ages = [({"node": node}, now - at) for node, (at, _refused) in told.items()]
        strangers = [({"node": node}, float(number)) for node, (_at, number) in told.items()]
        return [
            Metric("tulle_ca_signed_total", "counter", "Requests that were signed, by operation.", per),
            Metric("tulle_ca_refused_total", "counter", "Requests that were refused, by operation.", refused),
            Metric("citadel_server_csr_count", "counter", "Requests for certificates.", [({}, asked + signed)]),
            Metric("citadel_server_success_cert_issuance_count", "counter", "Those that were signed.", [({}, signed)]),
            Metric("citadel_server_cert_chain_expiry_timestamp", "gauge", "When what signs ends.", [({}, self.signer.not_after)]),
            Metric("tulle_ca_not_after_seconds", "gauge", "When what signs ends.", [({}, self.signer.not_after)]),
            Metric("tulle_certificate_not_after_seconds", "gauge", "When the newest certificate of a holder ends.", ends),
            Metric("tulle_certificates_late", "gauge", "Certificates that should have been renewed.", [({}, float(late_ones))]),
            Metric("tulle_bundle_age_seconds", "gauge", "Since a node was last told the trust bundles, by node.", ages),
            Metric("tulle_workload_api_refused_total", "counter", "Calls of processes without an identity, by node.", strangers),
            Metric("tulle_revocations", "gauge", "What is revoked.", [({}, float(len(self.revocations.current)))]),
        ]

    # As `ca_api.Authority`.

    async def status(self) -> dict[str, Any]:
        """What signs, what comes next, and who waits; and the join tokens that will be, or are, of no use because of it."""
        if self._rotation is None:
            return external_status(self.signer)
        good, void = await self.tokens.unused()
        issuers = self._rotation.authority.issuers
        roots = {one.anchor for one in issuers if one.slot in (Slot.ACTIVE, Slot.NEXT)}
        return {**await self._rotation.status(), "tokens": {"ending": good if len(roots) > 1 else 0, "void": void}}

    async def step(self, step: Step, force: bool) -> None:
        """Do a step of the rotation."""
        await self.rotation.step(step, force=force)

    async def request(self) -> bytes:
        """A signing request for an intermediate."""
        return await self.rotation.request()

    async def bring(self, chain: bytes, roots: bytes) -> None:
        """Take in an intermediate."""
        await self.rotation.take(chain, roots)

    async def certificates_shown(self) -> list[dict[str, Any]]:
        """What was signed, for people."""
        now = time.time()
        return [
            {
                "holder": one.holder,
                "identity": one.identity,
                "node": one.node,
                "serial": one.serial,
                "issuer": one.issuer,
                "sha256": one.digest,
                "issued": one.issued,
                "before": one.before,
                "notAfter": one.not_after,
                "late": one.due < now,
            }
            for one in await self.certificates()
        ]

    async def _keep(self, stored: StoredRoots) -> None:
        if self._shared is not None:
            await self._shared.keep(stored)
        elif isinstance(self._own, Authority):
            self._own.keep(stored)

    async def _is_empty(self) -> bool:
        return not await self.nodes.all()

    async def _moved(self) -> None:
        await self._changed()

    async def _in_use(self) -> Sequence[Issued]:
        return [one for one in await self.certificates() if not self._left_out(one.node)]

    def _left_out(self, node: str) -> bool:
        """Whether a node is nobody any more: its identity is revoked, and nobody waits for it."""
        return bool(node) and self.revocations.is_revoked(f"spiffe://{self._settings.trust_domain}/node/{node}")

    async def _behind(self) -> Sequence[str]:
        """Who has not the bundle of now: proxies that did not acknowledge it, and nodes that did not say so. Nodes that are
        revoked, and what they ran, do not count.
        """
        wanted = self._pipeline.table(UNGUARDED, type_urls.SECRET)[ROOTS].version
        have = {str(one["proxy"]): one.get("roots") for one in await self._proxies()}
        behind = []
        for proxy, node in sorted(self._pipeline.run_by_nodes.items()):
            if self._left_out(node):
                continue
            if proxy not in have:
                behind.append(f"proxy {proxy} is not connected (node {node})")
            elif have[proxy] != wanted:
                behind.append(f"proxy {proxy} has not acknowledged the bundle")
        trusts, now = fingerprint(self.signer.bundle), time.time()
        for name, record in sorted((await self.nodes.all()).items()):
            if record.trusts != trusts and record.until > now and not self._left_out(name):
                behind.append(f"node {name} has not said that it has the bundle")
        return behind


async def _nothing() -> None:
    """Nobody has to hear of it yet."""


def _elsewhere(settings: ControlPlaneSettings) -> ExternalSigner:
    token, roots = settings.ca_signer_token_file, settings.ca_signer_root_file
    if token is None or roots is None:
        raise Refused("--ca-signer-url needs --ca-signer-token-file and --ca-signer-root-file")
    if settings.ca_dir is not None:
        raise Refused("--ca-signer-url and --ca-dir: found both, needed one: it is signed here or elsewhere")
    return ExternalSigner(settings.trust_domain, VaultPki(settings.ca_signer_url, token, settings.ca_signer_ca_file), roots)


def token_reviewer(settings: ControlPlaneSettings) -> TokenReviewer | None:
    """The cluster whose service accounts are believed; None where there is none. Raises `Refused`."""
    if not settings.kubernetes_api:
        return None
    if settings.kubernetes_token_file is None:
        raise Refused("--kubernetes-api needs --kubernetes-token-file: the token with which to ask")
    nodes = node_accounts(settings.kubernetes_node)
    token, authorities = settings.kubernetes_token_file, settings.kubernetes_ca_file
    return TokenReviewer(settings.kubernetes_api, token, authorities, settings.kubernetes_audience, nodes)
