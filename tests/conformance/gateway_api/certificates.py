"""The Secrets and ConfigMaps that upstream's suite makes by code."""

from __future__ import annotations

import base64
from typing import Any

from tests.conformance.gateway_api.suite import INFRA
from tests.support.apiserver import Ca

Raw = dict[str, Any]

APP, WEB = "gateway-conformance-app-backend", "gateway-conformance-web-backend"
_SERVERS: dict[tuple[str, str], tuple[str, ...]] = {
    (WEB, "certificate"): ("*.example.com",),
    (INFRA, "tls-validity-checks-certificate"): ("*", "*.org"),
    (INFRA, "tls-passthrough-checks-certificate"): ("abc.example.com",),
    (APP, "tls-passthrough-checks-certificate"): ("abc.example.com",),
    (INFRA, "tls-terminate-checks-certificate"): ("tls.example.com",),
    (INFRA, "tls-checks-certificate"): ("abc.example.com", "other.example.com"),
}
_CLIENTS = ("tls-checks-client-certificate",)
_SAN = "spiffe://abc.example.com/test-identity"


class Certificates:
    """All of one run: `backend` signed what backends show, `clients` and `per_port` what clients of Gateways show."""

    def __init__(self) -> None:
        self.backend, self.other, self.clients, self.per_port = Ca(), Ca(), Ca(), Ca()
        self.secrets: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        for place, hosts in _SERVERS.items():
            uris = (_SAN,) if place[1] == "tls-checks-certificate" else ()
            self.secrets[place] = self.backend.issue(hosts[0], hosts=hosts, uris=uris)
        for name in _CLIENTS:
            self.secrets[INFRA, name] = self.backend.issue("client", hosts=("client.example.com",))
        self.authorities = {
            "tls-checks-ca-certificate": self.backend,
            "mismatch-ca-certificate": self.other,
            "tls-validity-checks-ca-certificate": self.clients,
            "tls-validity-checks-per-port-ca-certificate": self.per_port,
        }

    def objects(self) -> list[Raw]:
        """As they are applied."""
        secrets = [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"namespace": namespace, "name": name},
                "data": {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()},
            }
            for (namespace, name), (chain, key) in self.secrets.items()
        ]
        maps = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": INFRA, "name": name},
                "data": {"ca.crt": authority.pem.decode()},
            }
            for name, authority in self.authorities.items()
        ]
        foreign = {"namespace": WEB, "name": "web-backend-cm"}
        maps.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": foreign, "data": {"ca.crt": self.clients.pem.decode()}})
        return [*secrets, *maps]
