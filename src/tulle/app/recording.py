"""Recorded calls in a control plane: what nodes tell, what is kept of it and written, and who may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from tulle.app.explained import explained
from tulle.app.peers import Peers
from tulle.control.telemetry.keeping import Keeping
from tulle.control.telemetry.recorded import Kept
from tulle.control.telemetry.recorded_api import add_recorded
from tulle.core.pipeline import Pipeline
from tulle.ports import Store


class Recording:
    """`file` keeps them (None: they end with the process); `began` is when this one started; `peers` are the others, if any."""

    def __init__(self, store: Store, pipeline: Pipeline, file: Path | None, began: float, peers: Peers | None) -> None:
        self.kept = Kept(began)
        self._keeping = Keeping(file, self.kept)
        self._explained = partial(explained, pipeline, store)
        self._peers = peers
        self.load, self.run, self.close = self._keeping.load, self._keeping.run, self._keeping.write

    def add(self, app: web.Application, reporter: Callable[[web.Request], str]) -> None:
        """Serve it; `reporter` is the node that asks, or ""."""
        add_recorded(app, self.kept, reporter, self._explained, self._others)

    async def _others(self, path: str, query: Mapping[str, str]) -> Sequence[Any]:
        return await self._peers.answers(path, query) if self._peers is not None else []
