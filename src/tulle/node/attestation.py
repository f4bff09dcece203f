"""Who is at the other end of a Unix socket, as the kernel says, and which identities the node's entries give such a process.

A process says nothing of itself here: uid and gid, program and control group are read of the process that connected, and none of
it counts if that has ended meanwhile. Selectors are named as SPIRE's `unix` attestor names them.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import select
import shutil
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
import yaml

from tulle.kit.errors import Refused
from tulle.node import process

log = structlog.get_logger("tulle.node")

_SO_PEERPIDFD = 77  # Linux 6.5; a pid alone may be another process's by the time that one asks
_IDENTITY = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)")
_NUMBERS = ("uid", "gid", "supplementary_gid")
_KINDS = (*_NUMBERS, "user", "group", "supplementary_group", "path", "sha256", "cgroup")


class Peer(msgspec.Struct, frozen=True):
    """A process that connected: who it runs as, its program (`device:inode`, and a path for people), its control group."""

    pid: int
    started: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    program: str
    path: str
    cgroup: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return process.Process(self.pid, self.started).alive


def peer_of(connection: socket.socket) -> Peer:
    """The process that opened a connection. Raises `Refused` where it has ended, or is out of sight."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    started = process.started(pid) if pid > 0 else None
    if started is None:
        raise Refused("the process that connected has ended, or runs where this node cannot see it")
    try:
        program = os.stat(f"/proc/{pid}/exe")
        peer = Peer(
            pid=pid,
            started=started,
            uid=uid,
            gid=gid,
            groups=_groups(pid),
            program=f"{program.st_dev}:{program.st_ino}",
            path=os.readlink(f"/proc/{pid}/exe"),
            cgroup=_cgroup(pid),
        )
    except OSError as error:
        raise Refused(f"process {pid}, which connected, cannot be looked at: {error.strerror}") from error
    if not peer.alive or _ended(connection):  # asked last: what was read before was then of that process
        raise Refused("the process that connected has ended")
    return peer


def would_be(peer: Peer, argv: Sequence[str], path: str, uid: int | None, gid: int | None) -> Peer:
    """What `peer` starts with this command, as that user: a process that does not run yet, so that its pid is 0.

    `path` is where programs are looked for. Of a script the program is its interpreter.
    """
    found = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=path) or argv[0]
    here = Path(f"/proc/{peer.pid}/cwd") / found  # where it is absolute, that alone counts
    for _ in range(4):  # as many as the kernel follows
        try:
            with here.open("rb") as file:
                line = file.readline(256)
        except OSError:
            break
        if not line.startswith(b"#!") or not (words := line[2:].split()):
            break
        here = Path(os.fsdecode(words[0]))
    return msgspec.structs.replace(
        peer,
        pid=0,
        uid=peer.uid if uid is None else uid,
        gid=peer.gid if gid is None else gid,
        groups=peer.groups if gid is None else (gid,),
        program=_program(str(here)),
        path=str(here),
    )


def _groups(pid: int) -> tuple[int, ...]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Groups:"):
            return tuple(int(word) for word in line.split()[1:])
    return ()


def _cgroup(pid: int) -> str:
    """Its group in the v2 hierarchy, as a path from that hierarchy's root; "" where there is none."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def _ended(connection: socket.socket) -> bool:
    try:
        descriptor = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:  # an older kernel: the start time has to do
        return False
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)


class Selector(msgspec.Struct, frozen=True):
    """One thing that has to be true of a process: `kind` is one of SPIRE's `unix` words, or `cgroup`, for its path."""

    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Selector:
        """`unix:uid:1001`. Raises ValueError with what was found and needed."""
        family, _, rest = text.partition(":")
        kind, _, value = rest.partition(":")
        if family != "unix" or kind not in _KINDS or not value:
            raise ValueError(f"found {text!r}, needed unix:KIND:VALUE with one of {', '.join(_KINDS)}")
        if kind in _NUMBERS and not (value.isascii() and value.isdigit()):
            raise ValueError(f"found {text!r}, needed a number")
        if kind in ("path", "cgroup") and not value.startswith("/"):
            raise ValueError(f"found {text!r}, needed a path from the root")
        if kind == "sha256" and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError(f"found {text!r}, needed 64 hexadecimal digits")
        return cls(kind, value)

    def holds(self, peer: Peer) -> bool:
        """Whether it is true of a process."""
        match self.kind:
            case "uid":
                return peer.uid == int(self.value)
            case "gid":
                return peer.gid == int(self.value)
            case "supplementary_gid":
                return int(self.value) in peer.groups
            case "user":
                return peer.uid == _number(self.value, user=True)
            case "group":
                return peer.gid == _number(self.value, user=False)
            case "supplementary_group":
                return _number(self.value, user=False) in peer.groups
            case "path":
                return peer.program == _program(self.value)
            case "sha256":
                return _digest(peer) == self.value
            case "cgroup":
                inner = self.value.rstrip("/")
                return peer.cgroup == inner or peer.cgroup.startswith(f"{inner}/")
        raise AssertionError(self.kind)


