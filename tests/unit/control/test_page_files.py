"""The page's files: whole, small, and with nothing that is not ours unsaid."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from tulle.control.ui.page import POLICY

STATIC = Path(str(resources.files("tulle.control.ui"))) / "static"
OURS = sorted(file for file in STATIC.rglob("*.js") if "vendor" not in file.parts)


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(STATIC)))
def test_a_module(file: Path) -> None:
    """Broken: a view would not load, because of a name that no file has; or take a text of the mesh for HTML."""
    text = file.read_text()
    for name in re.findall(r"""from "(\.[^"]+)";""", text):
        assert (file.parent / name).resolve().is_file(), f"{file.name} imports {name}"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(|new Function", text
    )
    assert not re.search(r"https?://(?!www\.w3\.org/)", text), "nothing of another origin"
    assert len(text.splitlines()) < 400


def test_every_view_is_there() -> None:
    """Broken: an entry of the menu would lead nowhere."""
    app = (STATIC / "app.js").read_text()
    views = re.findall(r'^  \["(\w+)", "', app, re.MULTILINE) + re.findall(r"(\w+): \"", re.findall(r"BELOW = \{(.*)\}", app)[0])
    assert len(views) > 10
    for view in views:
        assert (STATIC / "views" / f"{view}.js").is_file(), view


def test_the_policy_is_strict() -> None:
    """Broken: what was slipped into a page could run, send what it sees elsewhere, or be framed by a page of others."""
    said = dict(part.strip().partition(" ")[::2] for part in POLICY.split(";"))
    assert said["default-src"] == "'none'"
    assert said.pop("require-trusted-types-for") == "'script'"
    assert set(said.values()) == {"'none'", "'self'"}, "no word like unsafe-inline, no other origin"
    assert {"base-uri", "form-action", "frame-ancestors"} <= {name for name, value in said.items() if value == "'none'"}


def test_every_view_is_looked_at() -> None:
    """Broken: a new view would be tried neither with a screen reader's eyes, nor on a phone, nor in the dark."""
    tried = (Path(__file__).parents[2] / "e2e" / "test_page.py").read_text()
    for view in (file.stem for file in (STATIC / "views").glob("*.js")):
        assert f'"{view}"' in tried or f'"{view}/' in tried or f'f"{view}/' in tried, view


def test_what_is_not_ours() -> None:
    """Broken: a vendored file could be changed with nobody noticing."""
    manifest = (STATIC / "vendor" / "README.md").read_text()
    for file in (STATIC / "vendor").glob("*.js"):
        assert f"`{file.name}`" in manifest
        assert hashlib.sha256(file.read_bytes()).hexdigest() in manifest


def test_what_is_pure(tmp_path: Path) -> None:
    """Broken: finding would hide what should be found, a difference show what did not change, nodes lie on each other, or mesh
    health not tell what was lost.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    for name in ("expression", "diff", "health", "layout"):
        shutil.copy(STATIC / f"{name}.js", tmp_path / f"{name}.mjs")
    script = Path(__file__).with_name("page_pure.mjs")
    done = subprocess.run([node, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
