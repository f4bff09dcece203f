"""The wheel: what people install must have the sample, the licence, the man page and the completions, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_what_is_in_it(wheel: Path) -> None:
    """An installed tulle would lack its demo, its licence, or carry generated stubs of a megabyte."""
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "tulle/py.typed",
        "tulle/samples/bookinfo/bookinfo.yaml",
        "tulle/samples/bookinfo/productpage.html",
        "dist-info/licenses/LICENSE",
        "dist-info/licenses/NOTICE",
        "data/share/man/man1/tulle.1",
        "data/share/bash-completion/completions/tulle",
        "data/share/tulle/systemd/tulle-node.service",
        "data/share/tulle/systemd/tulle-app@.service",
    ):
        assert any(name.endswith(wanted) for name in names), wanted
    assert not [name for name in names if name.endswith(".pyi") or "__pycache__" in name]


def test_it_runs(wheel: Path, tmp_path: Path) -> None:
    """The program that the wheel brings would not start. Its dependencies are those of this environment."""
    target = tmp_path / "site"
    installer = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    done = subprocess.run(
        [*installer, "--target", str(target), str(wheel)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    code = (
        "import tulle, sys; assert tulle.__file__.startswith(sys.argv[1]), tulle.__file__; "
        "from tulle.app.bookinfo import samples_dir; print(samples_dir()); "
        "from tulle.cli.main import run; sys.exit(run(['version']))"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert "1.40" in done.stdout
