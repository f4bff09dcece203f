"""A real control plane in a process of its own, for the commands that talk to one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mesh import free_port
from tulle.cli.main import run


@dataclass
class Done:
    """A command's exit status and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Shell:
    """Runs `tulle` command lines in this process, in the environment `env`: what a process of their own would do, but soon."""

    env: dict[str, str]

    def __call__(self, *argv: str, stdin: str = "") -> Done:
        """A command, run to its end."""
        out, err, before, typed = io.StringIO(), io.StringIO(), dict(os.environ), sys.stdin
        os.environ.clear()
        os.environ.update(self.env)
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(list(argv))
        finally:
            sys.stdin = typed
            os.environ.clear()
            os.environ.update(before)
        return Done(code, out.getvalue(), err.getvalue())

    def revision(self, *what: str) -> str:
        """The resource version of an object; empty where it is not there."""
        import json

        done = self("get", *what, "-o", "json")
        return str(json.loads(done.stdout)["metadata"]["resourceVersion"]) if done.returncode == 0 else ""

    def judged(self, namespace: str, *what: str) -> None:
        """Wait until the objects have their status: it is written a moment after they are, as in Kubernetes."""
        import json

        deadline = time.monotonic() + 20
        for one in what:
            while time.monotonic() < deadline:
                body = json.loads(self("get", *one.split("/"), "-n", namespace, "-o", "json").stdout)
                conditions = body.get("status", {}).get("conditions", [])
                if any((found["type"], found["status"]) == ("PassedAnalysis", "True") for found in conditions):
                    break
            else:
                raise AssertionError(f"{one} got no status")


@pytest.fixture
def nowhere(tmp_path: Path) -> Shell:
    """A shell in which no mesh is known."""
    return Shell(_environment(tmp_path))


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TULLE_")}
    return {**kept, "TULLE_STATE_DIR": f"{folder}/state", "TULLE_RUNTIME_DIR": f"{folder}/run", "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def shell() -> Iterator[Shell]:
    """A control plane without nodes; whoever writes to it uses a namespace of its own."""
    with started() as ready:
        yield ready


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Shell]:
    """A control plane without nodes, with some settings."""
    with tempfile.TemporaryDirectory(prefix="tulle-cli-") as folder:
        env = _environment(Path(folder)) | settings
        addresses = [f"--api-address=127.0.0.1:{free_port()}", f"--xds-address=127.0.0.1:{free_port()}"]
        log = Path(folder) / "log"
        with log.open("wb") as out:
            plane = subprocess.Popen(
                [sys.executable, "-m", "tulle", "control-plane", *addresses], env=env, stdout=out, stderr=out
            )
        try:
            ready = Shell(env)
            _until_it_answers(ready, plane, log)
            yield ready
        finally:
            plane.terminate()
            plane.wait(20)


def _until_it_answers(ready: Shell, plane: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until there is an answer, or the process has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if ready("get", "namespaces").returncode == 0:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"ended with status {plane.wait(0.1)}\n{log.read_text(errors='replace')}")
    raise AssertionError(log.read_text(errors="replace"))
