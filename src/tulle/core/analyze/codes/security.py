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
    warning(
        "TUL0311",
        "NotHonoured",
        "A part of the policy cannot be kept as it is written, and more is denied",
        "A policy asks of requests what no proxy here can tell of them. What it would allow for that reason is not allowed; what "
        "it would deny is denied without being asked.",
        "ask for something else: principals, namespaces, ipBlocks, hosts, ports, methods, paths, request.headers[...], "
        "request.auth.claims[...]",
    ),
    warning(
        "TUL0312",
        "NoKeys",
        "There are no keys that tokens could be checked with",
        "A RequestAuthentication has no usable key set, and none came from where it says. While there is none its tokens are "
        "refused; where there was one, that is used on.",
        "look whether the URL answers this control plane, with RSA keys of 2048 bits and more, P-256, P-384, P-521 or Ed25519",
    ),
    error(
        "TUL0313",
        "OwnTrustDomain",
        "The mesh is federated with itself",
        "A trust domain of federatedTrustDomains is the mesh's own, or one of its aliases. The entry has no effect.",
        "name the other trust domain, or remove the entry",
    ),
    error(
        "TUL0314",
        "BadBundle",
        "The trust bundle cannot be used",
        "A trustDomainBundle is not the SPIFFE bundle document of its trust domain. Nothing of it is believed.",
        "take it as the other side prints it: tulle federation bundle",
    ),
    warning(
        "TUL0315",
        "Unguarded",
        "Datagrams reach a workload past its policies",
        "Mutual TLS and AuthorizationPolicies are for TCP. A workload that takes only mutual TLS, or for which a policy says who "
        "gets in, has a UDP port all the same: what comes there is not encrypted, and nobody is asked who he is.",
        "let the application check who calls (DTLS, QUIC, keys of its own), keep others away by a firewall, or do without UDP",
    ),
    warning(
        "TUL0316",
        "StrictIngress",
        "A Sidecar offers TLS at a port that takes only the mesh's",
        "The tls of an ingress listener is for callers from outside the mesh. Under a PeerAuthentication with STRICT the port "
        "takes mutual TLS of the mesh's identities and nothing else, so that nobody can use it.",
        "make an exception for the port: portLevelMtls with mode PERMISSIVE, in a PeerAuthentication that selects the workload",
    ),
)
