"""Who is at the other end of a socket, and what the entries give him."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tulle.kit.errors import Refused
from tulle.node import attestation
from tulle.node.attestation import Entries, Entry, Peer, Selector, peer_of, would_be


def me() -> Peer:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return peer_of(ours)


def test_the_kernel_says_who_connected() -> None:
    """Broken: a process could be taken for another, and get its identity."""
    peer = me()
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.alive
    assert os.path.samefile(peer.path, sys.executable)
    assert set(peer.groups) == set(os.getgroups())


def test_who_has_ended_is_nobody(tmp_path: Path) -> None:
    """Broken: a connection that somebody left behind would count for whoever gets his pid next."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        accepted, _ = listener.accept()
        with accepted, pytest.raises(Refused, match="ended"):
            peer_of(accepted)


def test_a_pid_that_is_another_processs_by_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: where the kernel's own handle of the process says that it ended, its pid is believed all the same."""
    monkeypatch.setattr(attestation, "_ended", lambda connection: True)
    with pytest.raises(Refused, match="ended"):
        me()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("unix:uid:{uid}", True),
        ("unix:uid:4242", False),
        ("unix:gid:{gid}", True),
        ("unix:gid:4242", False),
        ("unix:user:{user}", True),
        ("unix:user:nobody-of-that-name", False),
        ("unix:group:nobody-of-that-name", False),
        ("unix:supplementary_gid:4242", False),
        ("unix:path:{path}", True),
        ("unix:path:/bin/sh", False),
        ("unix:path:/nowhere", False),
        ("unix:sha256:" + "0" * 64, False),
        ("unix:cgroup:/shop/cart", True),
        ("unix:cgroup:/shop", True),
        ("unix:cgroup:/shop/", True),
        ("unix:cgroup:/sho", False),
        ("unix:cgroup:/shop/cart/x", False),
    ],
)
def test_selectors(text: str, holds: bool) -> None:
    """Broken: an entry would be for others than it says."""
    import pwd

    peer = msgspec.structs.replace(me(), cgroup="/shop/cart")
    said = text.format(uid=os.geteuid(), gid=os.getegid(), user=pwd.getpwuid(os.geteuid()).pw_name, path=sys.executable)
    assert Selector.parse(said).holds(peer) is holds


def test_all_selectors_of_an_entry_have_to_hold(tmp_path: Path) -> None:
    """Broken: one thing in common with a workload would be enough to be it."""
    peer = me()
    right, wrong = Selector("uid", str(os.geteuid())), Selector("uid", "4242")
    assert Entry("shop/cart", (right,)).gives(peer)
    assert not Entry("shop/cart", (right, wrong)).gives(peer)
    file = tmp_path / "entries.yaml"
    file.write_text(
        f"entries:\n- {{identity: a/b, selectors: [unix:uid:{os.geteuid()}]}}\n"
        f"- {{identity: a/c, selectors: [unix:uid:4242]}}\n- {{identity: a/d, selectors: [unix:uid:{os.geteuid()}]}}\n"
    )
    entries = Entries(file)
    assert entries.identities(peer) == ["a/b", "a/d"]
    assert len(entries.of("a/c")) == 1
    assert Entries().identities(peer) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("entries: {", "not YAML"),
        ("[]", "needed `entries:`"),
        ("entries: []\nmore: 1", "nothing else"),
        ("entries: [1]", r"entries\[0\]: needed `identity`"),
        ("entries: [{identity: cart, selectors: [unix:uid:1]}]", "NAMESPACE/SERVICEACCOUNT"),
        ("entries: [{identity: '*/*', selectors: [unix:uid:1]}]", "NAMESPACE/SERVICEACCOUNT"),
        ("entries: [{identity: a/b, selectors: []}]", "at least one"),
        ("entries: [{identity: a/b, selectors: [uid:1]}]", "needed unix:KIND:VALUE"),
        ("entries: [{identity: a/b, selectors: [unix:uid:root]}]", "needed a number"),
        ("entries: [{identity: a/b, selectors: [unix:path:sh]}]", "needed a path"),
        ("entries: [{identity: a/b, selectors: [unix:sha256:ab]}]", "64 hexadecimal"),
    ],
)
def test_mistakes_in_the_file_are_said(tmp_path: Path, text: str, words: str) -> None:
    """Broken: a rule with a mistake would give an identity to more than it was meant for, or silently to nobody."""
    file = tmp_path / "entries.yaml"
    file.write_text(text)
    with pytest.raises(Refused, match=words):
        Entries(file)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Broken: any user could give himself any identity of the node."""
    file = tmp_path / "entries.yaml"
    file.write_text("entries: []")
    file.chmod(0o666)
    with pytest.raises(Refused, match="others may write it"):
        Entries(file)


def test_what_is_to_be_started_is_judged_before_it_runs(tmp_path: Path) -> None:
    """Broken: `tulle run` would put any program, or another user's, behind a sidecar with an identity that is another's."""
    peer = me()
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable} -I\n")
    script.chmod(0o755)
    shell = would_be(peer, ["sh", "-c", "true"], "/usr/bin:/bin", None, None)
    assert Selector("path", "/bin/sh").holds(shell)
    assert shell.uid == peer.uid
    assert Selector("path", sys.executable).holds(would_be(peer, [str(script)], "", None, None)), "of a script, its interpreter"
    assert Selector("path", sys.executable).holds(would_be(peer, ["script"], str(tmp_path), None, None))
    relative = os.path.relpath(script, Path.cwd())
    assert Selector("path", sys.executable).holds(would_be(peer, [relative], "", None, None)), "from where the caller stands"
    other = would_be(peer, ["sh"], "/usr/bin:/bin", 4242, 4343)
    assert (other.uid, other.gid, other.groups) == (4242, 4343, (4343,))
    digest = hashlib.sha256(Path(os.path.realpath("/bin/sh")).read_bytes()).hexdigest()
    assert Selector("sha256", digest).holds(shell)
    file = tmp_path / "entries.yaml"
    file.write_text("entries:\n- {identity: shop/cart, selectors: [unix:uid:4242, unix:path:/bin/sh]}\n")
    entries = Entries(file)
    entries.check_started("shop/cart", other)
    entries.check_started("shop/other", shell)
    for process in (shell, would_be(peer, [sys.executable], "", 4242, 4343), would_be(peer, ["no-such-program"], "", 4242, 4343)):
        with pytest.raises(Refused, match="give it to others"):
            entries.check_started("shop/cart", process)
