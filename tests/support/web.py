"""A service of three instances in three places and a caller, all of them real processes in the mesh, for tests of resilience."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.mesh import TULLE, Mesh

# Answers its name; `slow` in the path takes a second; 500 while the file `fail` is there.
SERVER = """
import http.server, os, pathlib, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if "slow" in self.path: time.sleep(1)
        body = name.encode()
        self.send_response(500 if (folder / "fail").exists() else 200)
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""

# Asks so many times, so many at once; prints what came: `[status, body]` each.
CLIENT = """
import concurrent.futures, http.client, json, sys
path, count, parallel, headers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
def ask(number):
    connection = http.client.HTTPConnection("web", 8000, timeout=20)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    return [reply.status, reply.read().decode(), reply.getheader("set-cookie") or ""]
with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    print(json.dumps(list(pool.map(ask, range(count)))))
"""

INSTANCES = {"north-1": ("eu", "north"), "south-1": ("eu", "south"), "us-1": ("us", "east")}


class Web:
    """A service of three instances in three places, and a caller in eu/north."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.children: dict[str, subprocess.Popen[str]] = {}
        (folder / "server.py").write_text(SERVER)
        (folder / "client.py").write_text(CLIENT)
        for name in INSTANCES:
            self.start(name)
        argv = ["run", "--service", "caller", *self.place("eu", "north"), "--", "sleep", "1000"]
        self.children["caller"] = subprocess.Popen([*TULLE, *argv], env=mesh.env, stderr=subprocess.PIPE, text=True)
        self.until(lambda: {body for status, body, _ in self.ask(20) if status == 200} == set(INSTANCES), "all instances answer")

    @staticmethod
    def place(region: str, zone: str) -> list[str]:
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
        return [word for label, value in labels.items() for word in ("--label", f"{label}={value}")]

    def start(self, name: str) -> None:
        """An instance more; it takes traffic once it listens."""
        here = self.folder / name
        here.mkdir(exist_ok=True)
        place = self.place(*INSTANCES.get(name, ("", "")))
        argv = ["run", "--service", "web", "--version", name, "--port", "8000:http", *place]
        program = [sys.executable, str(self.folder / "server.py"), name, str(here)]
        self.children[name] = subprocess.Popen(
            [*TULLE, *argv, "--", *program], env=self.mesh.env, stderr=subprocess.PIPE, text=True
        )

    def end(self, name: str) -> None:
        """An instance less, as a person ends it: it drains."""
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        child.wait(60)

    def stop(self) -> None:
        """All of them, at once."""
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            child.wait(60)

    def ask(self, count: int, path: str = "/", parallel: int = 4, headers: dict[str, str] | None = None) -> list[Any]:
        """(status, body, cookie) of requests by the caller; none while it is not there yet."""
        client = [sys.executable, str(self.folder / "client.py"), path, str(count), str(parallel), json.dumps(headers or {})]
        ran = self.mesh.inside(*client, workload="caller", check=False)
        return json.loads(ran.out) if ran.code == 0 else []

    def names(self, count: int = 20, headers: dict[str, str] | None = None) -> Counter[str]:
        """Who answered 200."""
        return Counter(body for status, body, _cookie in self.ask(count, headers=headers) if status == 200)

    def fail(self, name: str, fails: bool = True) -> None:
        """An instance answers 500 from now on, or no longer."""
        file = self.folder / name / "fail"
        file.touch() if fails else file.unlink(missing_ok=True)

    def apply(self, policy: str) -> None:
        """A DestinationRule with this policy, and every proxy has it."""
        head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n"
        body = textwrap.indent(textwrap.dedent(policy), "    ")
        self.mesh.tulle("apply", "-f", "-", stdin=f"{head}  trafficPolicy:\n{body}")
        self.mesh.synced()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            for child in self.children.values():
                assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline, f"{what}: not within a minute\n{self.mesh.logs()}"
