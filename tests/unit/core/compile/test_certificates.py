"""What a Secret or ConfigMap holds for TLS, told without keeping it."""

from __future__ import annotations

import base64

import msgspec
import pytest

from tests.support.certificates import Roots
from tests.unit.core.compile.mesh import obj
from tulle.core.compile.certificates import Certificates, certificates_in
from tulle.core.compile.objects import row_of


def encoded(**files: bytes) -> dict[str, str]:
    return {name.replace("_", "."): base64.b64encode(data).decode() for name, data in files.items()}


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return Roots().leaf("spiffe://cluster.local/ns/default/sa/a")


def test_a_pair_and_authorities(pair: tuple[bytes, bytes]) -> None:
    """A listener with a good certificate would be told that it has none."""
    chain, key = pair
    assert certificates_in(encoded(tls_crt=chain, tls_key=key), {}) == Certificates(pair=True)
    assert certificates_in({}, {"ca.crt": Roots().pem.decode()}) == Certificates(authorities=True)
    assert certificates_in({}, {"tls.crt": chain.decode(), "tls.key": key.decode()}).pair


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tls_crt": b"Hello world\n", "tls_key": b"Hello world\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END PRIVATE KEY-----\n", "tls_key": b"\xff\xfe"},
    ],
)
def test_what_is_none(files: dict[str, bytes]) -> None:
    """A Secret that no Envoy could use would be called resolved."""
    assert certificates_in(encoded(**files), {}) == Certificates()
    assert certificates_in({"tls.crt": "not base64"}, {}) == Certificates()


def test_a_key_alone_is_no_pair(pair: tuple[bytes, bytes]) -> None:
    """A certificate without its key would be called resolved."""
    chain, key = pair
    assert not certificates_in(encoded(tls_crt=chain), {}).pair
    assert not certificates_in(encoded(tls_key=key), {}).pair
    assert not certificates_in(encoded(tls_crt=chain, tls_key=chain), {}).pair


def test_no_key_gets_into_the_tables(pair: tuple[bytes, bytes]) -> None:
    """A private key would be in memory, in dumps and in goldens for as long as its Secret is there."""
    chain, key = pair
    raw = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": encoded(tls_crt=chain, tls_key=key)}
    row = row_of(obj(raw))
    assert msgspec.json.encode(row) == b'{"pair":true,"authorities":false}'
