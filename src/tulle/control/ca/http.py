"""`/identity/v1/{join,sign,bundle}`: how nodes get certificates. A sub-application of the API server.

node ──token, csr──▶ join ──▶ JoinTokens.redeem ──▶ Signer.sign ──▶ the node's certificate
node ──csr, identity──▶ sign ──▶ Nodes.get ──▶ Signer.sign ──▶ a workload's certificate
node ──what it trusts──▶ bundle ──▶ Nodes.told: nobody is cut off by a rotation
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.control.asking import IDENTITY
from tulle.control.ca.grants import check_granted
from tulle.control.ca.identity import node_identity, node_of
from tulle.control.ca.kubernetes import TokenReviewer
from tulle.control.ca.ledger import Ledger, issued
from tulle.control.ca.nodes import NodeRecord, Nodes, fingerprint
from tulle.control.ca.revocations import Revocations
from tulle.control.ca.tokens import JoinTokens, is_join_token
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Signer, Store

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
    """`POST sign`: a `csr` in PEM, the SPIFFE ID that its certificate is to have, and for which `workload` (`namespace/name`)."""

    csr: str
    identity: str
    workload: str = ""
    token: str = ""


class BundleRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST bundle`: the PEM certificates that a node `trusts` now."""

    trusts: str


class Counts:
    """What was signed and refused since the start, by operation; `Authority`'s metrics. `told`: when a node was last told the
    trust bundles (seconds since the epoch), and how many calls of its Workload API it had refused by then.
    """

    def __init__(self) -> None:
        self.signed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.told: dict[str, tuple[float, int]] = {}


COUNTS: web.AppKey[Counts] = web.AppKey("counts", Counts)


