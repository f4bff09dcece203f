"""One demo for the tests that only use it; tests that break things start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mesh import Mesh


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """A running demo. Whoever changes its objects puts them back."""
    running = Mesh()
    started = running.up()
    assert started.code == 0
    yield running
    running.remove()


@pytest.fixture
def own_mesh() -> Iterator[Mesh]:
    """A running demo for one test that breaks it."""
    running = Mesh()
    running.up()
    yield running
    running.remove()
