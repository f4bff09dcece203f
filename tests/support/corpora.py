"""Real inputs that nobody here wrote, read in place; a test that needs them skips where the folder is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3] / "shared" / "corpora"


def corpora(path: str) -> Path:
    """A file or folder of the corpora; skips the test where it is absent."""
    found = ROOT / path
    if not found.exists():
        pytest.skip(f"corpora/{path} is not beside this checkout")
    return found
