"""MeshConfig's `meshMTLS` and `tlsDefaults` → what of TLS proxies take part in: between themselves, and with all others."""

from __future__ import annotations

import msgspec

from tulle.api.own.mesh_config import TLSConfig
from tulle.core.compile.objects import mesh_configs
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import ServerTls
from tulle.core.model.handshake import USUAL, Handshake

_VERSIONS = {"TLS_AUTO": USUAL.minimum, "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}


@table
def mesh_mtls(fetch: Fetch, _key: None) -> Handshake:
    """Mutual TLS of the mesh."""
    return next((_handshake(config.spec.mesh_mtls) for config in fetch.rows(mesh_configs)), USUAL)


@table
def tls_defaults(fetch: Fetch, _key: None) -> Handshake:
    """TLS with whoever is not of the mesh."""
    return next((_handshake(config.spec.tls_defaults) for config in fetch.rows(mesh_configs)), USUAL)


def _handshake(said: TLSConfig) -> Handshake:
    found = Handshake(_VERSIONS[said.min_protocol_version], said.cipher_suites, said.ecdh_curves)
    return USUAL if found == USUAL else found


def with_defaults(fetch: Fetch, tls: ServerTls) -> ServerTls:
    """TLS at a gateway, with the mesh's defaults where its own settings say nothing."""
    usual = fetch(tls_defaults, None) or USUAL
    if tls.mesh or usual is USUAL:
        return tls
    return msgspec.structs.replace(
        tls,
        minimum=tls.minimum or usual.minimum,
        ciphers=tls.ciphers or usual.ciphers,
        curves=tls.curves or usual.curves,
    )
