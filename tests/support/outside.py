"""Servers outside the mesh, on this machine: HTTP, HTTPS, TCP, and a DNS that knows their names."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset

ANYWHERE = "0.0.0.0"  # workloads in their own networks call it


@dataclass
class Outside:
    """What runs, by port."""

    http: int
    https: int
    tcp: int


class _Told(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Says what it was asked, and over what."""
        said = {"host": self.headers.get("Host"), "path": self.path, "tls": isinstance(self.connection, ssl.SSLSocket)}
        said["caller"] = self.headers.get("X-Caller", "")
        body = json.dumps({**said, "client": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Nothing."""


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Speaks first, then says everything again."""
        self.request.sendall(b"outside\n")
        while data := self.request.recv(4096):
            self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def outside(certificate: Path) -> Iterator[Outside]:
    """The servers; `certificate` is a file with a key and a chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain, secure = (ThreadingHTTPServer((ANYWHERE, 0), _Told) for _ in range(2))
    # The handshake is the handler's, in a thread of its own: one that never ends keeps no other caller from being accepted.
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    with ExitStack() as stack:
        servers = (plain, secure, _Server((ANYWHERE, 0), _Echo))
        for server in servers:
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Outside(*(server.server_address[1] for server in servers))


@contextmanager
def resolver(address: str, names: Mapping[str, str]) -> Iterator[None]:
    """DNS at an address, port 53. `names` may have a leading wildcard; whatever is not there does not exist."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((address, 53))
        over = threading.Event()

        def serve() -> None:
            while True:
                question, peer = here.recvfrom(4096)
                if over.is_set():
                    return
                here.sendto(_answer(question, names), peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (address, 53))
            thread.join()


def _answer(question: bytes, names: Mapping[str, str]) -> bytes:
    query = dns.message.from_wire(question)
    asked = query.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    found = names.get(name) or names.get(f"*.{name.partition('.')[2]}")
    reply = dns.message.make_response(query)
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif asked.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(asked.name, 1, "IN", "A", found))
    return reply.to_wire()
