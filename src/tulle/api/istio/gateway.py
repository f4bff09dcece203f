"""Istio's Gateway: the ports on which selected gateway workloads listen, and for which hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import host_fault, is_ip
from tulle.api.istio.status import IstioStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import distinct
from tulle.api.values import Many, Map, Nullable, UInt32

Tls = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]
PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "REDIS", "MYSQL", "TCP", "TLS", "HTTP_PROXY")
_HASH = re.compile("[0-9a-fA-F]{64}|([0-9a-fA-F]{2}:){31}[0-9a-fA-F]{2}")
_SPKI = re.compile("[A-Za-z0-9+/]{43}=")


class GatewayPort(Ruled):
    """A port to listen on."""

    number: UInt32
    protocol: str
    name: str
    target_port: UInt32 | None = None  # older; not read

    def faults(self) -> Iterator[Fault]:
        """A port number and a known protocol."""
        if not 1 <= self.number <= 65535:
            yield Fault(("number",), f"found {self.number}; needed a port from 1 to 65535")
        if self.protocol.upper() not in PROTOCOLS:
            yield Fault(("protocol",), f'found "{self.protocol}"; needed one of {", ".join(PROTOCOLS)}', "BadEnum")
        if not self.name:
            yield Fault(("name",), "found nothing; needed a name", "Required")


class TLSCertificate(Schema):
    """A certificate by files."""

    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTLS(Ruled):
    """TLS towards clients."""

    https_redirect: bool = False
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = "PASSTHROUGH"
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: Annotated[Many[str], Field(min_length=1, max_length=2)] | None = None
    ca_cert_credential_name: str = ""
    tls_certificates: Annotated[Many[TLSCertificate], Field(min_length=1, max_length=2)] | None = None
    subject_alt_names: Many[str] = ()
    verify_certificate_spki: Many[str] = ()
    verify_certificate_hash: Many[str] = ()
    min_protocol_version: Tls = "TLS_AUTO"
    max_protocol_version: Tls = "TLS_AUTO"
    cipher_suites: Many[str] = ()
    ecdh_curves: Many[str] = ()
    insecure_skip_verify: Nullable[bool] = None

    def faults(self) -> Iterator[Fault]:
        """One source of certificates, and what the mode needs."""
        sources = {
            "credentialName": bool(self.credential_name),
            "credentialNames": bool(self.credential_names),
            "tlsCertificates": bool(self.tls_certificates),
            "serverCertificate": bool(self.server_certificate or self.private_key),
        }
        found = [name for name, is_there in sources.items() if is_there]
        if len(found) > 1:
            yield Fault((), f"found {' and '.join(found)}; needed one source of certificates", "OneOf")
        if self.mode == "ISTIO_MUTUAL":
            for name in found:
                yield Fault((name,), "found it with mode ISTIO_MUTUAL; needed nothing, for the mesh has its own certificates")
        elif self.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
            if not found:
                yield Fault(
                    (),
                    f"found no certificate; needed credentialName or serverCertificate, for the mode is {self.mode}",
                    "Required",
                )
            files = {"serverCertificate": self.server_certificate, "privateKey": self.private_key}
            if self.mode != "SIMPLE":
                files["caCertificates"] = self.ca_certificates
            if "serverCertificate" in found:
                for field, value in files.items():
                    if not value:
                        yield Fault((field,), f"found nothing; needed a file, for the mode is {self.mode}", "Required")
        order = ("TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
        low, high = self.min_protocol_version, self.max_protocol_version
        if low in order and high in order and order.index(low) > order.index(high):
            yield Fault(("minProtocolVersion",), f"found {low}, above maxProtocolVersion {high}; needed at most that")
        for index, text in enumerate(self.verify_certificate_hash):
            if not _HASH.fullmatch(text):
                yield Fault(("verifyCertificateHash", index), f'found "{text}"; needed a SHA-256 hash in hex')
        for index, text in enumerate(self.verify_certificate_spki):
            if not _SPKI.fullmatch(text):
                yield Fault(("verifyCertificateSpki", index), f'found "{text}"; needed a SHA-256 hash in base64')


class Server(Ruled):
    """A port and the hosts that are served on it."""

    port: GatewayPort
    hosts: Many[str]
    tls: ServerTLS | None = None
    bind: str = ""
    default_endpoint: str = ""  # older; not read
    name: str = ""

    def faults(self) -> Iterator[Fault]:
        """Hosts (`namespace/host` too), and TLS where the protocol has it."""
        if not self.hosts:
            yield Fault(("hosts",), 'found none; needed at least one host, or "*"', "Required")
        for index, host in enumerate(self.hosts):
            namespace, slash, name = host.rpartition("/")
            if slash and not (namespace in (".", "*") or all(part.isalnum() or part == "-" for part in namespace)):
                yield Fault(("hosts", index), f'found "{host}"; needed "host" or "namespace/host"', "BadHost")
            yield from host_fault(name, "hosts", index)
        protocol = self.port.protocol.upper()
        if protocol in ("HTTPS", "TLS") and self.tls is None:
            yield Fault(("tls",), f"found nothing; needed TLS settings, for the protocol is {protocol}", "Required")
        if protocol == "HTTP" and self.tls is not None and not self.tls.https_redirect:
            yield Fault(("tls",), "found TLS settings on an HTTP port; needed the protocol HTTPS, or httpsRedirect: true")
        if self.tls is not None and self.tls.https_redirect and protocol not in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB"):
            yield Fault(("tls", "httpsRedirect"), f"found it on a port of {protocol}; needed it on an HTTP port")
        if self.bind and not is_ip(self.bind) and not self.bind.startswith("unix://"):
            yield Fault(("bind",), f'found "{self.bind}"; needed an IP address')
        if self.name and not all(part.isalnum() or part in "-._" for part in self.name):
            yield Fault(("name",), f'found "{self.name}"; needed a name of letters, digits, "-", "." and "_"', "BadName")


class GatewaySpec(Ruled):
    """Servers on the gateway workloads that have the labels of `selector`."""

    selector: Map[str] = Field(default_factory=dict)
    servers: Many[Server] = ()

    def faults(self) -> Iterator[Fault]:
        """Servers, each port's name only once."""
        if not self.servers:
            yield Fault(("servers",), "found none; needed at least one server", "Required")
        names: dict[str, int] = {}
        for index, server in enumerate(self.servers):
            first = names.setdefault(server.port.name, index)
            if first != index:
                message = f'found "{server.port.name}", which servers[{first}] has too; needed a port name of its own'
                yield Fault(("servers", index, "port", "name"), message, "Duplicate")
        yield from distinct(self.servers, lambda server: server.name or None, ("servers",), "name")


class Gateway(Object):
    """Istio's Gateway."""

    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
    status: IstioStatus | None = None
