"""The trust bundles of this node: its own trust domain's and those of others, as the control plane has them, kept on disk.

The control plane holds the question until there is something new, so that a change is here within a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from tulle.core.trust_bundle import TrustBundle, read, split
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node.cache import write_private
from tulle.node.identity import Identity, IdentityClient, Kept, retry_delay

log = structlog.get_logger("tulle.node")

_MOST = 30.0  # seconds between two questions to a control plane that does not answer


class TrustBundles:
    """`run` keeps them; `changed` is called with every change."""

    def __init__(self, path: Path, own: Kept, client: IdentityClient, changed: Callable[[], None]) -> None:
        self._path, self._own, self._client, self._changed = path, own, client, changed
        self._bundles: Mapping[str, TrustBundle] = {}
        self._aliases: tuple[str, ...] = ()
        self._tag = ""
        self._asked = 0.0
        self.refused = 0  # calls of the Workload API, which the control plane is told with each question

    def load(self) -> None:
        """What an earlier agent kept. Blocks."""
        try:
            self._use(msgspec.json.decode(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the trust bundles on disk cannot be used; asking for new ones", path=str(self._path), error=str(error))

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the own trust domain."""
        return self._aliases

    def of(self, identity: Identity) -> TrustBundle:
        """What peers of an identity's own trust domain are checked with."""
        known = self._bundles.get(identity.trust_domain, TrustBundle(identity.trust_domain))
        if identity.issued <= self._asked:
            return known
        # It came later than the bundle: the root that it is of may be new.
        roots = (*known.authorities, *split(identity.bundle.encode()))
        return msgspec.structs.replace(known, authorities=tuple(dict.fromkeys(roots)))

    def foreign(self, trust_domain: str) -> Mapping[str, TrustBundle]:
        """The bundles of the trust domains that this one is federated with, by name."""
        return {name: one for name, one in self._bundles.items() if name != trust_domain}

    async def run(self) -> None:
        """Ask for what is new, for ever."""
        attempt = 0
        while True:
            try:
                await self._ask()
                attempt = 0
            except TulleError as error:
                attempt += 1
                log.info("trust bundles are not heard of; trying again", error=error.message)
                await asyncio.sleep(min(retry_delay(attempt, 3600.0), _MOST))

    async def _ask(self) -> None:
        own = self._own.current
        if own is None:
            raise Unavailable("this node has no certificate yet")
        asked = time.time()
        said = await self._client.bundles(own, self._tag, self.refused)
        if said.get("tag") == self._tag:
            self._asked = asked
            return
        try:
            self._use(said)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"the control plane's trust bundles cannot be used: {error}") from error
        self._asked = asked
        await asyncio.to_thread(write_private, self._path, msgspec.json.encode(said))
        self._changed()

    def _use(self, said: Mapping[str, Any]) -> None:
        self._bundles = {str(name): read(one, str(name)) for name, one in said["bundles"].items()}
        self._aliases = tuple(str(one) for one in said["aliases"])
        self._tag = str(said["tag"])
