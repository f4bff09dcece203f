"""The audit of dependencies: it fails for what tulle runs with, and never because nobody answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.mesh import ROOT, free_port


@contextmanager
def database(known: dict[str, list[str]], asked: list[int]) -> Iterator[str]:
    """One that knows these vulnerabilities, by name of package; the number of packages of each question goes to `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.append(len(queries))
            found = [{"vulns": [{"id": one} for one in known.get(it["package"]["name"], [])]} for it in queries]
            body = json.dumps({"results": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def audit(folder: Path, url: str) -> tuple[int, str]:
    """Exit code and words."""
    folder.mkdir(exist_ok=True)
    argv = [sys.executable, str(ROOT / "packaging/audit.py"), str(folder)]
    ran = subprocess.run(argv, env={"OSV_URL": url, "no_proxy": "*"}, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_a_known_hole_fails_the_check(tmp_path: Path) -> None:
    """Broken: tulle would go on being shipped with a package that everybody knows how to attack."""
    asked: list[int] = []
    with database({"aiohttp": ["GHSA-1", "GHSA-2"]}, asked) as url:
        code, words = audit(tmp_path / "a", url)
        assert code == 1
        assert "aiohttp" in words
        assert "GHSA-1, GHSA-2" in words
        assert audit(tmp_path / "a", url)[0] == 1
    assert len(asked) == 1, "the answer of a moment ago is good"
    assert asked[0] > 100, "every package of both lock files"
    with database({"pytest": ["GHSA-3"]}, asked) as url:
        code, words = audit(tmp_path / "b", url)
    assert code == 0
    assert "GHSA-3 (only for tests and checks)" in words
    with database({}, asked) as url:
        assert audit(tmp_path / "c", url) == (0, "")


def test_nobody_answers(tmp_path: Path) -> None:
    """Broken: without a network a developer could check nothing."""
    code, words = audit(tmp_path / "a", f"http://127.0.0.1:{free_port()}")
    assert code == 0
    assert "not audited" in words
