"""A service is replaced, or an instance dies, under clients that keep their connections: nobody notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, Mesh, envoy_of
from tests.support.web import INSTANCES, Web

# Each client keeps one connection for as long as the server lets it, and opens another only when it is told that this one ends;
# grpcio does that by itself, and asks no call again that it has sent.
# Runs until the file `stop` is there and each has asked so often; prints `[start, seconds, status or error, body]` of every
# request, and that as its last act: what is printed is whole.
STEADY = """
import concurrent.futures, http.client, json, pathlib, socket, sys, time
import h2.config, h2.connection, h2.events
kind, host, port, named = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
clients, stop, least = int(sys.argv[5]), pathlib.Path(sys.argv[6]), int(sys.argv[7])

class Http1:
    def __init__(self): self.connection = http.client.HTTPConnection(host, port, timeout=20)
    def close(self): self.connection.close()
    def ask(self):
        self.connection.request("GET", "/", headers={"host": named})
        reply = self.connection.getresponse()
        body = reply.read().decode()
        if reply.getheader("connection") == "close": self.connection.close()
        return reply.status, body

class Http2:
    ended, socket = True, None
    def close(self):
        if self.socket: self.socket.close()
    def open(self):
        self.close()
        self.socket = socket.create_connection((host, port), timeout=20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection(); self.ended = False
    def ask(self):
        if self.ended: self.open()
        number = self.h2.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", named), (":path", "/")]
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

class Grpc:
    def __init__(self):
        import grpc
        options = [("grpc.default_authority", named), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"{host}:{port}", options)
        self.call = self.channel.unary_unary("/Web/Name")
    def ask(self): return 200, self.call(b"", timeout=20).decode()
    def close(self): self.channel.close()

def client(_number):
    found, one = [], {"http1": Http1, "http2": Http2, "grpc": Grpc}[kind]()
    while len(found) < least or not stop.exists():
        start = time.time()
        try: status, body = one.ask()
        except Exception as error: status, body = repr(error), ""
        found.append([start, time.time() - start, status, body])
        if len(found) == 10: stop.with_suffix(".began").touch()
    one.close()
    return found

with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    found = [one for part in pool.map(client, range(clients)) for one in part]
print(json.dumps(found), flush=True)
"""


KINDS = ("http1", "http2", "grpc")

# The service from outside.
OUTSIDE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec: {parentRefs: [{name: demo}], hostnames: [web.example], rules: [{backendRefs: [{name: web, port: 8000}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web}
spec: {parentRefs: [{name: demo}], hostnames: [rpc.example], rules: [{backendRefs: [{name: web, port: 8001}]}]}
"""


class Load:
    """Clients of one kind, inside the caller or outside the mesh, until `done`, or until `end` at the latest."""

    def __init__(self, web: Web, kind: str, clients: int = 4, least: int = 0, *, outside: bool = False) -> None:
        self.stop = web.folder / f"stop-{kind}-{outside}"
        self.began = self.stop.with_suffix(".began")
        port = 8001 if kind == "grpc" else 8000
        to = ["web", str(port), f"web:{port}"]
        if outside:
            to = ["127.0.0.1", str(web.mesh.ingress_port), "rpc.example" if kind == "grpc" else "web.example"]
        program = [sys.executable, "-X", "faulthandler", str(web.folder / "steady.py")]
        inside = [] if outside else [*TULLE, "exec", "caller", "--"]
        self.argv = [*inside, *program, kind, *to, str(clients), str(self.stop), str(least)]
        # A session of its own, so that what `tulle exec` started ends with it.
        self.child = subprocess.Popen(
            self.argv, env=web.mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def done(self) -> list[Any]:
        """Every request: when, how long, the status or what went wrong, and who answered."""
        self.stop.touch()
        try:
            out, err = self.child.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGABRT)  # faulthandler says what each thread waits for
            out, err = self.child.communicate()
        assert self.child.returncode == 0, f"{self.argv}: exit {self.child.returncode}\n{out[-1000:]}\n{err}"
        assert out, f"{self.argv}: ended well and printed nothing\n{err}"
        found: list[Any] = json.loads(out)
        return found

    def end(self) -> None:
        """Whatever has become of it: it asks no more, and leaves nothing for a later one of its kind."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.communicate()
        self.stop.unlink(missing_ok=True)
        self.began.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def web(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    found = Web(mesh, tmp_path_factory.mktemp("web"))
    # Written once: a Python that starts while its program is written anew may read an empty one, and ends well.
    (found.folder / "steady.py").write_text(STEADY)
    mesh.tulle("apply", "-f", "-", stdin=OUTSIDE)
    mesh.synced()
    yield found
    mesh.tulle("delete", "httproute", "web")
    mesh.tulle("delete", "grpcroute", "web")
    found.stop()


@pytest.fixture
def load(web: Web) -> Iterator[Callable[..., Load]]:
    """Starts clients as `Load` does; none outlives the test."""
    started: list[Load] = []

    def start(kind: str, clients: int = 4, least: int = 0, *, outside: bool = False) -> Load:
        started.append(Load(web, kind, clients, least, outside=outside))
        return started[-1]

    yield start
    for one in started:
        one.end()


def failures(found: list[Any]) -> list[Any]:
    return [one for one in found if one[2] != 200]


def test_a_stranger_does_not_say_what_is_repeated(web: Web) -> None:
    """Broken: whoever knows Envoy's headers would have orders given again and again, and read how the mesh talks inside."""
    for name in INSTANCES:
        (web.folder / name / "lose").touch()
    asked = [
        "-d",
        "one",
        "-H",
        "x-envoy-retry-on: gateway-error,reset",
        "-H",
        "x-envoy-max-retries: 9",
        "-H",
        "host: web.example",
    ]
    answer = subprocess.run(
        ["curl", "-si", *asked, f"{web.mesh.base}/lost/stranger"], capture_output=True, text=True, check=True
    ).stdout
    assert answer.split()[1] == "503"
    assert "x-tulle" not in answer
    records = "".join(file.read_text() for file in web.folder.glob("*/lost.txt"))
    assert records.count("/lost/stranger ") == 1
    for name in INSTANCES:
        (web.folder / name / "lose").unlink()


def test_a_rolling_replacement_fails_no_request(web: Web, load: Callable[..., Load]) -> None:
    """Broken: each roll-out would cost its callers some requests."""
    loads = [load(kind, clients=2, least=850, outside=outside) for kind in KINDS for outside in (False, True)]
    for name in list(INSTANCES):
        web.start(f"{name}-new")
        web.until(lambda name=name: f"{name}-new" in web.names(20), f"{name}-new answers")  # type: ignore[misc]
        web.end(name)
    assert set(web.names(40)) == {f"{name}-new" for name in INSTANCES}
    for one in loads:
        found = one.done()
        assert failures(found) == []
        assert len(found) >= 1700
        assert {body for *_, body in found} >= {f"{name}-new" for name in INSTANCES}


@pytest.mark.parametrize(("drain", "long"), [("60s", False), ("1s", True)])
def test_what_is_under_way_ends_before_the_instance(web: Web, drain: str, long: bool) -> None:
    """Broken: each roll-out would cut what takes its time, orders among it, or one of them would keep an instance for ever."""
    name = f"slow-{drain}"
    web.start(name, "--drain", drain)
    here = web.folder / name
    web.until(lambda: name in web.names(20), f"{name} answers")
    stuck = here / "stuck"
    stuck.touch()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(web.ask, 24, "/", 24, method="POST")
        try:
            web.until((here / "waits").exists, "a request is under way")
            ending = pool.submit(web.end, name)
            if not long:
                web.until(lambda: ready(web, name) == "false", "callers are told")
                assert not ending.done()
                stuck.unlink()
            ending.result()
        finally:
            stuck.unlink(missing_ok=True)
        answered = Counter((status, body) for status, body, _cookie in asked.result())
    assert {status for status, _body in answered} == ({200, 503} if long else {200}), answered
    assert (answered[200, name] > 0) is not long


def ready(web: Web, name: str) -> str:
    """What the mesh is told of an instance."""
    path = r"jsonpath={.metadata.annotations.tulle\.dev/ready}"
    return web.mesh.kubectl("get", "workloadentry", f"web-{name}", "-o", path, check=False).out


def test_a_dead_instance_is_out_of_rotation_below_a_second(web: Web, load: Callable[..., Load]) -> None:
    """Broken: callers would run into an instance that has crashed, alone or with its sidecar, or hear of it: they only read."""
    victims = {"alone", "together"}
    for name in victims:
        web.start(name)
    web.until(lambda: victims <= set(web.names(40)), "the victims answer")
    loads = [load(kind, outside=kind == "http2") for kind in ("http1", "http2")]
    web.until(lambda: all(one.began.exists() for one in loads), "the load runs")
    dying = {name: pids(str(web.folder / name)) for name in victims}
    dying["together"].insert(0, envoy_of(web.mesh, "default/web-together"))
    assert all(pid for found in dying.values() for pid in found)
    killed = time.time()
    for pid in (*dying["alone"], *dying["together"]):
        os.kill(pid, signal.SIGKILL)
    web.until(lambda: not victims & set(web.names(40)), "the victims are out")
    for name in victims:
        web.children.pop(name).wait(60)
    for clients in loads:
        found = clients.done()
        assert failures(found) == []
        assert [one for one in found if one[3] in victims and one[0] > killed + 1] == []
        assert max(one[1] for one in found if one[0] > killed - 1) < 1, "a request waited for a dead instance"
        assert {one[3] for one in found} > victims, "the victims were never asked"


def pids(argument: str) -> list[int]:
    """The servers that were started with an argument, by what the kernel says of them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if argument in words and words[1:2] and words[1].endswith("server.py"):
            found.append(int(process.name))
    return found
