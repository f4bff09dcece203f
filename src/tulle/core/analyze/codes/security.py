"""03xx: mutual TLS, policies and certificates."""

from __future__ import annotations

from tulle.core.analyze.codes.code import error, warning

CODES = (
    error(
        "TUL0301",
        "PlaintextToStrict",
        "Callers are told plaintext, the workload takes only mutual TLS",
        "A DestinationRule says tls.mode DISABLE for workloads whose PeerAuthentication is STRICT. Every connection is cut.",
        "remove trafficPolicy.tls (the mesh picks what each workload takes), or make the PeerAuthentication PERMISSIVE",
        istio="IST0113",
    ),
    error(
        "TUL0302",
        "MutualToPlaintext",
        "Callers are told mutual TLS, the workload takes only plaintext",
        "A DestinationRule says tls.mode ISTIO_MUTUAL for workloads that have no sidecar, or whose PeerAuthentication is "
        "DISABLE. Every connection fails.",
        "remove trafficPolicy.tls (the mesh picks what each workload takes)",
        istio="IST0113",
    ),
    warning(
        "TUL0303",
        "StrictOutsideMesh",
        "STRICT covers workloads outside the mesh",
        "A workload without a sidecar takes no mutual TLS, whatever a PeerAuthentication says, and when it calls a STRICT"
        " workload in plaintext, the connection is cut.",
        "put the workloads into the mesh (tulle run), or make an exception for those whom they call",
    ),
    warning(
        "TUL0304",
        "Conflict",
        "An older policy is for the same workloads",
        "Of several for the same workloads of a namespace one counts, the oldest.",
        "put both into one, or give them different selectors",
        kinds="PeerAuthentication Sidecar Telemetry ProxyConfig",
        istio="IST0110 IST0111 IST0159 IST0160",
    ),
    warning(
        "TUL0305",
        "SelectsNothing",
        "The policy is for no workload",
        "No workload in reach has all the labels of the selector, so that the policy has no effect. One in the root "
        "namespace selects in all namespaces, any other in its own.",
        "correct the labels, or move the policy into the namespace of the workloads",
        istio="IST0127",
    ),
    error(
        "TUL0306",
        "BadCertificate",
        "The Secret is no certificate with a key",
        "A Secret of type kubernetes.io/tls has a certificate in tls.crt and its key in tls.key, both in PEM.",
        "make it anew: kubectl create secret tls NAME --cert=FILE --key=FILE",
    ),
    error(
        "TUL0307",
        "KeyMismatch",
        "The key is not the certificate's",
        "The key in tls.key does not belong to the first certificate in tls.crt. No TLS connection would succeed.",
        "use the key with which the certificate was asked for; in tls.crt the server's own certificate stands first",
    ),
    error(
        "TUL0308",
        "CertificateNotValid",
        "The certificate is not valid now",
        "The certificate has ended, or its time has not come. Clients refuse it.",
        "renew it; if it is new, look at the clock of this machine",
    ),
    warning(
        "TUL0309",
        "CertificateEnds",
        "The certificate ends soon",
        "The certificate ends within 30 days.",
        "renew it",
    ),
    warning(
        "TUL0310",
        "SecretUnusable",
        "The Secret that is named has no certificate",
        "A Gateway or a DestinationRule names a Secret that is not of type kubernetes.io/tls and has neither tls.crt and "
        "tls.key nor cert and key.",
        "make it with: kubectl create secret tls NAME --cert=FILE --key=FILE",
        istio="IST0161",
    ),
)
