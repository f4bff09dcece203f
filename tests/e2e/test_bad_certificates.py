"""Certificates that are none of this mesh's, at everything that takes one."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.e2e.test_mtls import address
from tests.support.mesh import Mesh, fetch
from tulle.control.ca import certificates
from tulle.control.ca.authority import Authority
from tulle.control.store.sealed import Keys

_PRODUCTPAGE = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
_NODE = "spiffe://cluster.local/node/demo"


def _made(mesh: Mesh, kind: str, identity: str, path: Path) -> Path:
    """A key and certificate which is that of `identity` but for one thing."""
    state = mesh.home / "state" / "demo"
    issuer = Authority.open(state / "ca", seal=Keys.of_folder(state)).active
    key, now = certificates.make_key(), time.time()
    lifetime, signing = 600.0, issuer.key
    if kind == "another trust domain":
        identity = identity.replace("cluster.local", "evil.example")
    if kind == "wrong key":
        signing = certificates.make_key()
    if kind == "expired":  # nothing begins before the root: it has ended since
        now, lifetime = issuer.certificate.not_valid_before_utc.timestamp(), 2.0
    begin = now + 3600 if kind == "not yet valid" else now
    leaf = certificates.make_leaf(issuer.certificate, signing, key.public_key(), begin, lifetime, uri=identity)
    if kind == "not yet valid":  # the template begins with the root at the earliest, which is before now
        assert leaf.not_valid_before_utc.timestamp() > now
    path.write_bytes(certificates.key_pem(key) + certificates.pem(leaf))
    return path


def _spoken(where: tuple[str, int], file: Path, words: bytes, alpn: str) -> bytes:
    """What comes back on a connection with that certificate; nothing where it is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    context.load_cert_chain(file)
    try:
        with context.wrap_socket(socket.create_connection(where, 5)) as one:
            one.settimeout(5)
            one.sendall(words)
            return one.recv(1000)
    except OSError:
        return b""


@pytest.mark.parametrize("kind", ["expired", "not yet valid", "another trust domain", "wrong key"])
def test_it_is_refused_everywhere(mesh: Mesh, tmp_path: Path, kind: str) -> None:
    """Broken: a certificate that is not good lets somebody into a workload, the API server or the xDS server."""
    get = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    sidecar, api, xds = (address(mesh, "reviews-v1"), 9080), ("127.0.0.1", mesh.api_port), ("127.0.0.1", mesh.xds_port)
    good = _made(mesh, "good", _PRODUCTPAGE, tmp_path / "good.pem")
    assert b"200 OK" in _spoken(sidecar, good, get % b"reviews/0", "http/1.1")
    bad = _made(mesh, kind, _PRODUCTPAGE, tmp_path / "bad.pem")
    assert _spoken(sidecar, bad, get % b"reviews/0", "http/1.1") == b""

    node = _made(mesh, "good", _NODE, tmp_path / "node.pem")
    assert b"200 OK" in _spoken(api, node, get % b"api/v1/namespaces", "http/1.1")
    assert _spoken(xds, node, preface, "h2") != b""
    bad = _made(mesh, kind, _NODE, tmp_path / "badnode.pem")
    if kind == "another trust domain":  # of our root, so that TLS lets it in: as nobody
        assert b"401 " in _spoken(api, bad, get % b"api/v1/namespaces", "http/1.1")
    else:
        assert _spoken(api, bad, get % b"api/v1/namespaces", "http/1.1") == b""
        assert _spoken(xds, bad, preface, "h2") == b""
        log = (mesh.home / "state" / "demo" / "control-plane.log").read_text()
        assert "a client certificate is refused" in log
        assert "tulle_handshakes_refused_total" in mesh.kubectl("get", "--raw", "/metrics").out
    assert {one.status for one in fetch(f"{mesh.base}/productpage", 5)} == {200}
