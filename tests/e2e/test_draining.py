"""A service is replaced, or an instance dies, under clients that keep their connections: nobody notices."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, Mesh
from tests.support.web import INSTANCES, Web

# Each client keeps one connection for as long as the server lets it, and opens another only when it is told that this one ends.
# Runs until the file `stop` is there and each has asked so often; prints `[start, seconds, status or error, body]` of every
# request.
STEADY = """
import concurrent.futures, http.client, json, pathlib, socket, sys, time
import h2.config, h2.connection, h2.events
kind, clients, stop, least = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])

class Http1:
    def __init__(self): self.connection = http.client.HTTPConnection("web", 8000, timeout=20)
    def ask(self):
        self.connection.request("GET", "/")
        reply = self.connection.getresponse()
        body = reply.read().decode()
        if reply.getheader("connection") == "close": self.connection.close()
        return reply.status, body

class Http2:
    ended = True
    def open(self):
        self.socket = socket.create_connection(("web", 8000), timeout=20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection(); self.ended = False
    def ask(self):
        if self.ended: self.open()
        number = self.h2.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "web:8000"), (":path", "/")]
        self.h2.send_headers(number, pseudo, end_stream=True)
        self.socket.sendall(self.h2.data_to_send())
        status, body = 0, b""
        while True:
            data = self.socket.recv(65536)
            if not data: raise ConnectionError("closed")
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated): self.ended = True
                if getattr(event, "stream_id", None) != number: continue
                if isinstance(event, h2.events.ResponseReceived): status = int(dict(event.headers)[":status"])
                if isinstance(event, h2.events.DataReceived): body += event.data
                if isinstance(event, h2.events.StreamReset): raise ConnectionError("reset")
                if isinstance(event, h2.events.StreamEnded):
                    self.socket.sendall(self.h2.data_to_send())
                    return status, body.decode()

def client(_number):
    found, one = [], {"http1": Http1, "http2": Http2}[kind]()
    while len(found) < least or not stop.exists():
        start = time.time()
        try: status, body = one.ask()
        except Exception as error: status, body = repr(error), ""
        found.append([start, time.time() - start, status, body])
    return found

with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    print(json.dumps([one for part in pool.map(client, range(clients)) for one in part]))
"""


class Load:
    """Clients inside the caller, of one version of HTTP, until `done`."""

    def __init__(self, web: Web, kind: str, clients: int = 4, least: int = 0) -> None:
        (web.folder / "steady.py").write_text(textwrap.dedent(STEADY))
        self.stop = web.folder / f"stop-{kind}"
        argv = [sys.executable, str(web.folder / "steady.py"), kind, str(clients), str(self.stop), str(least)]
        self.child = subprocess.Popen(
            [*TULLE, "exec", "caller", "--", *argv], env=web.mesh.env, stdout=subprocess.PIPE, text=True
        )

    def done(self) -> list[Any]:
        """Every request: when, how long, the status or what went wrong, and who answered."""
        self.stop.touch()
        found: list[Any] = json.loads(self.child.communicate(timeout=180)[0])
        self.stop.unlink()
        return found


@pytest.fixture(scope="module")
def web(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    found = Web(mesh, tmp_path_factory.mktemp("web"))
    yield found
    found.stop()


def failures(found: list[Any]) -> list[Any]:
    return [one for one in found if one[2] != 200]


def test_a_rolling_replacement_fails_no_request(web: Web) -> None:
    """Broken: each roll-out would cost its callers some requests."""
    loads = [Load(web, kind, clients=4, least=1250) for kind in ("http1", "http2")]
    for name in list(INSTANCES):
        web.start(f"{name}-new")
        web.until(lambda name=name: f"{name}-new" in web.names(20), f"{name}-new answers")  # type: ignore[misc]
        web.end(name)
    assert set(web.names(40)) == {f"{name}-new" for name in INSTANCES}
    for load in loads:
        found = load.done()
        assert failures(found) == []
        assert len(found) >= 5000
        assert {one[3] for one in found} >= {f"{name}-new" for name in INSTANCES}


def test_a_dead_instance_is_out_of_rotation_below_a_second(web: Web) -> None:
    """Broken: callers would go on to run into an instance that has crashed."""
    name = "victim"
    web.start(name)
    web.until(lambda: name in web.names(20), "the victim answers")
    load = Load(web, "http1")
    web.until(lambda: name in web.names(20), "the load runs")
    (pid,) = [int(one) for one in pids(str(web.folder / name))]
    killed = time.time()
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=True)
    web.until(lambda: name not in web.names(40), "the victim is out")
    web.children.pop(name).wait(60)
    found = load.done()
    # What the instance had taken when it died may have been acted on: only that is not asked again.
    assert [one for one in failures(found) if one[0] > killed + 0.1 or "connection termination" not in one[3]] == []
    assert [one for one in found if one[3] == name and one[0] > killed + 1] == []
    assert max(one[1] for one in found if one[0] > killed - 1) < 1, "a request waited for a dead instance"


def pids(argument: str) -> list[str]:
    """The servers that were started with an argument, by what the kernel says of them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if argument in words and words[1:2] and words[1].endswith("server.py"):
            found.append(process.name)
    return found
