"""The bundles of the trust domains that the mesh is federated with: fetched where they are published, kept, and looked at again.

    MeshConfig ──▶ Federation ──https_web, https_spiffe──▶ document ──▶ TrustBundle ──▶ proxies, Workload API
                        │ the store: what was believed last, for when the other side is away

What cannot be had, or is not what it should be, changes nothing: the bundle of before holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import msgspec
import structlog
from aiohttp import web

from tulle.control.documents import document as document_at
from tulle.core.compile.federation import Federated
from tulle.core.trust_bundle import TrustBundle, changed, document, parse, read
from tulle.kit.errors import TulleError, Unavailable
from tulle.ports import Key, Put, Store

log = structlog.get_logger("tulle.control-plane")

RESOURCE = "_federation"
_TIMEOUT = 15.0  # seconds for an endpoint to answer whole
_SOONEST, _LATEST = 5.0, 3600.0  # seconds between two looks, whatever the other side says
_FIRST, _LAST = 1.0, 60.0  # seconds before somebody who failed is asked again: each time twice as long
_OLDER = 3  # looks in a row that find an older bundle, after which it is believed: its publisher was restored


class Known(msgspec.Struct, frozen=True, rename="camel"):
    """A trust domain as a person sees it. `refreshed` is when it was read last (seconds since the epoch; 0: never)."""

    trust_domain: str
    profile: str
    url: str
    sequence: int
    authorities: int
    keys: int
    refreshed: float
    error: str


class Federation:
    """A task for each trust domain. `run` until cancelled; `look` when the mesh's configuration may be another.

    `wanted` gives what is configured now; `use` is called with all bundles whenever one is another.
    """

    def __init__(
        self,
        store: Store,
        wanted: Callable[[], tuple[Federated, ...]],
        use: Callable[[Mapping[str, TrustBundle]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._wanted, self._use, self._clock = store, wanted, use, clock
        self._news = asyncio.Event()
        self._tasks: dict[Federated, asyncio.Task[None]] = {}
        self._bundles: dict[str, TrustBundle] = {}
        self._read: dict[str, float] = {}
        self._errors: dict[str, str] = {}

    def look(self) -> None:
        """The mesh has become another."""
        self._news.set()

    def status(self) -> list[Known]:
        """Every trust domain that is configured."""
        return [
            Known(
                trust_domain=one.trust_domain,
                profile=one.profile,
                url=one.url,
                sequence=bundle.sequence,
                authorities=len(bundle.authorities),
                keys=len(bundle.keys),
                refreshed=self._read.get(one.trust_domain, 0.0),
                error=self._errors.get(one.trust_domain, ""),
            )
            for one in self._wanted()
            for bundle in [self._bundles.get(one.trust_domain, TrustBundle(one.trust_domain))]
        ]

    async def begin(self) -> None:
        """Believe what was believed before, so that a start cuts nobody off."""
        for one in self._wanted():
            await self._begin(one)

    async def run(self) -> None:
        """Follow what is configured."""
        try:
            while True:
                self._news.clear()
                self._follow(set(self._wanted()))
                await self._news.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _follow(self, wanted: set[Federated]) -> None:
        for one in self._tasks.keys() - wanted:
            self._tasks.pop(one).cancel()
        gone = self._bundles.keys() - {one.trust_domain for one in wanted}
        for name in gone:
            del self._bundles[name]
            self._read.pop(name, None)
        if gone:
            log.info("no longer federated", trust_domains=sorted(gone))
            self._use(dict(self._bundles))
        for one in wanted - self._tasks.keys():
            self._tasks[one] = asyncio.create_task(self._keep(one), name=f"trust bundle of {one.trust_domain}")

    async def _keep(self, wanted: Federated) -> None:
        await self._begin(wanted)
        pause, older = _FIRST, 0
        while wanted.url:
            try:
                found = await fetched(wanted, self._bundles)
            except Unavailable as error:
                if self._errors.get(wanted.trust_domain) != error.message:
                    log.warning("a trust bundle cannot be read", trust_domain=wanted.trust_domain, why=error.message)
                self._errors[wanted.trust_domain] = error.message
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST)
                continue
            self._errors.pop(wanted.trust_domain, None)
            pause = _FIRST
            known = self._bundles.get(wanted.trust_domain)
            older = older + 1 if known is not None and found.sequence < known.sequence else 0
            self._read[wanted.trust_domain] = self._clock()
            if older and older < _OLDER:
                log.info(
                    "a trust bundle is older than the one of before", trust_domain=wanted.trust_domain, sequence=found.sequence
                )
            else:
                await self._take(wanted, found)
            await asyncio.sleep(min(max(found.refresh, _SOONEST), _LATEST))

    async def _begin(self, wanted: Federated) -> None:
        """With what was believed last under this configuration, else with what the configuration says."""
        name = wanted.trust_domain
        try:
            stored = await self._store.get(_key(name))
            said = stored.body if stored is not None and stored.body.get("configured") == _digest(wanted) else None
            found = read(said["bundle"], name) if said else parse(wanted.bundle, name) if wanted.bundle else None
        except (TulleError, ValueError, KeyError) as error:
            self._errors[name] = str(error)
            return
        if found is not None and changed(self._bundles.get(name), found):
            self._bundles[name] = found
            self._use(dict(self._bundles))

    async def _take(self, wanted: Federated, found: TrustBundle) -> None:
        known = self._bundles.get(wanted.trust_domain)
        if known == found:
            return
        self._bundles[wanted.trust_domain] = found
        if changed(known, found):
            log.info("trust bundle read", trust_domain=wanted.trust_domain, sequence=found.sequence, roots=len(found.authorities))
            self._use(dict(self._bundles))
        body = {"configured": _digest(wanted), "bundle": msgspec.json.decode(document(found))}
        try:
            await self._store.write([Put(_key(wanted.trust_domain), body)])
        except TulleError as error:
            log.warning("a trust bundle was not kept", trust_domain=wanted.trust_domain, error=error.message)


def add_federation(app: web.Application, federation: Callable[[], Federation], own: Callable[[], TrustBundle]) -> None:
    """`GET federation` in `/tulle/v1`: the own bundle as others get it, and what is known of theirs."""

    async def answer(_request: web.Request) -> web.Response:
        body = {"bundle": msgspec.Raw(document(own())), "trustDomains": federation().status()}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    app.router.add_get("/federation", answer)


async def fetched(wanted: Federated, known: Mapping[str, TrustBundle]) -> TrustBundle:
    """The bundle at a trust domain's endpoint; raises `Unavailable` where there is none, or the place is not the right one.

    `known` are the bundles by which an endpoint of the profile https_spiffe proves who it is.
    """
    spiffe = wanted.profile == "https_spiffe"
    try:
        tls = _spiffe_tls(wanted.spiffe_id, known) if spiffe else _web_tls(wanted.ca_certificates)
        connector = _Connector(wanted.spiffe_id if spiffe else "", ssl=tls)
        async with (
            asyncio.timeout(_TIMEOUT),
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session,
        ):
            said: Mapping[str, Any] = await document_at(session, wanted.url)
        return read(said, wanted.trust_domain)
    except TimeoutError as error:
        raise Unavailable(f"{wanted.url} does not answer in time") from error
    except ssl.SSLError as error:
        raise Unavailable(f"{wanted.url}: caCertificates: found something else, needed certificates in PEM") from error
    except ValueError as error:
        raise Unavailable(f"{wanted.url}: {error}") from error


class _Connector(aiohttp.TCPConnector):
    """Gives out connections only to who has the SPIFFE ID that is asked for ("": the URL's host name says enough)."""

    def __init__(self, identity: str, **settings: Any) -> None:
        super().__init__(force_close=True, **settings)
        self._identity = identity

    async def connect(self, *arguments: Any, **settings: Any) -> Any:
        connection = await super().connect(*arguments, **settings)
        if self._identity:
            certificate = connection.transport.get_extra_info("peercert") if connection.transport else None
            names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
            if names != [self._identity]:
                connection.close()
                raise Unavailable(f"the endpoint is {', '.join(names) or 'nobody'}, needed {self._identity}")
        return connection


def _spiffe_tls(identity: str, known: Mapping[str, TrustBundle]) -> ssl.SSLContext:
    trust_domain = identity.removeprefix("spiffe://").partition("/")[0]
    bundle = known.get(trust_domain)
    if bundle is None or not bundle.authorities:
        raise Unavailable(f"there is no trust bundle of {trust_domain} to know its endpoint by")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = False  # who it is says the SPIFFE ID, which is looked at before anything is asked
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority need not be a root
    made.load_verify_locations(cadata=bundle.pem)
    return made


def _web_tls(authorities: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=authorities or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def _key(trust_domain: str) -> Key:
    return Key(RESOURCE, "", trust_domain)


def _digest(wanted: Federated) -> str:
    """Tells configurations apart: another bundle to begin with, or another place, makes a new beginning."""
    return hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()
