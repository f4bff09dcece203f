"""Where tulle keeps things: `/var/lib/tulle` and `/run/tulle` for root, the XDG folders for a person, `TULLE_*` over both."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Data that must survive a restart; `TULLE_STATE_DIR` overrides."""
    if chosen := os.environ.get("TULLE_STATE_DIR"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/tulle")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tulle"


def runtime_dir() -> Path:
    """Sockets and process records; `TULLE_RUNTIME_DIR` overrides. Short, for a Unix socket's path has 107 bytes at most."""
    if chosen := os.environ.get("TULLE_RUNTIME_DIR"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/tulle")
    if home := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(home) / "tulle"
    return Path(f"/tmp/tulle-{os.geteuid()}")  # noqa: S108 - made 0700 and checked by its users


def kubeconfig() -> Path:
    """The kubeconfig that the control plane of this state directory writes; `TULLE_KUBECONFIG` overrides."""
    return Path(os.environ.get("TULLE_KUBECONFIG") or state_dir() / "kubeconfig")


def node_socket() -> Path:
    """The node agent's local API; `TULLE_NODE_SOCKET` overrides."""
    return Path(os.environ.get("TULLE_NODE_SOCKET") or runtime_dir() / "node.sock")
