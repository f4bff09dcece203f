"""`/identity/v1/{join,sign,bundle}`: how nodes get certificates. Signatures first; the body follows."""

from __future__ import annotations

from aiohttp import web

from tulle.control.ca.authority import Authority
from tulle.control.ca.tokens import JoinTokens
from tulle.ports import Store

PREFIX = "/identity/v1"


def identity_app(authority: Authority, tokens: JoinTokens, store: Store, lifetime: float = 24 * 3600) -> web.Application:
    """The sub-application to mount at `PREFIX`.

    The server in front sets `request["identity"]` to the SPIFFE URI of the verified client certificate, or None.

    - `POST join` `{token, csr, node}` without a client certificate; the answer is the node's certificate
      (`spiffe://TD/node/NODE`).
    - `POST sign` `{csr, identity}` with the node's certificate; the identities that its token named, and its own again.
    - `GET bundle`.

    Answers: `{chain, bundle, trust_domain}` in PEM; `bundle` without `chain`. Errors: `{code, message}` with 400 or 403.
    """
    raise NotImplementedError
