"""Where tulle keeps things: `/var/lib/tulle` and `/run/tulle` for root, the XDG folders for a person, `TULLE_*` over both.

The demo has folders of its own below these, so that it never touches a mesh that is in earnest; a command that finds no
control plane or node in the usual place looks there.
"""

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


def demo_state_dir() -> Path:
    """The demo's control plane and node keep their data here; gone after `tulle demo down`."""
    return state_dir() / "demo"


def demo_runtime_dir() -> Path:
    """The demo's sockets."""
    return runtime_dir() / "demo"


def kubeconfig() -> Path:
    """The kubeconfig that a control plane on this machine wrote; `TULLE_KUBECONFIG` overrides."""
    if chosen := os.environ.get("TULLE_KUBECONFIG"):
        return Path(chosen)
    return _first(state_dir() / "kubeconfig", demo_state_dir() / "kubeconfig")


def node_socket() -> Path:
    """The local API of the node agent on this machine; `TULLE_NODE_SOCKET` overrides."""
    if chosen := os.environ.get("TULLE_NODE_SOCKET"):
        return Path(chosen)
    return _first(runtime_dir() / "node.sock", demo_runtime_dir() / "node.sock")


def _first(usual: Path, demo: Path) -> Path:
    return demo if demo.exists() and not usual.exists() else usual
