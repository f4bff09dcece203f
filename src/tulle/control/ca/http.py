"""`/identity/v1/{join,sign,bundle}`: how nodes get certificates. A sub-application of the API server.

node ──token, csr──▶ join ──▶ JoinTokens.redeem ──▶ Authority.sign ──▶ the node's certificate
node ──csr, identity──▶ sign ──▶ Nodes.get ──▶ Authority.sign ──▶ a workload's certificate
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.control.ca.authority import Authority
from tulle.control.ca.identity import allowed, node_identity, node_of
from tulle.control.ca.nodes import NodeRecord, Nodes
from tulle.control.ca.tokens import JoinTokens
from tulle.kit.errors import Refused
from tulle.ports import Store

PREFIX = "/identity/v1"
_T = TypeVar("_T")
_LARGEST = 64 * 1024  # bytes of a request

_log = structlog.get_logger(__name__)


class JoinRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST join`: the `token`, a `csr` in PEM, and the `node`'s name."""

    token: str
    csr: str
    node: str


class SignRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST sign`: a `csr` in PEM and the SPIFFE ID that its certificate is to have."""

    csr: str
    identity: str


class Counts:
    """What was signed and refused since the start, by operation; `Authority`'s metrics."""

    def __init__(self) -> None:
        self.signed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()


COUNTS: web.AppKey[Counts] = web.AppKey("counts", Counts)


def identity_app(
    authority: Authority,
    tokens: JoinTokens,
    store: Store,
    lifetime: float = 24 * 3600,
    clock: Callable[[], float] = time.time,
) -> web.Application:
    """The sub-application to mount at `PREFIX`. `lifetime` (s) is that of every certificate it gives.

    The server in front sets `request["identity"]` to the SPIFFE URI of the verified client certificate, or None.

    - `POST join` `{token, csr, node}` without a client certificate; the answer is the node's certificate
      (`spiffe://TD/node/NODE`).
    - `POST sign` `{csr, identity}` with a node's certificate: the identities that its token named, and its own again. Any
      other certificate of the mesh may renew itself, and nothing else.
    - `GET bundle`.

    Answers: `{chain, bundle, trust_domain}` in PEM; `bundle` without `chain`. Errors: `{code, message}`, with status 400 where
    the request does not parse and 403 where it is refused. `COUNTS` in the application counts both.
    """
    app = web.Application(client_max_size=_LARGEST)
    counts = app[COUNTS] = Counts()
    nodes = Nodes(store)

    def answer(chain: bytes | None = None) -> web.Response:
        body = {"bundle": authority.bundle.decode(), "trust_domain": authority.trust_domain}
        if chain is not None:
            body["chain"] = chain.decode()
        return _json(body, 200)

    async def join(request: web.Request) -> tuple[str, bytes]:
        body = await _body(request, JoinRequest)
        identity = node_identity(authority.trust_domain, body.node)
        # Sign first: a bad CSR does not cost the token.
        chain = authority.sign(body.csr.encode(), identity, lifetime)
        grant = await tokens.redeem(body.token, body.node)
        await nodes.put(body.node, NodeRecord(grant.identities, clock()))
        return identity, chain

    async def sign(request: web.Request) -> tuple[str, bytes]:
        body = await _body(request, SignRequest)
        caller = _caller(request)
        if not caller:
            raise Refused("a client certificate of this mesh is needed")
        node = node_of(caller, authority.trust_domain)
        record = await nodes.get(node) if node else None
        if node and record is None:
            raise Refused(f"node {node!r} has not joined, or was taken out")
        if body.identity != caller:
            if record is None:
                raise Refused(f"{caller} may renew its own certificate only")
            if not allowed(body.identity, authority.trust_domain, record.identities):
                globs = ", ".join(record.identities) or "none"
                raise Refused(f"identity: found {body.identity!r}, but the node's join token allows {globs}")
        return body.identity, authority.sign(body.csr.encode(), body.identity, lifetime)

    def guarded(operation: Callable[[web.Request], Awaitable[tuple[str, bytes]]]) -> Callable[[web.Request], Any]:
        name = operation.__name__

        async def handle(request: web.Request) -> web.Response:
            try:
                identity, chain = await operation(request)
            except Refused as refusal:
                counts.refused[name] += 1
                # The message never has the token or the CSR in it.
                _log.warning(
                    "identity refused",
                    operation=name,
                    peer=_caller(request) or request.remote,
                    why=refusal.message,
                    refused=counts.refused[name],
                )
                return _json({"code": refusal.code, "message": refusal.message}, 403)
            counts.signed[name] += 1
            _log.info("identity signed", operation=name, identity=identity, peer=_caller(request) or request.remote)
            return answer(chain)

        return handle

    async def bundle(_request: web.Request) -> web.Response:
        return answer()

    app.router.add_post("/join", guarded(join))
    app.router.add_post("/sign", guarded(sign))
    app.router.add_get("/bundle", bundle)
    return app


def _caller(request: web.Request) -> str:
    return str(request.get("identity") or "")


async def _body(request: web.Request, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec names the field and what it found there by type, never by value.
        text = msgspec.json.encode({"code": "bad-data", "message": f"request: {error}"})
        raise web.HTTPBadRequest(text=text.decode(), content_type="application/json") from error


def _json(body: dict[str, str], status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
