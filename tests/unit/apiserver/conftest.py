"""A served API per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.apiserver import Raw, Running, running
from tulle.client.api import ApiClient


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    """An API server over a store in memory."""
    async with running() as one:
        yield one


@pytest.fixture
async def api(served: Running) -> AsyncIterator[ApiClient]:
    """An administrator's client."""
    async with served.client() as client:
        yield client


@pytest.fixture
async def http(served: Running) -> AsyncIterator[Raw]:
    """An administrator's plain HTTP."""
    async with served.raw() as one:
        yield one
