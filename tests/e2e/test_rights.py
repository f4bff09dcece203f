"""What the programs may do, as the kernel has it, and who may reach what they keep."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.support.mesh import Mesh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no capabilities to give up")

# CHOWN DAC_OVERRIDE FOWNER NET_BIND_SERVICE
CONTROL_PLANE = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 10
# the same with KILL SETGID SETUID SETPCAP NET_ADMIN NET_RAW SYS_CHROOT SYS_PTRACE SYS_ADMIN
NODE = CONTROL_PLANE | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 18 | 1 << 19 | 1 << 21
# NET_ADMIN NET_BIND_SERVICE
ENVOY = 1 << 12 | 1 << 10


def running(mesh: Mesh) -> dict[str, list[int]]:
    """The demo's processes by what they are."""
    found: dict[str, list[int]] = {"control-plane": [], "node": [], "envoy": []}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if str(mesh.home) not in "\0".join([*words, environment]):
            continue
        if words[0].endswith("/envoy") and "--config-path" in words:
            found["envoy"].append(int(entry.name))
        for program in ("control-plane", "node"):
            if words[1:4] == ["-m", "tulle", program]:
                found[program].append(int(entry.name))
    return found


def test_no_program_has_more_than_it_needs(mesh: Mesh) -> None:
    """Broken: a hole in the control plane, an agent or a proxy would be all of root at once."""
    allowed = {"control-plane": CONTROL_PLANE, "node": NODE, "envoy": ENVOY}
    for program, pids in running(mesh).items():
        assert len(pids) >= (7 if program == "envoy" else 1), program
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
                assert status["NoNewPrivs"] == "1", program
                for which in ("CapPrm", "CapEff", "CapInh", "CapBnd"):
                    assert int(status[which], 16) & ~allowed[program] == 0, f"{program}: {which} {status[which]}"


def test_only_its_user_reaches_what_a_program_keeps(mesh: Mesh) -> None:
    """Broken: any user of the host could read keys and caches, or speak to a proxy's administration or to the agent."""
    seen = 0
    for path in (*(mesh.home / "state").rglob("*"), *(mesh.home / "run").rglob("*")):
        mode = path.lstat().st_mode
        seen += stat.S_ISSOCK(mode)
        if stat.S_ISLNK(mode) or any(not it.stat().st_mode & 0o011 for it in path.parents if mesh.home in it.parents):
            continue  # no way leads there
        if stat.S_ISDIR(mode):
            assert not mode & 0o022, f"{path}: others could write there"
        elif path.name != "workload-api.sock":  # asks the kernel who calls, and says to each who he is
            assert not mode & 0o077, f"{path}: {mode:04o}"
    assert seen >= 10
    run = mesh.home / "run" / "demo"
    for path in (run / "node.sock", *run.glob("w/*/admin.sock"), *run.glob("w/*/xds.sock")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
