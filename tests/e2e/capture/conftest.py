"""A network of sandboxes for each test: as root, or as whoever runs the tests in a user namespace."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.sandboxes import (
    ROOT,
)
from tulle.kit.errors import Refused, Unavailable
from tulle.node.netns import NetnsNetwork


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tn-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def network(folder: Path) -> AsyncIterator[NetnsNetwork]:
    made = NetnsNetwork(f"test-{folder.name}", folder, rootless=not ROOT)
    try:
        await made.open()
    except (Refused, Unavailable) as error:
        pytest.skip(f"no network namespaces here: {error.message}")
    yield made
    await made.teardown()
