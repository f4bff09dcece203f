"""Envoy's format of access logs: whether a proxy takes it, and whether it would write down what lets somebody in.

A proxy refuses the whole of a listener for one format that it cannot take, so that is told here. A command is `%NAME%`,
`%NAME(ARGUMENT)%` or `%NAME(ARGUMENT):LENGTH%`; `%%` is a percent sign. Not taken are commands that give what no log should have
(`ENVIRONMENT`, `QUERY_PARAM`), or that nothing here tells right from wrong (`CEL`).
"""

from __future__ import annotations

import re

_COMMAND = re.compile(r"%([A-Z0-9_]+)(?:\(([^)]*)\))?(?::([0-9]{1,9}))?%")
TIMES = {"START_TIME", "EMIT_TIME", "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END"}
_ENDS = ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")
_SANS = ("URI_SAN", "DNS_SAN", "IP_SAN")
_OF_PEERS = ("ISSUER", "SERIAL", "FINGERPRINT_1", "FINGERPRINT_256", "CERT")
_TLS = ("VERSION", "CIPHER", "SESSION_ID")
_PLAIN_WORDS = """
ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_SENT BYTES_RETRANSMITTED CONNECTION_ID CONNECTION_TERMINATION_DETAILS
DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_TRANSPORT_FAILURE_REASON
DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION FILTER_CHAIN_NAME GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME
PROTOCOL
REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESPONSE_CODE RESPONSE_CODE_DETAILS
RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION
ROUNDTRIP_DURATION ROUTE_NAME STREAM_ID TRACE_ID UNIQUE_ID UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID
UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_PROTOCOL UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TRANSPORT_FAILURE_REASON
UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME
"""
# Without an argument.
PLAIN = frozenset(
    (
        *_PLAIN_WORDS.split(),
        *(f"{of}_{end}" for of in ("DOWNSTREAM_REMOTE", "DOWNSTREAM_DIRECT_REMOTE", "DOWNSTREAM_LOCAL") for end in _ENDS),
        *(f"{of}_{end}" for of in ("UPSTREAM_REMOTE", "UPSTREAM_LOCAL") for end in _ENDS),
        *(f"DOWNSTREAM_{end}_{name}" for end in ("PEER", "LOCAL") for name in (*_SANS, "EMAIL_SAN", "SUBJECT")),
        *(f"UPSTREAM_{end}_{name}" for end in ("PEER", "LOCAL") for name in _SANS),
        "UPSTREAM_PEER_SUBJECT",
        *(f"DOWNSTREAM_PEER_{name}" for name in _OF_PEERS),
        *(f"{of}_TLS_{name}" for of in ("DOWNSTREAM", "UPSTREAM") for name in _TLS),
    )
)
_NAME = r"[A-Za-z0-9_:.\-]+"
# With one, of this form.
ARGUED = {
    **dict.fromkeys(("REQ", "RESP", "TRAILER", "REQ_WITHOUT_QUERY"), re.compile(rf"{_NAME}(\?{_NAME})?")),
    **dict.fromkeys(
        ("DYNAMIC_METADATA", "CLUSTER_METADATA", "UPSTREAM_METADATA"), re.compile(r"[A-Za-z0-9_./\-]+(:[A-Za-z0-9_./\-]+)*")
    ),
    "FILTER_STATE": re.compile(r"[A-Za-z0-9_./\-]+(:(PLAIN|TYPED))?"),
    "COMMON_DURATION": re.compile(r"[A-Z]+_[A-Z]+(_[A-Z]+)?:[A-Z]+_[A-Z]+(_[A-Z]+)?:(ms|us|ns)"),
}
_HEADERS = ("REQ", "RESP", "TRAILER", "REQ_WITHOUT_QUERY")
# What lets its bearer in.
SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token")


def why_not_format(text: str) -> str:
    """What is found in a format that cannot be, and what is needed; "" where it is fine."""
    if any(ord(letter) < 0x20 and letter not in "\n\t" for letter in text):
        return "found a control character; needed none"
    place = 0
    while (place := text.find("%", place)) >= 0:
        if text.startswith("%%", place):
            place += 2
            continue
        found = _COMMAND.match(text, place)
        if found is None:
            there = text[place : place + 20]
            return f'found "{there}"; needed a command of Envoy\'s format as %RESPONSE_CODE%, or %% for a percent sign'
        if why := _why_not(found):
            return why
        place = found.end()
    return ""


def _why_not(found: re.Match[str]) -> str:
    name, argument, length = found.groups()
    if name in TIMES:
        return "" if length is None else f'found a length in "{found[0]}"; needed none'
    if name in ARGUED:
        if argument is None or not ARGUED[name].fullmatch(argument):
            return f'found "{found[0]}"; needed an argument, as in %REQ(USER-AGENT)%'
        if name in _HEADERS and (named := set(argument.lower().split("?")) & set(SECRET_HEADERS)):
            return f'found "{found[0]}"; needed no {min(named)}: who reads the log could use it'
        if length is not None and name == "COMMON_DURATION":
            return f'found a length in "{found[0]}"; needed none'
        return ""
    if name not in PLAIN:
        return f'found "{found[0]}"; needed a command of Envoy\'s format that logs may have'
    return "" if argument is None and length is None else f'found "{found[0]}"; needed %{name}%'
