"""`tls` of a server of Istio's Gateway → TLS at the gateway, and what of it cannot be served.

Secrets are read where the gateway workload is, as Istio does: whoever may run a gateway in a namespace has its certificates.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio.gateway import Server, ServerTLS
from tulle.core.compile.gateway_secrets import authorities_fault, authorities_ref, pair_fault, pair_ref
from tulle.core.compile.handshakes import with_defaults
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import meant, not_yet, unsaid, warning
from tulle.core.compile.objects import secrets
from tulle.core.flow import Fetch
from tulle.core.model.gateway import SecretRef, ServerTls
from tulle.kit.problem import Problem, Ref

_ENDING = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
ENDED_BY_SIDECARS = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")
# What this build of Envoy knows; it refuses a listener that names another.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
)
CURVES = ("X25519MLKEM768", "X25519", "P-256", "P-384", "P-521")
_SAID = (
    "https_redirect",
    "mode",
    "credential_name",
    "credential_names",
    "server_certificate",
    "private_key",
    "ca_certificates",
    "ca_crl",
    "tls_certificates",
    "ca_cert_credential_name",
    "subject_alt_names",
    "verify_certificate_spki",
    "verify_certificate_hash",
    "min_protocol_version",
    "max_protocol_version",
    "cipher_suites",
    "ecdh_curves",
)


def ends(server: Server) -> bool:
    """Whether a server's TLS ends at the gateway."""
    return server.tls is not None and server.tls.mode in _ENDING and server.port.protocol.upper() in ("HTTPS", "TLS")


def passes(server: Server) -> bool:
    """Whether a server passes TLS through as it is."""
    said = server.tls
    passing = said is not None and said.mode == "PASSTHROUGH" and not said.https_redirect
    return passing and server.port.protocol.upper() in ("HTTPS", "TLS")


def passes_by_itself(server: Server) -> bool:
    """Whether a server passes mutual TLS of the mesh on to whatever service its server name says."""
    return server.tls is not None and server.tls.mode == "AUTO_PASSTHROUGH" and server.port.protocol.upper() in ("HTTPS", "TLS")


def server_tls(fetch: Fetch, server: Server, namespace: str) -> ServerTls | None:
    """TLS of a server at a gateway workload in `namespace`; None where it cannot be served."""
    return served(fetch, server.tls, namespace, http=server.port.protocol.upper() == "HTTPS") if server.tls else None


def served(fetch: Fetch, said: ServerTLS, namespace: str, *, http: bool) -> ServerTls | None:
    """TLS that ends at a proxy in `namespace`, with HTTP in it or bytes; None where it cannot be served."""
    alpn = ("h2", "http/1.1") if http else ()
    low, high = version(said.min_protocol_version, said.max_protocol_version)
    if said.mode == "ISTIO_MUTUAL":
        return ServerTls(mesh=True, require=True, alpn=(*alpn, "istio"), minimum=low, maximum=high)
    pairs = [pair_ref((namespace, name)) for name in names(said) if not pair_fault(fetch, (namespace, name))]
    pairs += (_files(*paths) for paths in _pairs_of_files(said))
    authorities = None
    if said.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
        if files := _authority_files(said):
            authorities = _files(*files, authorities=True)
        else:
            found = _authorities(fetch, said, namespace)
            authorities = found if isinstance(found, SecretRef) else None
        if authorities is None:
            return None
    if not pairs:
        return None
    served = ServerTls(
        certificates=tuple(dict.fromkeys(pairs)),
        authorities=authorities,
        require=said.mode == "MUTUAL",
        names=said.subject_alt_names if authorities else (),
        spki=said.verify_certificate_spki if authorities else (),
        hashes=said.verify_certificate_hash if authorities else (),
        minimum=low,
        maximum=high,
        ciphers=tuple(one for one in said.cipher_suites if one in CIPHERS),
        curves=tuple(one for one in said.ecdh_curves if one in CURVES),
        alpn=alpn,
    )
    return with_defaults(fetch, served)


def _files(*paths: str, authorities: bool = False) -> SecretRef:
    return SecretRef(tuple(("File", "", path) for path in paths), authorities)


def _pairs_of_files(said: ServerTLS) -> Iterator[tuple[str, str]]:
    if said.server_certificate and said.private_key:
        yield said.server_certificate, said.private_key
    for one in said.tls_certificates or ():
        if one.server_certificate and one.private_key:
            yield one.server_certificate, one.private_key


def _authority_files(said: ServerTLS) -> tuple[str, ...]:
    """The file with the authorities of clients, and the one with what they revoked."""
    named = (said.ca_certificates, *(one.ca_certificates for one in said.tls_certificates or ()))
    file = next(filter(None, named), "")
    return tuple(filter(None, (file, said.ca_crl))) if file else ()


