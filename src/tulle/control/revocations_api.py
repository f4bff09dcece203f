"""`/tulle/v1/revocations`: identities that are taken back. Added to the application of `mesh_api.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from cryptography import x509

from tulle.control.apiserver import errors
from tulle.control.apiserver.guard import USER
from tulle.control.ca import certificates
from tulle.control.ca.ledger import Issued, issued
from tulle.control.ca.revocations import Revocations
from tulle.kit.errors import Refused


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """One of `identity`, `serial` and `certificate` (PEM)."""

    identity: str = ""
    serial: str = ""
    certificate: str = ""
    reason: str = ""
    cut: bool = True


def add_revocations(
    app: web.Application, revocations: Revocations, trust_domain: str, signed: Callable[[], Awaitable[Sequence[Issued]]]
) -> None:
    """The routes. `signed`: what was signed, by which a serial number is found."""

    async def listed(_request: web.Request) -> web.Response:
        await revocations.load()
        return _json({"revocations": revocations.current})

    async def revoke(request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Revoke)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"the body: {error}") from error
        user = request.get(USER)
        try:
            one = await _certificate(asked, signed)
            identity = one.identity if one else spiffe_id(asked.identity, trust_domain)
            await revocations.revoke(identity, user.author if user else "", asked.reason, one, asked.cut)
        except Refused as refusal:
            raise errors.Denial(409, "Conflict", refusal.message) from refusal
        return _json({"identity": identity, "serial": one.serial if one else ""})

    async def restore(request: web.Request) -> web.Response:
        try:
            identity = spiffe_id(request.query.get("identity", ""), trust_domain)
            await revocations.restore(identity, _number(request.query.get("serial", "")))
        except Refused as refusal:
            raise errors.Denial(409, "Conflict", refusal.message) from refusal
        return _json({"identity": identity})

    app.router.add_get("/revocations", listed)
    app.router.add_post("/revocations", revoke)
    app.router.add_delete("/revocations", restore)


async def _certificate(asked: _Revoke, signed: Callable[[], Awaitable[Sequence[Issued]]]) -> Issued | None:
    """The certificate that is meant, None where an identity is."""
    if asked.certificate:
        leaf = certificates.read_chain(asked.certificate.encode(), "certificate")[0]
        names = [one.value for one in leaf.extensions if isinstance(one.value, x509.SubjectAlternativeName)]
        uris = [uri for name in names for uri in name.get_values_for_type(x509.UniformResourceIdentifier)]
        if len(uris) != 1:
            raise Refused(f"certificate: found the identities {uris}, needed one")
        return issued(asked.certificate.encode(), "", uris[0], "", "", 0.0)
    if not asked.serial:
        return None
    number = _number(asked.serial)
    for one in await signed():
        if number == one.serial:
            return one
        if number in one.older:
            digest, end = one.older[number]
            return msgspec.structs.replace(one, serial=number, digest=digest, not_after=end)
    raise Refused(f"serial: found {asked.serial!r}, which no certificate has that is valid now", hint="tulle certs")


def spiffe_id(said: str, trust_domain: str) -> str:
    """An identity as people write it: `NAMESPACE/SERVICEACCOUNT`, `node:NAME`, or a SPIFFE ID. Raises `Refused`."""
    if said.startswith("spiffe://"):
        return said
    if said.startswith("node:"):
        return f"spiffe://{trust_domain}/node/{said.removeprefix('node:')}"
    namespace, slash, account = said.partition("/")
    if not slash or not namespace or not account:
        raise Refused(f"identity: found {said!r}, needed NAMESPACE/SERVICEACCOUNT, node:NAME or a SPIFFE ID")
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


def _number(serial: str) -> str:
    return serial.lower().replace(":", "").lstrip("0")


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
