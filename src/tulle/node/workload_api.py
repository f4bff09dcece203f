"""The SPIFFE Workload API: identities for applications, on a Unix socket that every user of the host may open.

    application ──socket──▶ front: who is that? (`attestation.py`) ──inner socket──▶ gRPC ──▶ what is he entitled to? ──▶ SVIDs

gRPC does not tell who is at the other end of a Unix socket, so the front accepts: it asks the kernel, and passes the bytes on
through a socket with a name of its own, by which the calls that come in there are known again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format

from tulle.core.trust_bundle import TrustBundle
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node.attestation import Peer, peer_of
from tulle.node.bundles import TrustBundles
from tulle.node.identity import Identity, Kept
from tulle.node.jwt_svids import JwtSvids, validate
from tulle.node.news import News
from tulle.pb.workload_api import HEADER, SERVICE, message

log = structlog.get_logger("tulle.node")

SOCKET = "workload-api.sock"
_OPTIONS = [("grpc.max_receive_message_length", 64 * 1024), ("grpc.so_reuseport", 0)]
_MOST, _MOST_EACH = 4096, 256  # connections: of all, of one user
_CHUNK = 64 * 1024

Call = Any  # grpc.aio.ServicerContext, which has no types
_PATIENCE = 5.0  # seconds that a call waits for a certificate that is under way


class WorkloadApi:
    """Serves it. `entitled` says which identities a process has now: none where it is nobody's."""

    def __init__(
        self,
        path: Path,
        inner: Path,
        entitled: Callable[[Peer], Sequence[Kept]],
        bundles: TrustBundles,
        tokens: JwtSvids,
        news: News,
    ) -> None:
        self._path, self._inner = path, inner
        self._entitled, self._bundles, self._tokens, self._news = entitled, bundles, tokens, news
        self._peers: dict[str, Peer] = {}
        self._users: Counter[int] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._refused: set[tuple[int, str]] = set()
        self._front: asyncio.Server | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. A socket that a killed agent left is replaced."""
        for path in (self._path, self._inner):
            path.unlink(missing_ok=True)
        self._grpc = grpc.aio.server(options=_OPTIONS)
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        self._grpc.add_insecure_port(f"unix:{self._inner}")
        await self._grpc.start()
        self._inner.chmod(0o600)
        self._front = await asyncio.start_unix_server(self._accept, str(self._path))
        self._path.chmod(0o666)  # whoever connects is asked for; what he gets depends on who he is

    async def close(self) -> None:
        """Stop: applications come back by themselves."""
        if self._front is not None:
            self._front.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._grpc is not None:
            await self._grpc.stop(None)
        for path in (self._path, self._inner):
            path.unlink(missing_ok=True)

    # The front.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side hung up, or the agent ends
        finally:
            self._connections.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = peer_of(writer.get_extra_info("socket"))
        except Refused as error:
            log.info("workload API: a connection is not served", why=error.message)
            return
        if len(self._peers) >= _MOST or self._users[peer.uid] >= _MOST_EACH:
            log.warning("workload API: too many connections", uid=peer.uid, connections=self._users[peer.uid])
            return
        name = f"tulle-{secrets.token_hex(16)}"
        self._peers[name] = peer
        self._users[peer.uid] += 1
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.setblocking(False)
                made.bind(f"\0{name}")
                await asyncio.get_running_loop().sock_connect(made, str(self._inner))
                inward, outward = await asyncio.open_unix_connection(sock=made)
                pumps = [asyncio.ensure_future(_pump(reader, outward)), asyncio.ensure_future(_pump(inward, writer))]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
                    outward.close()
        finally:
            del self._peers[name]
            self._users[peer.uid] -= 1
            self._users += Counter()  # forget who has none

    # The calls.

    def _methods(self) -> dict[str, Any]:
        def one(call: Callable[[Any, Call], Awaitable[Any]], name: str) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                call, message(f"{name}Request").FromString, lambda answer: answer.SerializeToString(deterministic=True)
            )

        def many(made: Callable[[Sequence[Identity]], Any], name: str) -> Any:
            async def call(_request: Any, context: Call) -> AsyncIterator[bytes]:
                async for answer in self._follow(context, made):
                    yield answer

            return grpc.unary_stream_rpc_method_handler(call, message(f"{name}Request").FromString)

        return {
            "FetchX509SVID": many(self._x509_svids, "X509SVID"),
            "FetchX509Bundles": many(self._x509_bundles, "X509Bundles"),
            "FetchJWTBundles": many(self._jwt_bundles, "JWTBundles"),
            "FetchJWTSVID": one(self._fetch_jwt, "JWTSVID"),
            "ValidateJWTSVID": one(self._validate_jwt, "ValidateJWTSVID"),
        }

    async def _follow(self, context: Call, made: Callable[[Sequence[Identity]], Any]) -> AsyncIterator[bytes]:
        """What is true now, and again whenever it is something else."""
        last = b""
        while True:
            number = self._news.number
            answer: bytes = made(await self._identities(context)).SerializeToString(deterministic=True)
            if answer != last:
                yield answer
                last = answer
            await self._news.after(number)

    async def _identities(self, context: Call) -> list[Identity]:
        """The identities of who calls. Ends the call where it has none, none yet, or did not say the header."""
        if dict(context.invocation_metadata() or ()).get(HEADER) != "true":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"security header missing from request: {HEADER}: true")
        peer = self._peers.get(context.peer().removeprefix("unix-abstract:"))
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    number = self._news.number
                    kept = self._entitled(peer) if peer is not None and peer.alive else ()
                    if not kept:
                        break
                    now = time.time()
                    if found := [one.current for one in kept if one.current is not None and one.current.valid(now)]:
                        return found
                    await self._news.after(number)
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "there is no valid certificate at the moment; try again")
        self._say_refused(peer)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        raise AssertionError("the call has ended")

    def _say_refused(self, peer: Peer | None) -> None:
        """Once for each user and program; all are counted."""
        self._bundles.refused += 1
        if peer is not None and (peer.uid, peer.path) not in self._refused and len(self._refused) < _MOST:
            self._refused.add((peer.uid, peer.path))
            log.warning("workload API: no identity for a process", pid=peer.pid, uid=peer.uid, path=peer.path, cgroup=peer.cgroup)

    def _trusted(self, identities: Sequence[Identity]) -> dict[str, TrustBundle]:
        """By trust domain, the own one first."""
        own = self._bundles.of(identities[0])
        return {own.trust_domain: own, **self._bundles.foreign(own.trust_domain)}

    def _x509_svids(self, identities: Sequence[Identity]) -> Any:
        trusted = self._trusted(identities)
        own = identities[0].trust_domain
        return message("X509SVIDResponse")(
            svids=[
                message("X509SVID")(
                    spiffe_id=one.name,
                    x509_svid=_der(one.chain),
                    x509_svid_key=_key_der(one.key),
                    bundle=self._bundles.of(one).der,
                )
                for one in identities
            ],
            federated_bundles={_id(name): one.der for name, one in trusted.items() if name != own and one.authorities},
        )

    def _x509_bundles(self, identities: Sequence[Identity]) -> Any:
        trusted = self._trusted(identities)
        return message("X509BundlesResponse")(bundles={_id(name): one.der for name, one in trusted.items() if one.authorities})

    def _jwt_bundles(self, identities: Sequence[Identity]) -> Any:
        trusted = self._trusted(identities)
        return message("JWTBundlesResponse")(bundles={_id(name): one.jwks for name, one in trusted.items() if one.keys})

    async def _fetch_jwt(self, request: Any, context: Call) -> Any:
        identities = await self._identities(context)
        if not request.audience:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        wanted = [one.name for one in identities if request.spiffe_id in ("", one.name)]
        if not wanted:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued of that SPIFFE ID")
        try:
            tokens = [(name, await self._tokens.fetch(name, request.audience)) for name in wanted]
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        except TulleError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        return message("JWTSVIDResponse")(svids=[message("JWTSVID")(spiffe_id=name, svid=token) for name, token in tokens])

    async def _validate_jwt(self, request: Any, context: Call) -> Any:
        trusted = self._trusted(await self._identities(context))
        try:
            claims = validate(request.svid, request.audience, trusted.values())
        except Refused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = message("ValidateJWTSVIDResponse")(spiffe_id=claims["sub"])
        json_format.ParseDict(claims, answer.claims)
        return answer


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


def _id(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}"


def _der(chain: str) -> bytes:
    found = x509.load_pem_x509_certificates(chain.encode())
    return b"".join(one.public_bytes(serialization.Encoding.DER) for one in found)


def _key_der(key: str) -> bytes:
    return serialization.load_pem_private_key(key.encode(), None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
