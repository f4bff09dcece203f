"""TCP ports of the host for sidecars that share its network (`proxy` and `cgroup` capture)."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from tulle.kit.errors import Refused

RANGE = range(20000, 30000)  # below what Linux gives to outgoing connections
# Where this agent begins: of several on a host each chooses before its Envoys bind what it chose.
_FIRST = random.randrange(len(RANGE))  # noqa: S311 - nothing is to be kept secret


def free(count: int, taken: Collection[int]) -> list[int]:
    """Ports that are nobody's on any address: not in `taken`, and to be bound now."""
    found: list[int] = []
    for port in (*RANGE[_FIRST:], *RANGE[:_FIRST]):
        if len(found) == count:
            break
        if port not in taken and can_bind("0.0.0.0", port):  # noqa: S104 - to see that it is free everywhere
            found.append(port)
    if len(found) < count:
        raise Refused(f"no {count} free TCP ports from {RANGE.start} to {RANGE.stop - 1}")
    return found


def can_bind(host: str, port: int) -> bool:
    """Whether a TCP listener could be made there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check_free(port: int) -> None:
    """Raise `Refused` where this host's port cannot be bound: Envoy would say so only much later, and less clearly."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - where a gateway listens
        except PermissionError as error:
            raise Refused(f"port {port}: this user may not bind it", hint="choose a port above 1023") from error
        except OSError as error:
            raise Refused(f"port {port} is in use", hint="stop the program that has it, or choose another port") from error
