"""Programs as services of a mesh, for as long as a test needs them; and programs of the machine that a test may lack."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.support.mesh import ROOT, TULLE, Mesh, ended
from tests.support.waiting import until


def program(name: str) -> str:
    """The path of a program of the machine (packaging/system.sh installs them); without it the test is skipped."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"there is no {name}: packaging/system.sh test")
    return found


@contextmanager
def serving(
    mesh: Mesh, service: str, port: str, argv: Sequence[str], ready: Sequence[str], version: str = "v1"
) -> Iterator[None]:
    """A program as a service of the mesh, from when `ready` succeeds inside another workload until it is over."""
    command = [*TULLE, "run", "--service", service, "--version", version, "--port", port, "--", *argv]
    child = subprocess.Popen(command, env=mesh.env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:

        def answers() -> bool:
            assert child.poll() is None, child.communicate()[1]
            return mesh.inside(*ready, check=False).code == 0

        until(f"{service} answers", answers, 60, lambda: mesh.inside(*ready, check=False).text)
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        assert ended(child), f"{service} was told to end, and did not within a minute"
