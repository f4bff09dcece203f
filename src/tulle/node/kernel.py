"""The system calls that entering and making namespaces takes, for the scripts `launch.py` and `inside.py`.

Only the standard library, and little of it: the scripts start in front of every program that runs in a sandbox. Both may only
run in a process of one thread (the kernel lets no other enter a user namespace).
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

NEWNS = 0x00020000
NEWUSER = 0x10000000
NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39

MOST = 64  # more than there are
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def enter(path: str, kind: int) -> None:
    """Move this process into the namespace at `path` (`/proc/PID/ns/net`) of that `kind` (NEWNET, NEWUSER)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, kind), f"setns {path}")
    finally:
        os.close(descriptor)


def mount(source: str, target: str, flags: int) -> None:
    """mount(2) without a file system type: bind mounts and propagation."""
    _check(_libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None), f"mount {target}")


def bound(kept: Collection[int]) -> None:
    """Let no program that this process executes have other capabilities than `kept`, not even as root.

    Who may not say so (an ordinary user) has none to give.
    """
    for capability in range(MOST):
        if capability not in kept and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            return  # one that the kernel does not know, or nothing that this process may drop


def no_new_privileges() -> None:
    """Let no program that this process executes gain what it has not: set-user-ID and file capabilities count nothing."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def confine(*kept: int) -> None:
    """Give up every capability but these, now and in all that is executed. Of this thread and those it starts: call it first."""
    bound(kept)
    header, data = _capabilities()
    for half in (0, 1):
        mask = sum(1 << (one % 32) for one in kept if one // 32 == half)
        data[half].effective &= mask
        data[half].permitted &= mask
        data[half].inheritable &= mask
    _check(_libc.capset(ctypes.byref(header), data), "capset")
    no_new_privileges()


def drop_ambient() -> None:
    """Let the next exec of an ordinary user's program lose every capability."""
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")


def keep_capabilities(*kept: int) -> None:
    """Let the next exec keep these of the capabilities that this process has, whatever user it is."""
    header, data = _capabilities()
    for capability in kept:
        data[capability // 32].inheritable |= 1 << (capability % 32)
    _check(_libc.capset(ctypes.byref(header), data), "capset")
    for capability in kept:
        _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl")


def _capabilities() -> tuple[_CapHeader, ctypes.Array[_CapData]]:
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    return header, data


def keep_over_setuid() -> None:
    """Let the next change from root to another user leave the permitted capabilities, for `keep_capabilities` after it."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")


def reset_signals() -> None:
    """Undo what Python's start-up does to SIGINT, SIGPIPE and SIGXFSZ: what is ignored stays so on exec."""
    for number in (2, 13, 25):
        _libc.signal(number, None)  # SIG_DFL is 0
