"""A control plane whose Prometheus is down: what people are told who ask for figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.mesh import kubectl_binary
from tests.unit.cli.conftest import Shell, started

URL = "http://somebody:secret@127.0.0.1:1"


def test_it_is_said_where_people_look() -> None:
    """Broken: in an incident commands would end with a traceback, or show figures of elsewhere without a word; or a password."""
    with started(TULLE_PROMETHEUS_URL=URL) as shell:
        for line in ("stat", "edges", "routes", "top", "graph"):
            done = shell(line)
            assert done.returncode == 0, done.stderr
            assert "Prometheus at http://127.0.0.1:1: " in done.stderr, line
            assert "the figures are the control plane's own instead" in done.stderr
            assert "Traceback" not in done.stderr + done.stdout
            assert "secret" not in done.stderr + done.stdout
        status = json.loads(raw(shell, "/tulle/v1/status"))["figures"]
        assert status["prometheus"] == "http://127.0.0.1:1"
        assert "Prometheus" in status["notice"], "where the page's mesh health reads it"
        assert "tulle_prometheus_failures_total 1" in raw(shell, "/metrics")
        checked = {one["what"]: one for one in json.loads(shell("check", "-o", "json").stdout)}
        assert checked["figures and records are whole"]["mark"] == "warning"
        assert "the figures are the control plane's own instead" in checked["figures and records are whole"]["detail"]


def raw(shell: Shell, path: str) -> str:
    """What the control plane answers at a path."""
    kubeconfig = Path(shell.env["TULLE_STATE_DIR"]) / "kubeconfig"
    argv = [kubectl_binary(), "--kubeconfig", str(kubeconfig), "get", "--raw", path]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
