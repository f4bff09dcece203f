"""The page on security names tests; they are there."""

from __future__ import annotations

import re

import pytest

from tests.support.mesh import ROOT


@pytest.mark.parametrize(("heading", "least"), [("Threat model", 13), ("What is promised, and the test that shows it", 22)])
def test_every_named_test_is_there(heading: str, least: int) -> None:
    """Broken: docs/security.md would promise what nothing shows any more."""
    section = (ROOT / "docs/security.md").read_text().split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= least
    for row in rows:
        file, named = "", 0
        for word in re.findall(r"`([^`]+)`", row[-1]):
            if word.endswith(".py"):
                file = (ROOT / "tests" / word).read_text()
            else:
                assert f"def {word}(" in file, word
                named += 1
        assert named, f"no test is named for: {row[0].strip()}"
