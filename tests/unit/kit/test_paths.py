"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tulle.kit import paths


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test's own."""
    monkeypatch.setenv("TULLE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TULLE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("TULLE_KUBECONFIG", raising=False)
    monkeypatch.delenv("TULLE_NODE_SOCKET", raising=False)
    return tmp_path


def test_a_mesh_in_earnest_goes_before_the_demo(home: Path) -> None:
    """`tulle apply` would write to the demo although a real control plane runs on this machine."""
    assert paths.kubeconfig() == home / "state" / "kubeconfig"
    demo = paths.demo_state_dir() / "kubeconfig"
    demo.parent.mkdir(parents=True)
    demo.touch()
    assert paths.kubeconfig() == demo, "with only a demo, commands go to the demo"
    (home / "state" / "kubeconfig").touch()
    assert paths.kubeconfig() == home / "state" / "kubeconfig"


def test_variables_decide(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who names a file would be sent elsewhere."""
    monkeypatch.setenv("TULLE_KUBECONFIG", "/x/kubeconfig")
    monkeypatch.setenv("TULLE_NODE_SOCKET", "/x/node.sock")
    assert paths.kubeconfig() == Path("/x/kubeconfig")
    assert paths.node_socket() == Path("/x/node.sock")
