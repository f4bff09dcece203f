"""All tests of this folder once more, by a user without any privilege, in a user namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandboxes import (
    ROOT,
    SOMEBODY,
)

pytestmark = [pytest.mark.e2e, pytest.mark.netns]


@pytest.mark.skipif(not ROOT, reason="this is the run without root")
def test_without_root(folder: Path) -> None:
    """Everything above, by a user without any privilege, in a user namespace."""
    root = Path(__file__).resolve().parents[3]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = f"{root / 'src'}:{sysconfig.get_path('purelib')}"
    os.chown(folder, SOMEBODY, SOMEBODY)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        somebody: dict[str, Any] = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}
        return subprocess.run(
            argv, env=environment, cwd=root, capture_output=True, text=True, check=False, timeout=240, **somebody
        )

    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system):
        with contextlib.suppress(OSError):
            if run(python, "-c", f"import pytest, msgspec; open({str(Path(__file__))!r})").returncode == 0:
                break
    else:
        pytest.skip("no interpreter here that another user may run and that has what the tests need")
    done = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(root / "pyproject.toml"), str(Path(__file__).parent)
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "no network namespaces here" not in done.stdout or not _user_namespaces_work()


def _user_namespaces_work() -> bool:
    return subprocess.run(["unshare", "-Un", "true"], user=SOMEBODY, capture_output=True, check=False).returncode == 0
