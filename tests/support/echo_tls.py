"""TLS of the echo server: its context, and what it tells of a connection."""

from __future__ import annotations

import ssl
import tempfile
import weakref
from typing import Any

_ASKED: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def context(certificate: bytes, key: bytes, clients: bytes = b"") -> ssl.SSLContext:
    """A server's context from PEM; with `clients`, authorities whose clients' certificates are told (one may be absent)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + b"\n" + certificate)
        file.flush()
        made.load_cert_chain(file.name)
    if clients:
        made.verify_mode = ssl.CERT_OPTIONAL
        made.load_verify_locations(cadata=clients.decode())
    made.sni_callback = _remember
    return made


def _remember(socket: Any, name: str | None, _context: ssl.SSLContext) -> None:
    _ASKED[socket] = name or ""


def details(socket: Any) -> dict[str, Any] | None:
    """Of a connection's `ssl_object`; None of one without TLS."""
    if socket is None:
        return None
    cipher = socket.cipher()
    found = {"version": socket.version(), "serverName": _ASKED.get(socket, ""), "cipherSuite": cipher[0] if cipher else ""}
    if protocol := socket.selected_alpn_protocol():
        found["negotiatedProtocol"] = protocol
    if certificate := socket.getpeercert(binary_form=True):
        found["peerCertificates"] = [ssl.DER_cert_to_PEM_cert(certificate)]
    return found
