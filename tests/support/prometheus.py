"""The real Prometheus (Debian's `prometheus`, with `promtool`), started from what `tulle observability` writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run
from tests.support.mesh import Mesh, free_port

Row = tuple[dict[str, str], float]


class Prometheus:
    """It reads a mesh every four seconds instead of every 15."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        if not shutil.which("prometheus") or not shutil.which("promtool"):
            pytest.skip("prometheus and promtool are not installed (Debian package prometheus)")
        self.folder, self.port = folder / "prometheus", free_port()
        mesh.tulle("observability", "prometheus", "--folder", str(self.folder), "--write")
        for what, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
            checked = run(["promtool", "check", what, str(self.folder / file)], mesh.env)
            assert checked.code == 0, checked.text
        config = self.folder / "prometheus.yml"
        config.write_text(config.read_text().replace("15s", "4s"))
        self.log = (folder / "prometheus.log").open("w")
        argv = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        argv += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        self._process = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.STDOUT, env=mesh.env)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self.log.close()

    @property
    def said(self) -> str:
        """What it has logged."""
        return Path(self.log.name).read_text()

    def ask(self, path: str, **query: str) -> Any:
        """Its API, from the moment that it answers."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise AssertionError(f"{query}: {error.read().decode()}") from error
            except OSError:
                assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)

    def targets(self) -> dict[str, dict[str, Any]]:
        """What it reads, by job and instance."""
        return {f"{one['labels']['job']} {one['labels']['instance']}": one for one in self.ask("targets")["activeTargets"]}

    def rows(self, query: str) -> list[Row]:
        """The answer of a query; values that are no numbers are left out."""
        found = self.ask("query", query=query)["result"]
        rows = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in rows if value == value]

    def until(self, query: str, *, within: float = 90) -> list[Row]:
        """Its rows, once one of them is more than nothing."""
        deadline = time.monotonic() + within
        while True:
            rows = self.rows(query)
            if any(value > 0 for _labels, value in rows):
                return rows
            assert time.monotonic() < deadline, f"{query}: {rows}"
            time.sleep(0.5)
