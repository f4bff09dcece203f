"""Run inside a workload: mutual TLS with itself by `spiffe-tls`, handshake after handshake, through three certificates."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from OpenSSL import SSL
from spiffe import SpiffeId, WorkloadApiClient, X509Source
from spiffetls import create_ssl_context, dial
from spiffetls.tlsconfig.authorize import authorize_id

ADDRESS = ("127.0.0.1", 17443)


def main() -> None:
    """Prints what was seen as JSON; the argument is the SPIFFE ID that the workload is to have."""
    expected = SpiffeId(sys.argv[1])
    source = X509Source()
    listener = socket.create_server(ADDRESS)
    failed: list[str] = []

    def serve() -> None:
        while True:
            accepted, _ = listener.accept()
            # A context for each: pyOpenSSL changes none that was in use, so that `listen` goes on with an old certificate.
            context = create_ssl_context(SSL.TLS_SERVER_METHOD, source, authorize_id(expected))
            connection = SSL.Connection(context, accepted)
            connection.set_accept_state()
            try:
                connection.do_handshake()
                connection.sendall(b"hello")
                connection.shutdown()
            except SSL.Error as error:
                failed.append(repr(error))

    threading.Thread(target=serve, daemon=True).start()
    serials: set[int] = set()
    served: set[int] = set()
    calls = 0
    began = time.monotonic()
    deadline = began + 90
    while (len(served) <= 3 or time.monotonic() - began < 25) and time.monotonic() < deadline:
        connection = dial(f"{ADDRESS[0]}:{ADDRESS[1]}", source, authorize_fn=authorize_id(expected))
        peer = connection.get_peer_certificate()
        assert peer is not None
        served.add(peer.get_serial_number())
        assert connection.recv(5) == b"hello"
        connection.close()
        serials.add(source.get_x509_context().default_svid.leaf.serial_number)
        calls += 1
        time.sleep(0.05)
    with WorkloadApiClient() as client:
        token = client.fetch_jwt_svid(audience={"shop", "bank"})
        checked = client.validate_jwt_svid(token.token, "bank")
        try:
            client.validate_jwt_svid(token.token, "thief")
            foreign = "taken"
        except Exception as error:
            foreign = str(error)
        bundles = client.fetch_jwt_bundles()
        key = bundles.get_bundle_for_trust_domain(expected.trust_domain)
    seen = {
        "calls": calls,
        "failed": failed,
        "serials": len(serials),
        "served": len(served),
        "identity": str(source.get_x509_context().default_svid.spiffe_id),
        "token": str(checked.spiffe_id),
        "foreign": foreign,
        "jwt_authorities": len(key.jwt_authorities) if key is not None else 0,
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
