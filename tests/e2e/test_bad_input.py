"""Mistakes come back as sentences that mend them, with file, line and field; nothing is half applied; exit code 65."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.mesh import Mesh

GOOD = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: good}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
---
"""

VIRTUAL_SERVICE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: bad
spec:
  hosts:
  - reviews
  http:
  - route:
"""

# What is wrong → the document, the line it is on (within the bad document), words that must be in the sentence.
CASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "does not parse": ("kind: VirtualService\nspec: [1, 2\nfoo: bar\n", 3, ()),
    "unknown kind": (
        "apiVersion: networking.istio.io/v1\nkind: VirtualServce\nmetadata: {name: x}\nspec: {}\n",
        2,
        ("VirtualServce", "VirtualService"),
    ),
    "unknown field": (VIRTUAL_SERVICE + "    - destinaton:\n        host: reviews\n", 10, ("destinaton", "destination")),
    "wrong type": (
        VIRTUAL_SERVICE + '    - destination:\n        host: reviews\n      weight: "ten"\n',
        12,
        ("spec.http[0].route[0].weight", "integer"),
    ),
    "host without a service": (
        VIRTUAL_SERVICE + "    - destination:\n        host: reviewz\n",
        11,
        ("spec.http[0].route[0].destination.host", "reviewz", "reviews"),
    ),
    "subset that no rule defines": (
        VIRTUAL_SERVICE + "    - destination:\n        host: reviews\n        subset: v9\n",
        12,
        ("spec.http[0].route[0].destination.subset", "v9"),
    ),
    "weights that sum to zero": (
        VIRTUAL_SERVICE
        + "".join(f"    - destination:\n        host: {host}\n      weight: 0\n" for host in ("reviews", "ratings")),
        9,
        ("weight",),
    ),
    "duplicate name": (
        GOOD.strip().removesuffix("---") + "\n---\n" + GOOD.strip().removesuffix("---"),
        0,
        ("good", "DestinationRule"),
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_apply_refuses_with_a_sentence(mesh: Mesh, tmp_path: Path, what: str) -> None:
    """The file has a good object first: it must not be written either."""
    text, line, words = CASES[what]
    file = tmp_path / "mistake.yaml"
    file.write_text(GOOD.lstrip() + text)
    ran = mesh.tulle("apply", "-f", str(file), check=False)
    assert ran.code == 65, ran.text
    for word in words:
        assert word in ran.err, ran.err
    if line:
        at = GOOD.lstrip().count("\n") + line
        assert any(f"mistake.yaml:{number}" in ran.err for number in (at, at - 1)), f"expected line {at}\n{ran.err}"
    assert "Traceback" not in ran.text
    assert mesh.kubectl("get", "destinationrule", "good", check=False).code == 1, "nothing may be half applied"


def test_one_good_and_one_bad_file(mesh: Mesh, tmp_path: Path) -> None:
    """A folder is one piece: what is wrong in one file stops the others from being written."""
    (tmp_path / "a.yaml").write_text(GOOD.strip().removesuffix("---"))
    (tmp_path / "b.yaml").write_text(CASES["unknown field"][0])
    assert mesh.tulle("apply", "-f", str(tmp_path), check=False).code == 65
    assert mesh.kubectl("get", "destinationrule", "good", check=False).code == 1


def test_kubectl_hears_the_sentence_too(mesh: Mesh) -> None:
    """kubectl's own validation and the server's words, with validation on."""
    ran = mesh.kubectl("apply", "-f", "-", stdin=CASES["unknown field"][0], check=False)
    assert ran.code == 1
    assert "destinaton" in ran.err


def test_kubectl_is_warned_of_what_points_to_nothing(mesh: Mesh) -> None:
    """kubectl stores it, as Kubernetes would, and shows the sentence as a warning."""
    ran = mesh.kubectl("apply", "--dry-run=server", "-f", "-", stdin=CASES["host without a service"][0])
    assert "Warning: [TUL0101] spec.http[0].route[0].destination.host" in ran.err
    assert "reviewz" in ran.err


def test_usage_errors(mesh: Mesh) -> None:
    """Exit code 64 for what was typed wrong, with the word that is wrong."""
    ran = mesh.tulle("apply", "--no-such-flag", check=False)
    assert ran.code == 64
    assert "--no-such-flag" in ran.err
    ran = mesh.tulle("demo", "up", "--capture", "magic", check=False)
    assert ran.code == 64


def test_a_port_in_use_is_named_before_anything_starts(mesh: Mesh) -> None:
    """The port and who has it; nothing is started."""
    other = Mesh()
    other.ingress_port = mesh.ingress_port
    try:
        ran = other.up(check=False)
        assert ran.code == 1
        assert str(mesh.ingress_port) in ran.err
        assert "in use" in ran.err
        assert not (other.home / "run" / "demo" / "state.json").exists()
    finally:
        other.remove()


def test_commands_without_a_mesh_say_how_to_get_one(tmp_path: Path) -> None:
    """No control plane: a sentence and a hint, not a stack of exceptions."""
    none = Mesh()
    try:
        for argv in (("get", "services"), ("proxy", "status"), ("run", "--service", "x", "--", "true")):
            ran = none.tulle(*argv, check=False)
            assert ran.code == 1, ran.text
            assert "tulle demo up" in ran.err or "tulle control-plane" in ran.err, ran.err
            assert "Traceback" not in ran.err
    finally:
        none.remove()
