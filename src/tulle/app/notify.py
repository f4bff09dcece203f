"""Tells systemd (`Type=notify`) how far a program is, where systemd started it."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """`READY=1`, `STOPPING=1`: the protocol of sd_notify(3). Nothing happens where nobody asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
