"""What TLS a server accepts, found out by an independent scanner (sslyze) that offers it everything there ever was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sslyze import (
    AllScanCommandsAttempts,
    ClientAuthenticationCredentials,
    ScanCommand,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
)

VERSIONS = {
    "SSL 2.0": ScanCommand.SSL_2_0_CIPHER_SUITES,
    "SSL 3.0": ScanCommand.SSL_3_0_CIPHER_SUITES,
    "TLS 1.0": ScanCommand.TLS_1_0_CIPHER_SUITES,
    "TLS 1.1": ScanCommand.TLS_1_1_CIPHER_SUITES,
    "TLS 1.2": ScanCommand.TLS_1_2_CIPHER_SUITES,
    "TLS 1.3": ScanCommand.TLS_1_3_CIPHER_SUITES,
}
HOLES = {
    ScanCommand.TLS_COMPRESSION,
    ScanCommand.TLS_1_3_EARLY_DATA,
    ScanCommand.SESSION_RENEGOTIATION,
    ScanCommand.HEARTBLEED,
    ScanCommand.ROBOT,
    ScanCommand.OPENSSL_CCS_INJECTION,
}


class Place(NamedTuple):
    """A server, the name that it is asked for, and the certificate (with its key, one file) of a client that it lets in."""

    host: str
    port: int
    name: str
    client: Path | None = None


class Found(NamedTuple):
    """Names of ciphers by version (versions without any left out), the curves, and the known holes that are open."""

    ciphers: dict[str, set[str]]
    curves: set[str]
    holes: set[str]


def scan(*places: Place) -> list[Found]:
    """Scan them all, in the order in which they are given; fails where one cannot be spoken to at all."""
    scanner = Scanner(per_server_concurrent_connections_limit=2, concurrent_server_scans_limit=len(places))
    scanner.queue_scans([_request(number, place) for number, place in enumerate(places)])
    found = sorted(scanner.get_results(), key=lambda one: int(one.server_location.hostname.partition(".")[0]))
    return [_read(one) for one in found]


def _request(number: int, place: Place) -> ServerScanRequest:
    location = ServerNetworkLocation(hostname=f"{number}.scan", port=place.port, ip_address=place.host)
    client = ClientAuthenticationCredentials(place.client, place.client) if place.client else None
    configuration = ServerNetworkConfiguration(
        tls_server_name_indication=place.name, tls_client_auth_credentials=client, network_timeout=20
    )
    commands = {*VERSIONS.values(), ScanCommand.ELLIPTIC_CURVES, *HOLES}
    return ServerScanRequest(location, configuration, commands)


def _read(one: ServerScanResult) -> Found:
    result = one.scan_result
    assert result is not None, f"{one.server_location}: {one.connectivity_error_trace}"
    ciphers = {}
    for version, command in VERSIONS.items():
        attempt = getattr(result, command.value)
        assert attempt.result is not None, f"{version}: {attempt.error_trace}"
        if names := {accepted.cipher_suite.name for accepted in attempt.result.accepted_cipher_suites}:
            ciphers[version] = names
    curves = result.elliptic_curves.result
    assert curves is not None, result.elliptic_curves.error_trace
    return Found(ciphers, {curve.name for curve in curves.supported_curves or ()}, set(_open(result)))


def _open(result: AllScanCommandsAttempts) -> Iterator[str]:
    found = {command.value: getattr(result, command.value) for command in HOLES}
    early = found.pop("tls_1_3_early_data")
    # It is looked for with a request of HTTP/1, at which a server of gRPC closes without the ticket that early data would take.
    assert early.result is not None or "peer closed" in str(early.error_trace)
    if early.result and early.result.supports_early_data:
        yield "early data"
    for name, attempt in found.items():
        assert attempt.result is not None, f"{name}: {attempt.error_trace}"
    if found["tls_compression"].result.supports_compression:
        yield "compression"
    if found["session_renegotiation"].result.is_vulnerable_to_client_renegotiation_dos:
        yield "renegotiation"
    if found["heartbleed"].result.is_vulnerable_to_heartbleed:
        yield "heartbleed"
    if found["openssl_ccs_injection"].result.is_vulnerable_to_ccs_injection:
        yield "ccs injection"
    if "NOT_VULNERABLE" not in found["robot"].result.robot_result.name:
        yield "robot"
