"""Recorded calls in a control plane: what nodes tell, what is kept of it and written, and who may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from tulle.app.explained import explained
from tulle.app.peers import Peers
from tulle.control.metrics import Metric
from tulle.control.telemetry.keeping import Keeping
from tulle.control.telemetry.recorded import Kept
from tulle.control.telemetry.recorded_api import add_recorded
from tulle.core.pipeline import Pipeline
from tulle.core.recorded.early import named
from tulle.ports import Store


class Recording:
    """`file` keeps them (None: they end with the process) for `keep` seconds; `began` is when this one started; `peers` are the
    others, if any.
    """

    def __init__(
        self, store: Store, pipeline: Pipeline, file: Path | None, began: float, peers: Peers | None, keep: float
    ) -> None:
        self.kept = Kept(began, keep)
        self._keeping = Keeping(file, self.kept)
        self._explained = partial(explained, pipeline, store)
        self._named = partial(named, pipeline)
        self._peers = peers
        self.load, self.run, self.close = self._keeping.load, self._keeping.run, self._keeping.write

    def add(self, app: web.Application, reporter: Callable[[web.Request], str]) -> None:
        """Serve it; `reporter` is the node that asks, or ""."""
        add_recorded(app, self.kept, reporter, self._explained, self._others, notice=lambda: self.notice, named=self._named)

    @property
    def notice(self) -> str:
        """What people are to know of it: "" while all is well."""
        return self._keeping.notice

    def metrics(self) -> list[Metric]:
        """How much is kept, and what could not be."""
        rows = (
            ("tulle_recorded_shapes", "gauge", "Shapes of recorded calls that are kept.", self.kept.size),
            ("tulle_recorded_dropped_total", "counter", "Calls that proxies told of and nobody looked at.", self.kept.dropped),
            ("tulle_recorded_left_out_total", "counter", "Rows of nodes' reports that made no sense.", self.kept.left_out),
            ("tulle_recorded_unwritten_total", "counter", "Times that the record could not be written.", self._keeping.failed),
        )
        return [Metric(name, kind, what, [({}, float(number))]) for name, kind, what, number in rows]

    async def _others(self, path: str, query: Mapping[str, str]) -> Sequence[Any]:
        return await self._peers.answers(path, query) if self._peers is not None else []
