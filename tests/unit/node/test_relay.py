"""The relay's configuration, judged by a real Envoy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.envoy import envoy_path
from tulle.node.budget import budget
from tulle.node.relay import inner_resources, relay_bootstrap


@pytest.mark.parametrize("side", ["outside", "inside"])
def test_envoy_takes_it(tmp_path: Path, side: str) -> None:
    """A bootstrap that Envoy refuses is an ingress that nobody reaches."""
    sockets = {8080: str(tmp_path / "8080.sock"), 8443: str(tmp_path / "8443.sock")}
    bootstrap: dict[str, Any] = relay_bootstrap("127.0.0.1", sockets, admin_socket=str(tmp_path / "admin.sock"), budget=budget())
    if side == "inside":
        bootstrap = {"node": {"id": "g", "cluster": "g"}, "static_resources": inner_resources(sockets)}
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(bootstrap))
    command = [envoy_path(), "--mode", "validate", "-c", str(file), "--disable-hot-restart"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
