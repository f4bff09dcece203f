"""What a workload's name resolution reads: its `resolv.conf`, and the host's, in which `dns.py` finds where to forward.

`launch.py` binds the files that `write_coverings` makes over the host's, in the application's own mount namespace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

CLUSTER_DOMAIN = "cluster.local"
HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_NSSWITCH = Path("/etc/nsswitch.conf")
_NSCD = Path("/run/nscd")
# These answer host names over a Unix socket, without DNS: the application would go past its own resolver.
_BYPASSES = {"resolve", "mymachines", "mdns", "mdns4", "mdns_minimal", "mdns4_minimal", "mdns6", "mdns6_minimal", "libvirt"}


def nameservers(text: str) -> list[str]:
    """The addresses of a resolv.conf, in order; lines that say something else, or nothing that is an address, are skipped."""
    found = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    ip_address(address.partition("%")[0])
                except ValueError:
                    continue
                found.append(address)
    return found


def search_domains(text: str) -> list[str]:
    """The search list of a resolv.conf: its last `search` or `domain` line."""
    found: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["search" | "domain", *domains]:
                found = domains
    return found


def resolv_conf(namespace: str, host: str, domain: str = CLUSTER_DOMAIN) -> str:
    """A workload's resolv.conf: as a pod's, but with ndots:1, since `dns.py` knows the forms with more labels by itself."""
    ours = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
    theirs = [found for found in search_domains(host) if found not in ours and found != "."]
    return f"nameserver 127.0.0.1\nsearch {' '.join([*ours, *theirs])}\noptions ndots:1\n"


def nsswitch_conf(host: str) -> str:
    """The host's nsswitch.conf with a `hosts` line that asks files and DNS only; the same text where it does so already."""
    lines = []
    for line in host.splitlines(keepends=True):
        name, colon, rest = line.partition(":")
        words = re.findall(r"\[[^\]]*\]|[^\s\[]+", rest)
        if colon and name.strip() == "hosts" and _BYPASSES & set(words):
            kept, dropped = [], False
            for word in words:
                if not word.startswith("["):  # an action in brackets belongs to the service before it
                    dropped = word in _BYPASSES
                kept += [] if dropped else [word]
            line = f"hosts: {' '.join(kept if 'dns' in kept else [*kept, 'dns'])}\n"
        lines.append(line)
    return "".join(lines)


def write_coverings(folder: Path, namespace: str) -> list[tuple[str, str]]:
    """Write a workload's files into `folder` and return the [source, target] pairs that `launch.py` is to bind."""
    host = _text(HOST_RESOLV_CONF)
    (folder / "resolv.conf").write_text(resolv_conf(namespace, host))
    pairs: list[tuple[str, str]] = [(str(folder / "resolv.conf"), str(HOST_RESOLV_CONF))]
    switch = _text(_NSSWITCH)
    if (changed := nsswitch_conf(switch)) != switch:
        (folder / "nsswitch.conf").write_text(changed)
        pairs.append((str(folder / "nsswitch.conf"), str(_NSSWITCH)))
    if _NSCD.is_dir():
        (folder / "nscd").mkdir(exist_ok=True)
        pairs.append((str(folder / "nscd"), str(_NSCD)))
    for path in (folder / "resolv.conf", folder / "nsswitch.conf", folder / "nscd"):
        if path.exists():  # an application that runs as another user reads them too
            os.chmod(path, 0o755 if path.is_dir() else 0o644)
    return pairs


def host_nameservers(path: Path = HOST_RESOLV_CONF) -> Sequence[str]:
    """Where this machine asks; what the C library asks where nothing is set: 127.0.0.1."""
    return nameservers(_text(path)) or ["127.0.0.1"]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