def _number(name: str, *, user: bool) -> int:
    """A uid or gid by name, -1 where there is none: nobody has that."""
    try:
        return pwd.getpwnam(name).pw_uid if user else grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def _program(path: str) -> str:
    """Which file it is, and not what it is called: a process may have mounted anything over a name, for itself."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def _digest(peer: Peer) -> str:
    try:
        with open(f"/proc/{peer.pid}/exe" if peer.pid else peer.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


class Entry(msgspec.Struct, frozen=True):
    """Processes of which all `selectors` hold get `identity` (`namespace/serviceaccount`)."""

    identity: str
    selectors: tuple[Selector, ...]

    def gives(self, peer: Peer) -> bool:
        """Whether a process gets it."""
        return all(one.holds(peer) for one in self.selectors)


class Entries:
    """The node's entries, out of a file that is read again when it changes; without a file there are none."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises `Refused` where the file cannot be read."""
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._entries: tuple[Entry, ...] = ()
        if path is not None:
            self._entries, self._stamp = _read(path), _stamp(path)

    @property
    def now(self) -> Sequence[Entry]:
        """As the file says; as it said before, where it says nonsense now."""
        if self._path is not None and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            try:
                self._entries = _read(self._path)
                log.info("entries read again", path=str(self._path), entries=len(self._entries))
            except Refused as error:
                log.warning("the entries cannot be read; those of before hold", error=error.message)
        return self._entries

    def identities(self, peer: Peer) -> list[str]:
        """What a process gets, as `namespace/serviceaccount`, in the order of the file."""
        return list(dict.fromkeys(entry.identity for entry in self.now if entry.gives(peer)))

    def check_started(self, identity: str, peer: Peer) -> None:
        """Raises `Refused` where a process that is to be started so may not have an identity (`namespace/serviceaccount`)."""
        entries = self.of(identity)
        if entries and not any(one.gives(peer) for one in entries):
            who = f"{peer.path} of uid {peer.uid}, gid {peer.gid}"
            raise Refused(
                f"service account {identity}: the node's entries give it to others than {who}",
                hint="run what the entries name, as the user that they name (--user)",
            )

    def of(self, identity: str) -> list[Entry]:
        """The entries of an identity; where there are any, nobody else gets it."""
        return [entry for entry in self.now if entry.identity == identity]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> tuple[Entry, ...]:
    """Raises `Refused`, with every mistake, where the file cannot be used."""
    try:
        if path.stat().st_mode & 0o022:
            raise Refused(f"{path}: others may write it, and so give themselves identities", hint=f"chmod go-w {path}")
        said = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    except yaml.YAMLError as error:
        raise Refused(f"{path}: it is not YAML: {error}") from error
    found = said.get("entries") if isinstance(said, dict) and set(said) == {"entries"} else None
    if not isinstance(found, list):
        raise Refused(f"{path}: needed `entries:`, a list of identities and selectors, and nothing else")
    mistakes: list[str] = []
    entries = [entry for index, one in enumerate(found) if (entry := _entry(one, f"entries[{index}]", mistakes))]
    if mistakes:
        raise Refused("\n".join(f"{path}: {one}" for one in mistakes))
    return tuple(entries)


def _entry(said: object, at: str, mistakes: list[str]) -> Entry | None:
    if not isinstance(said, dict) or set(said) != {"identity", "selectors"}:
        mistakes.append(f"{at}: needed `identity` and `selectors`, and nothing else")
        return None
    identity, texts = said["identity"], said["selectors"]
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        mistakes.append(f"{at}.identity: found {str(identity)[:100]!r}, needed NAMESPACE/SERVICEACCOUNT")
    if not isinstance(texts, list) or not texts:
        mistakes.append(f"{at}.selectors: needed at least one, such as unix:uid:1001")
        return None
    selectors = []
    for index, text in enumerate(texts):
        try:
            selectors.append(Selector.parse(str(text)))
        except ValueError as error:
            mistakes.append(f"{at}.selectors[{index}]: {error}")
    return Entry(str(identity), tuple(selectors))
