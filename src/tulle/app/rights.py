"""What the programs may do, where they are started as root: what they need, and nothing else of root's.

Called first in each program: a thread keeps what it has, and those that are started later have what the first one has.
"""

from __future__ import annotations

import resource

from tulle.node import kernel

# Root's own files may lie in a folder of the person who called sudo.
_FILES = (kernel.CAP_CHOWN, kernel.CAP_DAC_OVERRIDE, kernel.CAP_FOWNER)


def of_control_plane() -> None:
    """Its files, and its ports."""
    _leave_no_core()
    kernel.confine(*_FILES, kernel.CAP_NET_BIND_SERVICE)


def of_node() -> None:
    """Namespaces, capture, and the processes of workloads. It cannot give that up: workloads come at any time."""
    _leave_no_core()
    kernel.confine(
        *_FILES,
        kernel.CAP_NET_BIND_SERVICE,
        kernel.CAP_NET_ADMIN,
        kernel.CAP_NET_RAW,
        kernel.CAP_SYS_ADMIN,  # to enter namespaces
        kernel.CAP_SYS_CHROOT,  # the same, of mounts
        kernel.CAP_SYS_PTRACE,  # to tell its own processes by their environment
        kernel.CAP_KILL,
        kernel.CAP_SETUID,
        kernel.CAP_SETGID,
        kernel.CAP_SETPCAP,  # to take rights from what it starts
    )


def _leave_no_core() -> None:
    """A crash must not write keys to the disk. What is started has the same limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