def names(said: ServerTLS) -> tuple[str, ...]:
    """The Secrets with the server's certificates."""
    return (said.credential_name,) if said.credential_name else said.credential_names or ()


def version(minimum: str, maximum: str) -> tuple[str, str]:
    """Both as Envoy has them. A maximum below Envoy's own minimum brings that down with it."""
    low, high = ("" if one == "TLS_AUTO" else one.replace("TLSV", "TLSv") for one in (minimum, maximum))
    return (low or high, high) if high in ("TLSv1_0", "TLSv1_1") else (low, high)


def _authorities(fetch: Fetch, said: ServerTLS, namespace: str) -> SecretRef | str:
    """The certificates that clients are checked with: of a Secret of their own, of NAME-cacert, or beside the server's."""
    if said.ca_cert_credential_name:
        candidates = [said.ca_cert_credential_name]
    else:
        candidates = [one for name in names(said) for one in (f"{name}-cacert", name)]
    for name in candidates:
        if not authorities_fault(fetch, "Secret", (namespace, name)):
            return authorities_ref([("Secret", (namespace, name))])
    return authorities_fault(fetch, "Secret", (namespace, candidates[-1])) if candidates else "no Secret is named"


def problems(fetch: Fetch, ref: Ref, server: Server, path: str, namespaces: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with a server's TLS, for the gateway workloads in `namespaces`, and what of it has no effect."""
    if server.tls is not None:
        yield from problems_of(fetch, ref, server.tls, path, namespaces, ending=ends(server))


def problems_of(
    fetch: Fetch, ref: Ref, said: ServerTLS, path: str, namespaces: tuple[str, ...], *, ending: bool
) -> Iterator[Problem]:
    """The same of any proxy's TLS that ends there, or (not `ending`) does not."""
    yield from unsaid(ref, said, path, _SAID)
    if said.ca_crl and not _authority_files(said):
        yield not_yet(ref, f"{path}.caCrl", "caCrl without caCertificates")
    if not ending or said.mode == "ISTIO_MUTUAL":
        return
    for namespace in namespaces or (ref.namespace,):
        for field, name in fields(said):
            yield from _pair(fetch, ref, f"{path}.{field}", (namespace, name))
        if said.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and names(said):
            yield from _roots(fetch, ref, said, path, namespace)
    for field, values, known in (("cipherSuites", said.cipher_suites, CIPHERS), ("ecdhCurves", said.ecdh_curves, CURVES)):
        for index, value in enumerate(values):
            if value not in known:
                yield not_yet(ref, f"{path}.{field}[{index}]", value)


def fields(said: ServerTLS) -> Iterator[tuple[str, str]]:
    """The Secrets with the server's certificates, each by the field that names it."""
    if said.credential_name:
        yield "credentialName", said.credential_name
    yield from ((f"credentialNames[{index}]", name) for index, name in enumerate(said.credential_names or ()))


def _pair(fetch: Fetch, ref: Ref, path: str, key: Key) -> Iterator[Problem]:
    if fetch(secrets, key) is None:
        near = meant(key[1], (name for space, name in fetch.keys(secrets) if space == key[0]))
        yield warning(ref, path, "SecretNotFound", f"no Secret {key[1]} in namespace {key[0]}{near}")
    elif message := pair_fault(fetch, key):
        yield warning(ref, path, "SecretUnusable", f"{message}; it is not served")


def _roots(fetch: Fetch, ref: Ref, said: ServerTLS, path: str, namespace: str) -> Iterator[Problem]:
    if not isinstance(_authorities(fetch, said, namespace), str):
        return
    name = said.ca_cert_credential_name
    if name:
        missing = fetch(secrets, (namespace, name)) is None
        message = authorities_fault(fetch, "Secret", (namespace, name))
        reason = "SecretNotFound" if missing else "SecretUnusable"
        yield warning(ref, f"{path}.caCertCredentialName", reason, f"{message}; needed it to check clients: nothing is served")
        return
    name = names(said)[0]
    if fetch(secrets, (namespace, f"{name}-cacert")) is not None:
        message = authorities_fault(fetch, "Secret", (namespace, f"{name}-cacert"))
        yield warning(ref, f"{path}.credentialName", "SecretUnusable", f"{message}; needed it to check clients")
    elif fetch(secrets, (namespace, name)) is not None:
        message = f"Secret {namespace}/{name} has no ca.crt, and there is no Secret {name}-cacert"
        yield warning(ref, f"{path}.credentialName", "SecretNotFound", f"{message}; needed one of the two to check clients")
