"""Certificates in files of this host → secrets, for proxies whose clusters name files (`core.envoy.origination`).

A rule that somebody writes in the mesh must not make a host use, in somebody else's name, what is in its files: only files that
every user of the host may read count, and those in `FOLDER`, which the host's own administrator fills.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from tulle.core.encoded import Encoded
from tulle.core.envoy.origination import SYSTEM
from tulle.core.envoy.secrets import encode_bundle, encode_certificate

log = structlog.get_logger("tulle.node")

FOLDER = Path("/etc/tulle/certificates")
PREFIX = "file-"
_MOST = 4 * 1024 * 1024  # bytes of a file; a host's own authorities are a quarter of a megabyte
# Where hosts keep their authorities, beside where this Python's OpenSSL looks.
_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Unusable(Exception):
    """Why a file is no secret."""


def read_secrets(names: Iterable[str], folder: Path = FOLDER) -> dict[str, Encoded]:
    """The secrets that can be made, by name; of the others the log says why. Blocks."""
    found: dict[str, Encoded] = {}
    for name in names:
        kind, _colon, paths = name.removeprefix(PREFIX).partition(":")
        try:
            if kind == "cert":
                found[name] = _pair(name, paths.split("~"), folder)
            elif paths:
                found[name] = _roots(name, paths.split("~"), folder)
        except (Unusable, OSError, ValueError) as error:  # ValueError: a path that no system has
            log.warning("no certificate from files", secret=name, error=str(error))
    return found


def stamps(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What changes when the files behind secrets do. Blocks."""
    return {name: tuple(_stamp(path) for path in name.partition(":")[2].split("~")) for name in names}


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def _pair(name: str, paths: list[str], folder: Path) -> Encoded:
    from tulle.core.compile.certificates import pair_fault

    if len(paths) != 2:
        raise Unusable("needed a certificate and a key")
    chain, key = (_read(path, folder) for path in paths)
    if fault := pair_fault(chain, key):
        raise Unusable(fault)
    return encode_certificate(name, chain, key)


def _roots(name: str, paths: list[str], folder: Path) -> Encoded:
    from cryptography import x509

    roots, *revoked = paths
    pem = _system() if roots == SYSTEM else _read(roots, folder)
    crl = _read(revoked[0], folder) if revoked else b""
    try:
        x509.load_pem_x509_certificates(pem)
        if crl:
            x509.load_pem_x509_crl(crl)
    except ValueError as error:
        raise Unusable(f"found no certificates in PEM: {error}") from error
    return encode_bundle(name, pem, crl)


def _system() -> bytes:
    for path in (ssl.get_default_verify_paths().cafile, *_SYSTEM):
        if path and os.path.exists(path):
            return Path(path).read_bytes()
    raise Unusable("this host has no authorities of its own; needed the package ca-certificates")


def _read(path: str, folder: Path) -> bytes:
    if not os.path.isabs(path):
        raise Unusable(f"{path}: needed an absolute path")
    real = Path(os.path.realpath(path))
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST:
            raise Unusable(f"{path}: needed a file of at most {_MOST} bytes")
        if not ((about.st_mode & stat.S_IROTH and _passable(real)) or real.is_relative_to(folder.resolve())):
            raise Unusable(f"{path}: needed a file that every user may read, or one in {folder}")
        return file.read()


def _passable(path: Path) -> bool:
    """Whether every user may get to it."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
