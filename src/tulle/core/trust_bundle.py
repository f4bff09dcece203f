"""Trust bundles: what a trust domain's certificates and tokens are checked with, as the SPIFFE standard writes it down.

A document is a JWK set: entries with `use: x509-svid` carry a root certificate (`x5c`), those with `use: jwt-svid` the public
key of tokens. "SPIFFE Trust Domain and Bundle" §4 says what is in it; an entry of another use is none of ours and left out.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

# How tokens may be signed: what the JWT-SVID standard allows, and so never `none` or a shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")

REFRESH = 300.0  # seconds between two looks at a bundle that does not say how long it is good for
_MOST = 1000  # entries
_KID = 512  # characters
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


class TrustBundle(msgspec.Struct, frozen=True):
    """Of one trust domain: `authorities` are its roots (PEM, one each), `keys` the public JWKs of its tokens.

    `sequence` grows with each change, where its publisher counts; `refresh` is after how many seconds to look again.
    """

    trust_domain: str
    authorities: tuple[str, ...] = ()
    keys: tuple[dict[str, Any], ...] = ()
    sequence: int = 0
    refresh: float = REFRESH

    @property
    def pem(self) -> str:
        """All roots in one text."""
        return "".join(self.authorities)

    @property
    def der(self) -> bytes:
        """All roots, one after the other, as the Workload API has them."""
        return (
            b"".join(one.public_bytes(serialization.Encoding.DER) for one in x509.load_pem_x509_certificates(self.pem.encode()))
            if self.authorities
            else b""
        )

    @property
    def jwks(self) -> bytes:
        """The keys of tokens as a JWK set."""
        return json.dumps({"keys": list(self.keys)}, sort_keys=True).encode()


def is_trust_domain(name: str) -> bool:
    """Whether a text is the name of a trust domain, without a scheme."""
    return _TRUST_DOMAIN.fullmatch(name) is not None


def split(pem: bytes) -> tuple[str, ...]:
    """The certificates of a text, one text each; none where there are none."""
    found = x509.load_pem_x509_certificates(pem) if pem.strip() else []
    return tuple(one.public_bytes(serialization.Encoding.PEM).decode() for one in found)


def document(bundle: TrustBundle) -> bytes:
    """The bundle as the standard has it."""
    keys = [_of_root(root) for root in bundle.authorities] + [{**key, "use": "jwt-svid"} for key in bundle.keys]
    body = {"spiffe_sequence": bundle.sequence, "spiffe_refresh_hint": max(1, int(bundle.refresh)), "keys": keys}
    return json.dumps(body, sort_keys=True).encode()


def parse(data: bytes | str, trust_domain: str) -> TrustBundle:
    """The bundle in a document; raises ValueError in the words "field: found, needed", for it is believed whole or not at all."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("found something that is not JSON, needed a SPIFFE bundle") from error
    return read(said, trust_domain)


def read(said: Any, trust_domain: str) -> TrustBundle:
    """As `parse`, of a document that is read already."""
    if not isinstance(said, Mapping) or not isinstance(said.get("keys"), list):
        raise ValueError("keys: found none, needed a list, as a SPIFFE bundle has it")
    if len(said["keys"]) > _MOST:
        raise ValueError(f"keys: found {len(said['keys'])} entries, needed at most {_MOST}")
    authorities: list[str] = []
    keys: dict[str, dict[str, Any]] = {}
    for index, key in enumerate(said["keys"]):
        use = key.get("use") if isinstance(key, Mapping) else None
        if use == "x509-svid":
            authorities.append(_root(key, f"keys[{index}]", trust_domain))
        elif use == "jwt-svid":
            public = _token_key(key, f"keys[{index}]")
            if public["kid"] in keys:
                raise ValueError(f"keys[{index}].kid: found a second key of one name, needed different ones")
            keys[public["kid"]] = public
    return TrustBundle(
        trust_domain=trust_domain,
        authorities=tuple(dict.fromkeys(authorities)),
        keys=tuple(keys.values()),
        sequence=_number(said, "spiffe_sequence", 0),
        refresh=float(_number(said, "spiffe_refresh_hint", int(REFRESH))),
    )


def public_key(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> dict[str, Any]:
    """A public key as a JWK, without a name and a use."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return dict(jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True))
    found = dict(jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True))
    return {name: found[name] for name in ("kty", "n", "e")}


def changed(old: TrustBundle | None, new: TrustBundle) -> bool:
    """Whether another bundle trusts something else."""
    return old is None or (old.authorities, old.keys) != (new.authorities, new.keys)


def key_of(bundles: Iterable[TrustBundle], trust_domain: str, kid: str) -> Mapping[str, Any] | None:
    """The key that a token of a trust domain names, or None."""
    for bundle in bundles:
        if bundle.trust_domain == trust_domain:
            return next((key for key in bundle.keys if key["kid"] == kid), None)
    return None


def _of_root(pem: str) -> dict[str, Any]:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = certificate.public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise ValueError("found a root with a key of another kind, needed ECDSA or RSA")
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {**public_key(key), "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}


def _root(key: Mapping[str, Any], path: str, trust_domain: str) -> str:
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise ValueError(f"{path}.x5c: needed exactly one certificate")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        extensions = certificate.extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        names = [name.value for one in extensions if isinstance(one.value, x509.SubjectAlternativeName) for name in one.value]
    except (ValueError, binascii.Error, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise ValueError(f"{path}.x5c: found something else, needed the base64 of an authority's certificate") from error
    if not basic.ca:
        raise ValueError(f"{path}.x5c: found a certificate that is no authority's")
    foreign = [name for name in names if str(name).startswith("spiffe://") and name != f"spiffe://{trust_domain}"]
    if foreign:
        raise ValueError(f"{path}.x5c: found the authority of {str(foreign[0])[:200]}, needed that of spiffe://{trust_domain}")
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _token_key(key: Mapping[str, Any], path: str) -> dict[str, Any]:
    kid = key.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _KID:
        raise ValueError(f"{path}.kid: needed a name of 1 to {_KID} characters")
    public = {name: key[name] for name in ("kty", "kid", "crv", "x", "y", "n", "e") if name in key}
    try:
        made = jwt.PyJWK({**public, "alg": _algorithm(public)})
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: found something else, needed a public key: EC (P-256, P-384, P-521) or RSA") from error
    if isinstance(made.key, rsa.RSAPublicKey) and made.key.key_size < 2048:
        raise ValueError(f"{path}: found an RSA key of {made.key.key_size} bits, needed 2048 or more")
    return public


def _algorithm(key: Mapping[str, Any]) -> str:
    """One that goes with the key, for its parser."""
    curves = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
    return "RS256" if key["kty"] == "RSA" else curves[key["crv"]]


def _number(said: Mapping[str, Any], name: str, default: int) -> int:
    found = said.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**63:
        raise ValueError(f"{name}: found {str(found)[:50]!r}, needed a whole number that is not negative")
    return found
