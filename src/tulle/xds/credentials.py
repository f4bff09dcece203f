"""TLS for gRPC on both sides of port 15012, with certificates that change while connections go on."""

from __future__ import annotations

from typing import Any

import grpc

# The DNS name in the control plane's certificate. Clients check this one whatever address they dial: a workload's certificate
# has no DNS name at all, so none can pass for the control plane.
SERVER_NAME = "tulle.tulle-system.svc"


class ServerCredentials:
    """The control plane's key and certificates for gRPC; `use` replaces them for handshakes from then on."""

    def __init__(self, key_pem: bytes, chain_pem: bytes, bundle_pem: bytes) -> None:
        self._current = self._configuration(key_pem, chain_pem, bundle_pem)
        self._served = self._current

    def use(self, key_pem: bytes, chain_pem: bytes, bundle_pem: bytes) -> None:
        """Serve this certificate, and trust clients of this bundle. Connections that are open stay."""
        self._current = self._configuration(key_pem, chain_pem, bundle_pem)

    @property
    def grpc(self) -> grpc.ServerCredentials:
        """For `grpc.aio.Server.add_secure_port`. Clients have to present a certificate of the bundle."""
        return grpc.dynamic_ssl_server_credentials(self._served, self._fetch, require_client_authentication=True)

    def _fetch(self) -> Any:
        # Called by gRPC's own threads before each handshake; None means unchanged.
        current = self._current
        if current is self._served:
            return None
        self._served = current
        return current

    @staticmethod
    def _configuration(key: bytes, chain: bytes, bundle: bytes) -> Any:
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=bundle)
