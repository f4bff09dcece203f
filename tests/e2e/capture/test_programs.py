"""Programs started in sandboxes: they are themselves, with what the workload must see and no more rights than before."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandboxes import (
    ROOT,
    SOMEBODY,
    listening,
)
from tulle.node.netns import NetnsNetwork
from tulle.node.network import PROXY_MARK

pytestmark = [pytest.mark.e2e, pytest.mark.netns]


@pytest.fixture(autouse=True)
def as_in_the_foreground() -> Iterator[None]:
    """A job in the background ignores SIGINT and SIGQUIT, under nohup SIGHUP too, and so would the programs that it starts."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_only_the_proxy_may_set_its_mark(network: NetnsNetwork) -> None:
    """An ordinary application that could mark its sockets would leave the mesh."""
    one = await network.create("default/one")
    become = {"uid": SOMEBODY, "gid": SOMEBODY} if ROOT else {}
    code = f"import socket; socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, {PROXY_MARK})"
    for app, expected in ((True, 1), (False, 0)):
        command = one.command(["/usr/bin/python3", "-I", "-c", code], app=app, **become)
        assert subprocess.run(command, capture_output=True, check=False).returncode == expected


async def test_resolv_conf_is_the_applications_only(network: NetnsNetwork) -> None:
    """The host's file must stay what it is, also for the proxy."""
    host = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    one = await network.create("shop/one")
    found = [
        subprocess.run(one.command(["cat", "/etc/resolv.conf"], app=app), capture_output=True, text=True, check=False).stdout
        for app in (True, False)
    ]
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in found[0]
    assert found[1] == host
    assert (Path("/etc/resolv.conf").read_text() if host else "") == host


async def test_a_started_program_is_the_program(network: NetnsNetwork, folder: Path) -> None:
    """Exit code, signal, pid, environment, folder, user, open files and terminal are the program's, with nothing of ours."""
    one = await network.create("default/one")

    def run(*argv: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(one.command(argv, app=True), capture_output=True, check=False, **how)

    assert run("sh", "-c", "exit 7").returncode == 7
    assert run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    environment = {"PATH": os.environ["PATH"], "A": "b c", "LANG": "C"}
    assert sorted(run("env", env=environment).stdout.splitlines()) == sorted(
        b"%s=%s" % (k.encode(), v.encode()) for k, v in environment.items()
    )
    assert run("pwd", cwd="/usr").stdout == b"/usr\n"
    assert run("id", "-u").stdout.decode().strip() == str(os.geteuid())
    status = run("cat", "/proc/self/status").stdout.decode()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert ignored & (1 << 31) - 1 == 0  # above are 32 and 33, libc's own: some makes leave them ignored
    assert ROOT or "CapEff:\t0000000000000000" in status
    assert run("ls", "/proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads
    assert run("no-such-program").returncode == 127
    assert run(str(folder)).returncode == 126
    started = subprocess.Popen(one.command(["sleep", "60"], app=True))
    started.send_signal(signal.SIGINT)
    assert started.wait(10) == -signal.SIGINT
    ours, theirs = pty.openpty()
    try:
        on_terminal = subprocess.Popen(one.command(["sh", "-c", "test -t 0 && test -t 1"], app=True), stdin=theirs, stdout=theirs)
        assert on_terminal.wait(10) == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_an_application_cannot_undo_its_capture(network: NetnsNetwork) -> None:
    """Broken: an application that runs as root could take its traffic past its sidecar, or look into it; policies were a wish."""
    one = await network.create("default/one")
    for before in ([], ["unshare", "--user", "--map-root-user"]):
        for then in (
            ["nft", "flush", "ruleset"],
            ["ip", "link", "set", "lo", "down"],
            ["nsenter", "--net=/proc/1/ns/net", "true"],
        ):
            ran = subprocess.run(one.command([*before, *then], app=True), capture_output=True, check=False)
            assert ran.returncode != 0, (before, then)


@pytest.mark.skipif(not ROOT, reason="an ordinary user has none")
async def test_a_proxy_has_what_it_needs_and_no_more(network: NetnsNetwork) -> None:
    """Broken: whoever finds a hole in Envoy would be root on the host, where the agent is."""
    sandboxes = (await network.create("default/one"), await network.gateway("default/edge"))
    for sandbox in sandboxes:
        status = subprocess.run(
            sandbox.command(["cat", "/proc/self/status"], app=False), capture_output=True, text=True, check=True
        )
        assert "NoNewPrivs:\t1" in status.stdout
        for which in ("CapPrm", "CapEff", "CapBnd"):
            assert f"{which}:\t0000000000001400" in status.stdout, "to mark its sockets, and to serve port 443"


async def test_what_listens_is_seen(network: NetnsNetwork) -> None:
    """Readiness: the agent must see an application's port without connecting to it, and the host's own ports must not count."""
    one = await network.create("default/one", [9080])
    assert one.listening() == set()
    async with listening(one, ("127.0.0.1", 9080)):
        assert one.listening() == {9080}
    assert one.app_environment() == {"PORT": "9080"}


@pytest.mark.skipif(not ROOT, reason="only root becomes somebody else")
async def test_root_runs_an_application_as_somebody_else(network: NetnsNetwork) -> None:
    """An application that is to run as another user must be that user altogether; its proxy keeps what marking takes."""
    one = await network.create("default/one")
    for app, capabilities in ((True, "0" * 16), (False, "0000000000001000")):
        command = one.command(["cat", "/proc/self/status"], app=app, uid=SOMEBODY, gid=SOMEBODY)
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"Uid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}" in status
        assert f"Groups:\t{SOMEBODY} \n" in status
        assert f"CapEff:\t{capabilities}" in status
