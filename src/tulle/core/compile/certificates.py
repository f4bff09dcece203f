"""What a Secret or a ConfigMap holds for TLS, told without keeping any of it: a key never gets into the tables.

Told by form: PEM armour around DER. Whether a certificate is valid, and fits its key, is for whoever serves it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import msgspec

_BLOCK = re.compile("-----BEGIN ([A-Z0-9 ]+)-----(.+?)-----END \\1-----", re.DOTALL)
_SEQUENCE = 0x30  # the first byte of every certificate and private key in DER


class Certificates(msgspec.Struct, frozen=True):
    """`pair`: a certificate in `tls.crt` and its key in `tls.key`; `authorities`: certificates in `ca.crt`."""

    pair: bool = False
    authorities: bool = False


def certificates_in(encoded: Mapping[str, str], plain: Mapping[str, str]) -> Certificates:
    """Read off the data of a Secret (`encoded` in base64, `plain` over it) or of a ConfigMap (`plain` alone)."""
    labels = {name: _labels(_text(name, encoded, plain)) for name in ("tls.crt", "tls.key", "ca.crt")}
    return Certificates(
        pair="CERTIFICATE" in labels["tls.crt"] and any(label.endswith("PRIVATE KEY") for label in labels["tls.key"]),
        authorities="CERTIFICATE" in labels["ca.crt"],
    )


def _text(name: str, encoded: Mapping[str, str], plain: Mapping[str, str]) -> str:
    if name in plain:
        return plain[name]
    try:
        return base64.b64decode(encoded.get(name, ""), validate=True).decode("ascii", "replace")
    except binascii.Error:
        return ""


def _labels(text: str) -> set[str]:
    """The labels of the PEM blocks in a text whose content is DER."""
    found: set[str] = set()
    for label, body in _BLOCK.findall(text):
        try:
            der = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error:
            continue
        if der[:1] == bytes([_SEQUENCE]):
            found.add(label)
    return found
