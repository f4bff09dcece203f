"""Findings of texts, as `tulle analyze` has them: read, decoded, and judged beside Bookinfo."""

from __future__ import annotations

import base64
import datetime
import tempfile
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.core.compile.mesh import bookinfo
from tulle.cli.files import read
from tulle.core.analyze.analysis import analyze
from tulle.core.analyze.finding import Finding, finding, in_order
from tulle.core.analyze.inputs import Scope
from tulle.kit.problem import Ref

NOW = 1_800_000_000.0
_DAY = 24 * 3600.0

# A code → a text that has it, and one as like as can be that has not.
Cases = dict[str, tuple[str | bytes, str | bytes]]

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s}
spec: {hosts: [reviews], http: %s}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %s}
spec: {host: reviews, %s}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: %s}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["%s"]}]}
"""
HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec: {parentRefs: [%s], rules: %s}
"""
API_GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s}
spec: {gatewayClassName: tulle, listeners: [{name: http, port: 80, protocol: HTTP%s}]}
"""
SERVICE_PARENT = '{group: "", kind: Service, name: reviews, port: 9080}'
TO_REVIEWS = "[{backendRefs: [{name: reviews-v1, port: 9080}]}]"


def found(
    text: str | bytes,
    *,
    namespace: str = "default",
    insist: bool = False,
    live: bool = True,
    beside: bool = True,
    now: float = NOW,
) -> list[Finding]:
    """The findings of the objects in a text, `beside` Bookinfo."""
    with tempfile.TemporaryDirectory(prefix="tulle-analyze-") as folder:
        file = Path(folder) / "in.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        given, problems = read([str(file)], namespace, insist=insist)
    objects = [*(bookinfo() if beside else ()), *(item.object for item in given)]
    mine: set[Ref | None] = {item.ref for item in given}
    judged = [one for one in analyze(objects, Scope(now, live)) if one.ref in mine]
    said = {(one.ref, one.path, one.reason, one.message) for one in problems}
    more = [one for one in judged if (one.ref, one.path, one.reason, one.message) not in said]
    return in_order([finding(one) for one in (*problems, *more)])


def codes(text: str | bytes) -> list[str]:
    """Their codes."""
    return [one.code for one in found(text)]


def secret(certificate: str, key: str, kind: str = "kubernetes.io/tls", name: str = "cert") -> str:
    """A Secret with a certificate."""
    data = {"tls.crt": certificate, "tls.key": key}
    lines = "".join(f"\n  {field}: {base64.b64encode(text.encode()).decode()}" for field, text in data.items() if text)
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: {kind}\ndata: {lines or '{}'}\n"


@cache
def pair(begins: float = -1.0, ends: float = 365.0) -> tuple[str, str]:
    """A certificate and its key; valid from and to so many days after NOW."""
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime.fromtimestamp(NOW + begins * _DAY, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(NOW + ends * _DAY, datetime.UTC))
        .sign(own, hashes.SHA256())
    )
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), key.decode()
