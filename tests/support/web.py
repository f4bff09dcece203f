"""A service of three instances in three places and a caller, all of them real processes in the mesh, for tests of resilience."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.mesh import TULLE, Mesh, ended
from tests.support.waiting import until

# Answers its name, by HTTP and by gRPC; `slow` in the path takes a second, `slower` three. While a file is there: `fail`: 500;
# `load`: what it says is told as the instance's load (ORCA); `lose`: requests for `lost` are noted in `lost.txt`, with their
# headers and when, and get no answer at all; `stuck`: nothing is answered until it is gone.
SERVER = """
import concurrent.futures, http.server, os, pathlib, sys, time
import grpc
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1  # an answer is one write: one that has begun could not be repeated
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if "lost" in self.path and (folder / "lose").exists():
            with (folder / "lost.txt").open("a") as file: print(self.command, self.path, *self.headers, time.time(), file=file)
            self.close_connection = True
            return
        if "slow" in self.path: time.sleep(3 if "slower" in self.path else 1)
        while (folder / "stuck").exists(): (folder / "waits").touch(); time.sleep(0.05)
        body = name.encode()
        self.send_response(500 if (folder / "fail").exists() else 200)
        self.send_header("content-length", str(len(body)))
        if (folder / "load").exists(): self.send_header("endpoint-load-metrics", (folder / "load").read_text())
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
    do_HEAD = do_OPTIONS = do_POST = do_GET
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
class Calls(grpc.GenericRpcHandler):
    def service(self, call): return grpc.unary_unary_rpc_method_handler(lambda asked, context: name.encode())
server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Calls()])
server.add_insecure_port("127.0.0.1:8001")
server.start()
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""

# Asks so many times, so many at once, `*` in the path being the number of the request; prints what came: `[status, body,
# cookie]` each, and 0 with the error where nothing did.
CLIENT = """
import concurrent.futures, http.client, json, sys
path, count, parallel, headers, method, host = sys.argv[1:]
count, parallel, headers = int(count), int(parallel), json.loads(headers)
def ask(number):
    connection = http.client.HTTPConnection(host, 8000, timeout=20)
    try:
        connection.request(method, path.replace("*", str(number)), headers=headers)
        reply = connection.getresponse()
        return [reply.status, reply.read().decode(), reply.getheader("set-cookie") or ""]
    except (OSError, http.client.HTTPException) as error:
        return [0, repr(error), ""]
with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    print(json.dumps(list(pool.map(ask, range(count)))))
"""

INSTANCES = {"north-1": ("eu", "north"), "south-1": ("eu", "south"), "us-1": ("us", "east")}


class Web:
    """A service of three instances in three places, and a caller in eu/north."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder, self.started = mesh, folder, False
        self.children: dict[str, subprocess.Popen[str]] = {}
        (folder / "server.py").write_text(SERVER)
        (folder / "client.py").write_text(CLIENT)
        try:
            for name in INSTANCES:
                self.start(name)
            argv = ["run", "--service", "caller", *self.place("eu", "north"), "--", "sleep", "infinity"]
            self.children["caller"] = subprocess.Popen([*TULLE, *argv], env=mesh.env, stderr=subprocess.PIPE, text=True)
            self.until(
                lambda: {body for status, body, _ in self.ask(20) if status == 200} == set(INSTANCES), "all instances answer"
            )
        except BaseException:  # no fixture ends what was never made
            self.stop()
            raise
        self.started = True

    @staticmethod
    def place(region: str, zone: str) -> list[str]:
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
        return [word for label, value in labels.items() for word in ("--label", f"{label}={value}")]

    def start(self, name: str, *options: str) -> None:
        """An instance more, with options of `tulle run`; it takes traffic once it listens."""
        here = self.folder / name
        here.mkdir(exist_ok=True)
        place = self.place(*INSTANCES.get(name, ("", "")))
        argv = ["run", "--service", "web", "--version", name, "--port", "8000:http", "--port", "8001:grpc", *place, *options]
        program = [sys.executable, str(self.folder / "server.py"), name, str(here)]
        self.children[name] = subprocess.Popen(
            [*TULLE, *argv, "--", *program], env=self.mesh.env, stderr=subprocess.PIPE, text=True
        )

    def end(self, name: str) -> None:
        """An instance less, as a person ends it: it drains."""
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        assert ended(child), f"{name} was told to end, and did not within a minute"

    def stop(self) -> None:
        """All of them, at once."""
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        late = [name for name, child in self.children.items() if not ended(child)]
        assert late == []

    def ask(
        self,
        count: int,
        path: str = "/",
        parallel: int = 4,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        host: str = "web",
    ) -> list[Any]:
        """(status, body, cookie) of requests by the caller; none while it is started."""
        client = [sys.executable, str(self.folder / "client.py"), path, str(count), str(parallel), json.dumps(headers or {})]
        ran = self.mesh.inside(*client, method, host, workload="caller", check=self.started)
        return json.loads(ran.out) if ran.code == 0 else []

    def names(self, count: int = 20, headers: dict[str, str] | None = None) -> Counter[str]:
        """Who answered 200."""
        return Counter(body for status, body, _cookie in self.ask(count, headers=headers) if status == 200)

    def fail(self, name: str, fails: bool = True) -> None:
        """An instance answers 500 from now on, or no longer."""
        file = self.folder / name / "fail"
        file.touch() if fails else file.unlink(missing_ok=True)

    def apply(self, policy: str, **notes: Any) -> None:
        """A DestinationRule with this policy (and annotations of `tulle.dev`, in JSON), and every proxy has it."""
        said = json.dumps({f"tulle.dev/{name.replace('_', '-')}": json.dumps(value) for name, value in notes.items()})
        head = f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, annotations: {said}}}\n"
        head += "spec:\n  host: web\n"
        body = textwrap.indent(textwrap.dedent(policy), "    ")
        self.mesh.tulle("apply", "-f", "-", stdin=f"{head}  trafficPolicy:\n{body}")
        self.mesh.synced()

    def rule(self, http: str, subset: str = "") -> None:
        """A VirtualService that says this of all requests, and every proxy has it."""
        head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n"
        route = f'  - route: [{{destination: {{host: web, subset: "{subset}", port: {{number: 8000}}}}}}]\n'
        self.mesh.tulle("apply", "-f", "-", stdin=head + route + textwrap.indent(textwrap.dedent(http), "    "))
        self.mesh.synced()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it, while all instances live."""

        def alive() -> bool:
            for child in self.children.values():
                assert child.poll() is None, child.communicate()[1]
            return holds()

        until(what, alive, 60, self.mesh.logs)