def identity_app(
    signer: Signer,
    tokens: JoinTokens,
    store: Store,
    lifetime: float = 24 * 3600,
    clock: Callable[[], float] = time.time,
    ledger: Ledger | None = None,
    revocations: Revocations | None = None,
    kubernetes: TokenReviewer | None = None,
) -> web.Application:
    """The sub-application to mount at `PREFIX`. `lifetime` (s) is that of every certificate it gives; the `ledger` is told of it,
    and nothing is signed for what is in `revocations`.

    The server in front sets `request[IDENTITY]` to the SPIFFE URI of the client certificate that it verified.

    - `POST join` `{token, csr, node}` without a client certificate, with a join token or a node agent's Kubernetes token; the
      answer is the node's certificate
      (`spiffe://TD/node/NODE`).
    - `POST sign` `{csr, identity, workload}` with a node's certificate: the identities that its token named, and its own again.
      Any other certificate of the mesh may renew itself, and nothing else. Without a certificate but with the `token` of a
      Kubernetes service account (where a cluster is believed): that account's identity.
    - `GET bundle`; `POST bundle` `{trusts}` with a node's certificate, which tells what it has.

    Answers: `{chain, bundle, trust_domain, signs}`, certificates in PEM; `bundle` without `chain`. `signs` becomes another text
    when something else signs. Errors: `{code, message}`, with status 400 where the request does not parse, 403 where it is
    refused, and 503 where the signer is away. `COUNTS` in the application counts both.
    """
    app = web.Application(client_max_size=_LARGEST)
    counts = app[COUNTS] = Counts()
    nodes = Nodes(store, revocations)

    def answer(chain: bytes | None = None) -> web.Response:
        body = {"bundle": signer.bundle.decode(), "trust_domain": signer.trust_domain, "signs": signer.signs}
        if chain is not None:
            body["chain"] = chain.decode()
        return _json(body, 200)

    async def signed(csr: str, identity: str, node: str, holder: str) -> bytes:
        chain = await signer.sign(csr.encode(), identity, lifetime)
        note(chain, identity, node, holder)
        return chain

    def note(chain: bytes, identity: str, node: str, holder: str) -> None:
        if ledger is not None:
            ledger.note(issued(chain, holder, identity, node, signer.signs, clock()))

    async def join(request: web.Request) -> tuple[str, bytes]:
        body = await _body(request, JoinRequest)
        identity = node_identity(signer.trust_domain, body.node)
        await nodes.check(identity)
        if kubernetes is not None and not is_join_token(body.token):
            grant = await kubernetes.node(body.token, body.node)
            chain = await signer.sign(body.csr.encode(), identity, lifetime)
        else:
            await tokens.check(body.token, body.node)  # nothing is signed for nobody
            # Sign first: a bad CSR does not cost the token.
            chain = await signer.sign(body.csr.encode(), identity, lifetime)
            grant = await tokens.redeem(body.token, body.node)
        note(chain, identity, body.node, f"node/{body.node}")
        await nodes.put(body.node, NodeRecord(grant.identities, clock(), clock() + lifetime))
        return identity, chain

    async def by_kubernetes(body: SignRequest) -> bytes:
        """For a workload that shows its service account's token, that account's identity."""
        if kubernetes is None:
            raise Refused("token: there is no cluster here whose tokens are believed")
        await nodes.check(body.identity)
        account = (await kubernetes.attest(body.token)).account
        own = "spiffe://{}/ns/{}/sa/{}".format(signer.trust_domain, *account.split("/"))
        if body.identity != own:
            raise Refused(f"identity: found {body.identity!r}, but the token is of {account}")
        return await signed(body.csr, body.identity, "", body.workload or body.identity)

    async def sign(request: web.Request) -> tuple[str, bytes]:
        body = await _body(request, SignRequest)
        if body.token:
            return body.identity, await by_kubernetes(body)
        caller = _caller(request)
        record = await check_granted(nodes, signer.trust_domain, caller, body.identity)
        node = node_of(caller, signer.trust_domain)
        if body.identity != caller:
            return body.identity, await signed(body.csr, body.identity, node, body.workload or body.identity)
        chain = await signed(body.csr, body.identity, node, f"node/{node}" if node else body.identity)
        if record is not None:
            await nodes.put(node, msgspec.structs.replace(record, until=clock() + lifetime))
        return body.identity, chain

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
            except (web.HTTPBadRequest, web.HTTPRequestEntityTooLarge) as bad:
                counts.refused[name] += 1
                why = "it does not parse" if bad.status == 400 else "it is too large"
                _log.warning("identity refused", operation=name, peer=_caller(request) or request.remote, why=why)
                raise
            except Unavailable as away:
                _log.warning("identity not signed", operation=name, peer=_caller(request) or request.remote, why=away.message)
                return _json({"code": away.code, "message": away.message}, 503)
            counts.signed[name] += 1
            _log.info("identity signed", operation=name, identity=identity, peer=_caller(request) or request.remote)
            return answer(chain)

        return handle

    async def bundle(_request: web.Request) -> web.Response:
        return answer()

    async def told(request: web.Request) -> web.Response:
        body = await _body(request, BundleRequest)
        node = node_of(_caller(request), signer.trust_domain)
        if node:
            await nodes.told(node, fingerprint(body.trusts.encode()))
        return answer()

    app.router.add_post("/join", guarded(join))
    app.router.add_post("/sign", guarded(sign))
    app.router.add_get("/bundle", bundle)
    app.router.add_post("/bundle", told)
    return app


def _caller(request: web.Request) -> str:
    found: str = request.get(IDENTITY, "")
    return found


async def _body(request: web.Request, kind: type[_T]) -> _T:
    data = await request.read()
    if len(data) > _LARGEST:
        raise Refused(f"request: found {len(data)} bytes, needed at most {_LARGEST}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec names the field and what it found there by type, never by value.
        text = msgspec.json.encode({"code": "bad-data", "message": f"request: {error}"})
        raise web.HTTPBadRequest(text=text.decode(), content_type="application/json") from error


def _json(body: dict[str, str], status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
