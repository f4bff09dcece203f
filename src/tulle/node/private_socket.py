"""Unix sockets for this user alone, from their first moment."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def private_socket(path: Path) -> socket.socket:
    """Bound to a path that nothing is at, with mode 0600.

    The kernel takes the mode from the socket as it is before it has a name. A umask would be that of every thread: a folder that
    another one makes meanwhile would be closed to everybody.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    return made
