"""`/identity/v1/{jwt,bundles}`: what nodes need for their applications, beside the certificates of `http.py`.

node ──identity, audience──▶ jwt ──▶ JwtKeys.sign ──▶ a JWT-SVID
node ──tag of what it has──▶ bundles ──▶ all trust bundles, when they are others
"""

from __future__ import annotations

import time

import msgspec
import structlog
from aiohttp import web

from tulle.control.asking import IDENTITY
from tulle.control.ca.bundles import Bundles
from tulle.control.ca.grants import check_granted
from tulle.control.ca.http import COUNTS
from tulle.control.ca.identity import node_of
from tulle.control.ca.jwt_keys import JwtKeys
from tulle.control.ca.nodes import Nodes
from tulle.kit.errors import Refused

_log = structlog.get_logger(__name__)
_WAIT = 25.0  # seconds that a question for news is held; below what proxies and clients take for silence


class JwtRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST jwt`: the SPIFFE ID that the token is to name, and for whom it is."""

    identity: str
    audience: list[str]


def add_workload_identity(app: web.Application, keys: JwtKeys, bundles: Bundles, nodes: Nodes) -> None:
    """Add both to the application that `http.identity_app` made; errors and counts are as there.

    - `POST jwt` `{identity, audience}` with a node's certificate, for what its join token named: `{token, expires}`.
    - `GET bundles?tag=&refused=`: `{trust_domain, aliases, bundles, tag}`, held until the tag is another or half a minute is
      over; a node says how many calls of its Workload API it has refused.
    """
    counts = app[COUNTS]

    async def jwt(request: web.Request) -> web.Response:
        caller = request.get(IDENTITY, "")
        try:
            body = msgspec.json.decode(await request.read(), type=JwtRequest)
            await check_granted(nodes, bundles.own.trust_domain, caller, body.identity)
            token, expires = keys.sign(body.identity, body.audience)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json({"code": "bad-data", "message": f"request: {error}"}, 400)
        except Refused as refusal:
            counts.refused["jwt"] += 1
            _log.warning("token refused", peer=caller or request.remote, why=refusal.message, refused=counts.refused["jwt"])
            return _json({"code": refusal.code, "message": refusal.message}, 403)
        counts.signed["jwt"] += 1
        return _json({"token": token, "expires": expires}, 200)

    async def known(request: web.Request) -> web.Response:
        if not request.get(IDENTITY):
            return _json({"code": "refused", "message": "a client certificate of this mesh is needed"}, 403)
        found = await bundles.after(request.query.get("tag", ""), _WAIT)
        if node := node_of(request[IDENTITY], bundles.own.trust_domain):
            counts.told[node] = (time.time(), _count(request.query.get("refused", "")))
        return _json(found, 200)

    app.router.add_post("/jwt", jwt)
    app.router.add_get("/bundles", known)


def _count(said: str) -> int:
    return int(said) if said.isdecimal() and len(said) < 16 else 0


def _json(body: object, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
