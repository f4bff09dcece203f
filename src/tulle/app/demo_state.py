"""What the demo's supervisor tells of itself in a file, and what `tulle demo up`, `status` and `down` read there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from tulle.kit import paths
from tulle.node.process import Process, this


def instance() -> str:
    """What the demo's processes carry in TULLE_INSTANCE: one value for each pair of folders, so that demos can be told apart."""
    return "demo-" + hashlib.sha256(str(paths.demo_runtime_dir()).encode()).hexdigest()[:8]


class Step(msgspec.Struct):
    """One thing that is started. `state`: waiting, starting, ready, failed, stopped; `detail` is one short line."""

    name: str
    state: str = "waiting"
    detail: str = ""


class DemoState(msgspec.Struct):
    """All of it. `ready` once everything serves; `error` the sentence that ended it."""

    supervisor: Process
    ingress: str = ""
    api: str = ""
    capture: str = ""
    capture_reason: str = ""
    ready: bool = False
    error: str = ""
    hint: str = ""
    seconds: float = 0.0
    pids: dict[str, int] = {}
    steps: list[Step] = []

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)


def path() -> Path:
    """Where the state lies."""
    return paths.demo_runtime_dir() / "state.json"


def read() -> DemoState | None:
    """The demo's state, or None where there is none."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=DemoState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write(state: DemoState) -> None:
    """Replace the state, whole or not at all."""
    partial = path().with_suffix(".new")
    partial.touch(mode=0o600)
    partial.write_bytes(msgspec.json.encode(state))
    os.replace(partial, path())


def new(names: list[str]) -> DemoState:
    """The state of a demo that this process begins."""
    return DemoState(supervisor=this(), steps=[Step(name) for name in names])
