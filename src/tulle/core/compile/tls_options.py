"""`tls.options` of a listener of the Gateway API, and `options` of a BackendTLSPolicy: what of TLS that API has no field for.

`gateway.istio.io/tls-terminate-mode` and `gateway.istio.io/tls-cipher-suites` are Istio's, with its words; versions and curves,
for which Istio has no key, are `tulle.dev/...` with the values of Istio's Gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tulle.core.compile.gateway_secrets import authorities_fault, authorities_ref
from tulle.core.compile.handshakes import with_defaults
from tulle.core.compile.istio_tls import CIPHERS, CURVES, version
from tulle.core.compile.mistakes import error, not_yet
from tulle.core.compile.places import Place
from tulle.core.flow import Fetch
from tulle.core.model.gateway import SecretRef, ServerTls
from tulle.kit.problem import Problem, Ref

MODE = "gateway.istio.io/tls-terminate-mode"
CIPHER_SUITES = "gateway.istio.io/tls-cipher-suites"
MINIMUM = "tulle.dev/tls-min-protocol-version"
MAXIMUM = "tulle.dev/tls-max-protocol-version"
ECDH_CURVES = "tulle.dev/tls-ecdh-curves"

# Which values an option may have; of those with several, each.
_KNOWN = {
    MODE: ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"),
    CIPHER_SUITES: CIPHERS,
    MINIMUM: ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"),
    MAXIMUM: ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"),
    ECDH_CURVES: CURVES,
}


# What concerns the server's end alone.
_LISTENERS = (MODE,)


class Parameters(msgspec.Struct, frozen=True):
    """What options say of the protocol itself, as Envoy has it."""

    minimum: str = ""
    maximum: str = ""
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


def parameters(options: Mapping[str, str]) -> Parameters:
    """Versions, cipher suites and curves; those of them that can be acted on."""
    low, high = (next(iter(_said(options, option)), "TLS_AUTO") for option in (MINIMUM, MAXIMUM))
    return Parameters(*version(low, high), _said(options, CIPHER_SUITES), _said(options, ECDH_CURVES))


def _said(options: Mapping[str, str], option: str) -> tuple[str, ...]:
    """The values of an option that can be acted on."""
    words = options.get(option, "").split(",")
    return tuple(word.strip() for word in words if word.strip() in _KNOWN[option])


def with_options(fetch: Fetch, place: Place, tls: ServerTls) -> tuple[ServerTls, str]:
    """TLS as the listener's options want it, and why clients cannot be checked as they say ("" where they can)."""
    options = place.listener.tls.options if place.listener.tls else {}
    chosen = parameters(options)
    mode = next(iter(_said(options, MODE)), "SIMPLE")
    if mode == "ISTIO_MUTUAL":
        alpn = (*tls.alpn, "istio")
        return ServerTls(mesh=True, require=True, alpn=alpn, minimum=chosen.minimum, maximum=chosen.maximum), ""
    tls = msgspec.structs.replace(tls, **msgspec.structs.asdict(chosen))
    tls = with_defaults(fetch, tls)
    if mode == "SIMPLE":
        return tls, ""
    authorities, why = _authorities(fetch, tls)
    return msgspec.structs.replace(tls, authorities=authorities, require=mode == "MUTUAL"), why


def _authorities(fetch: Fetch, tls: ServerTls) -> tuple[SecretRef | None, str]:
    """The certificates that clients are checked with: `ca.crt` beside the server's own."""
    why = ""
    for one in tls.certificates:
        ((kind, *key),) = one.objects
        name = (key[0], key[1])
        wrong = authorities_fault(fetch, kind, name)
        if not wrong:
            return authorities_ref([(kind, name)]), ""
        why = why or f"{wrong}; needed it to check clients, for {MODE} says so"
    return None, why


def option_problems(ref: Ref, place: Place, path: str) -> Iterator[Problem]:
    """Options of a listener that nothing acts on, and values that are none."""
    if tls := place.listener.tls:
        known = () if tls.mode == "Passthrough" else tuple(_KNOWN)
        yield from _problems(ref, tls.options, path, known)


def backend_option_problems(ref: Ref, options: Mapping[str, str]) -> Iterator[Problem]:
    """The same of a BackendTLSPolicy."""
    yield from _problems(ref, options, "spec", tuple(one for one in _KNOWN if one not in _LISTENERS))


def _problems(ref: Ref, options: Mapping[str, str], path: str, known: tuple[str, ...]) -> Iterator[Problem]:
    for option, value in options.items():
        where = f'{path}.options["{option}"]'
        if option not in known:
            yield not_yet(ref, where, option)
            continue
        single = option in (MODE, MINIMUM, MAXIMUM)
        for word in [value.strip()] if single else [word.strip() for word in value.split(",")]:
            if word not in _KNOWN[option]:
                yield error(ref, where, "BadEnum", f'found "{word}"; needed one of {", ".join(_KNOWN[option])}')
