"""What of TLS a proxy takes part in: the least version, and where somebody chose, which ciphers and curves."""

from __future__ import annotations

import msgspec


class Handshake(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """`minimum` is `TLSv1_2` or `TLSv1_3`; 1.3 is always spoken where both ends can. Without `ciphers` (of 1.2; those of 1.3 are
    all good) and `curves` they are Envoy's own: AEAD with forward secrecy only.
    """

    minimum: str = "TLSv1_2"
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


USUAL = Handshake()
