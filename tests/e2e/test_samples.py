"""Istio's routing samples beside Bookinfo's own (test_bookinfo.py), applied unchanged: they behave as their documentation says.

Their programs are containers; `tests/support/hello.py` stands in for them, run by `tulle run` with the labels that they have.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from tests.e2e.test_bookinfo import with_own_gateway, without_own_gateway
from tests.support.corpora import corpora
from tests.support.mesh import TULLE, Mesh, assert_shares, ended, fetch
from tulle.node.host_network import gives_ipv6

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "hello.py"


class App(NamedTuple):
    """A stand-in for a sample's Deployment."""

    service: str
    version: str
    ports: str
    word: str
    namespace: str = "default"


class Sample(NamedTuple):
    """Files of the corpora that are applied together, what must run, and what is seen then. `ingress`: in the demo's place.

    `services` are files with Services and the Deployments behind them, applied before anything runs.
    """

    files: tuple[str, ...]
    check: Callable[[Mesh], None]
    apps: tuple[App, ...] = ()
    ingress: bool = False
    services: tuple[str, ...] = ()


HELLO = tuple(App("helloworld", version, "5000:http", version) for version in ("v1", "v2"))
TORNADO = (App("tornado", "v1", "8888:http", "v1"),)
# The TCP port is the second.
TCP_ECHO = (App("tcp-echo", "v1", "9001:http,9000:tcp", "one"), App("tcp-echo", "v2", "9001:http,9000:tcp", "two"))
# TCP at both ports of the Service; HTTP at one that it does not have.
TCP_SERVICE = tuple(
    App("tcp-echo", version, "9003:http,9000:tcp,9001:tcp", word) for version, word in (("v1", "one"), ("v2", "two"))
)
HTTPBIN = App("httpbin", "v1", "8000:http", "v1")
RESOLVER = (App("cert-manager-resolver", "v1", "8089:http", "v1", "istio-system"),)


def hello(mesh: Mesh) -> None:
    """`/hello` answers, of both versions; nothing else does."""
    assert versions(mesh, 60) == {"v1", "v2"}
    assert fetch(f"{mesh.base}/other")[0].status == 404


def versions(mesh: Mesh, count: int) -> set[str]:
    return set(counted(mesh, count))


def counted(mesh: Mesh, count: int) -> Counter[str]:
    replies = fetch(f"{mesh.base}/hello", count)
    bad = [reply for reply in replies if reply.status != 200]
    assert not bad, f"{len(bad)} of {count}: {bad[0].status} {bad[0].body[:200]}"
    return Counter(reply.body.removeprefix("Hello version: ").partition(",")[0] for reply in replies)


def nine_to_one(mesh: Mesh) -> None:
    """Nine of ten requests go to version 1."""
    assert_shares(lambda: counted(mesh, 1000), {"v1": 0.9, "v2": 0.1})


def web_socket(mesh: Mesh) -> None:
    """A WebSocket through the gateway carries both directions."""

    async def talk() -> str:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{mesh.base}/ws") as one:
            await one.send_str("hello")
            return str(await one.receive_str(timeout=10))

    assert asyncio.run(talk()) == "v1 hello"


def says_where(mesh: Mesh) -> None:
    """Whatever is asked through the gateway is httpbin's to answer."""
    for path in ("/headers", "/status/200"):
        assert fetch(f"{mesh.base}{path}")[0].body == f"Hello version: v1, path: {path}\n"


def by_its_name(mesh: Mesh) -> None:
    """Inside the mesh a NodePort is a Service as any other."""
    assert "path: /headers" in mesh.inside("curl", "-sS", "--fail", "-m", "5", "http://httpbin:8000/headers").out


def echoes(*words: str) -> Callable[[Mesh], None]:
    """From inside, both TCP ports of the Service are answered, by all of the versions."""
    say = (
        "import socket; s = socket.create_connection(('tcp-echo', {}), 5); s.sendall(b'hello\\n'); print(s.makefile().readline())"
    )

    def check(mesh: Mesh) -> None:
        for port in (9000, 9001):
            ran = mesh.inside(sys.executable, "-c", f"for _ in range(12): {say.format(port)}")
            assert set(ran.out.split("\n")) - {""} == {f"{word} hello" for word in words}, ran.text

    return check


def both_families(mesh: Mesh) -> None:
    """The name of the service has an address of each family, and its instances answer."""
    families = mesh.kubectl("get", "service", "helloworld", "-o", "jsonpath={.spec.ipFamilies} {.spec.clusterIPs}").out
    assert families.startswith('["IPv6","IPv4"]')
    assert (families.count(":") > 2, families.count(".") > 2) == (True, True), families
    hello(mesh)


def lines(count: int) -> Counter[str]:
    """Which servers answer a line each, at the gateway's TCP port."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", 31400), timeout=5) as one:
            one.sendall(b"hello\n")
            found[one.makefile().readline().partition(" ")[0]] += 1
    return found


def only_one(_mesh: Mesh) -> None:
    """Every connection to the gateway's TCP port reaches version 1."""
    assert set(lines(20)) == {"one"}


def four_to_one(_mesh: Mesh) -> None:
    """A fifth of the connections reaches version 2."""
    assert_shares(lambda: lines(1000), {"one": 0.8, "two": 0.2})


def known(*hosts: str) -> Callable[[Mesh], None]:
    """The proxies know these hosts, by `HOST:PORT`."""

    def check(mesh: Mesh) -> None:
        clusters = mesh.tulle("proxy", "config", "cluster", "curl").out
        for one in hosts:
            host, _colon, port = one.partition(":")
            row = next((line for line in clusters.splitlines() if host in line.split() and port in line.split()), "")
            assert row, f"no cluster for {one}: {clusters}"

    return check


def tls_for_googleapis(mesh: Mesh) -> None:
    """Plain HTTP at port 80 goes to port 443, and TLS is begun for it."""
    told = mesh.tulle("describe", "request", "GET", "http://www.googleapis.com/", "--from", "curl").out
    assert "100% to www.googleapis.com:443" in told
    cluster = mesh.tulle("proxy", "config", "cluster", "curl", "--name", "www.googleapis.com", "-o", "json").out
    assert "UpstreamTlsContext" in cluster
    assert '"www.googleapis.com"' in cluster


def answers_as(service: str, version: str) -> Callable[[Mesh], None]:
    """From inside, the service is the version that the sample wants."""

    def check(mesh: Mesh) -> None:
        ran = mesh.inside("curl", "-sS", "--fail", "-m", "5", f"http://{service}:9080/[1-20]")
        assert ran.out.count(f"Hello version: {version},") == 20, ran.out

    return check


def challenge(mesh: Mesh) -> None:
    """ACME's challenges reach the resolver, and nothing else does."""
    assert fetch(f"{mesh.base}/.well-known/acme-challenge/x")[0].status == 200
    assert fetch(f"{mesh.base}/other")[0].status == 404


def pages(mesh: Mesh) -> None:
    """Bookinfo goes on, by mutual TLS to every version."""
    assert fetch(f"{mesh.base}/productpage")[0].status == 200
    ran = mesh.inside("curl", "-sS", "--fail", "-m", "5", "http://reviews:9080/reviews/[1-9]")
    assert ran.out.count('"reviews"') == 9, ran.out


def networking(name: str) -> str:
    return f"bookinfo/networking/{name}.yaml"


_ALL = networking("destination-rule-all")
SAMPLES = {
    "helloworld": Sample(("helloworld/helloworld-gateway.yaml",), hello, HELLO, ingress=True),
    "helloworld-gateway-api": Sample(("helloworld/gateway-api/helloworld-gateway.yaml",), hello, HELLO, ingress=True),
    "helloworld-weights": Sample(
        tuple(f"helloworld/gateway-api/helloworld-{name}.yaml" for name in ("gateway", "versions", "route")),
        nine_to_one,
        HELLO,
        ingress=True,
    ),
    "helloworld-services": Sample(
        ("helloworld/helloworld-gateway.yaml",), hello, HELLO, ingress=True, services=("helloworld/helloworld.yaml",)
    ),
    "helloworld-dual-stack": Sample(
        ("helloworld/helloworld-gateway.yaml",),
        both_families,
        HELLO,
        ingress=True,
        services=("helloworld/helloworld-dual-stack.yaml",),
    ),
    "httpbin": Sample(("httpbin/httpbin-gateway.yaml",), says_where, (HTTPBIN,), ingress=True),
    "httpbin-nodeport": Sample(
        (), by_its_name, (HTTPBIN._replace(ports="8080:http"),), services=("httpbin/httpbin-nodeport.yaml",)
    ),
    "httpbin-gateway-api": Sample(
        ("httpbin/gateway-api/httpbin-gateway.yaml",),
        says_where,
        (HTTPBIN._replace(ports="8080:http"),),  # where the Service's port 8000 leads
        ingress=True,
        services=("httpbin/httpbin.yaml",),
    ),
    "websockets": Sample(("websockets/route.yaml",), web_socket, TORNADO, ingress=True, services=("websockets/app.yaml",)),
    "tcp-echo-services": Sample((), echoes("one", "two"), TCP_SERVICE, services=("tcp-echo/tcp-echo-services.yaml",)),
    "tcp-echo-only": Sample((), echoes("one"), TCP_SERVICE[:1], services=("tcp-echo/tcp-echo.yaml",)),
    "tcp-echo-ipv4": Sample((), echoes("one"), TCP_SERVICE[:1], services=("tcp-echo/tcp-echo-ipv4.yaml",)),
    "tcp-echo-ipv6": Sample((), echoes("one"), TCP_SERVICE[:1], services=("tcp-echo/tcp-echo-ipv6.yaml",)),
    "tcp-echo-dual-stack": Sample((), echoes("one"), TCP_SERVICE[:1], services=("tcp-echo/tcp-echo-dual-stack.yaml",)),
    "tcp-echo": Sample(("tcp-echo/tcp-echo-all-v1.yaml",), only_one, TCP_ECHO),
    "tcp-echo-20-v2": Sample(("tcp-echo/tcp-echo-all-v1.yaml", "tcp-echo/tcp-echo-20-v2.yaml"), four_to_one, TCP_ECHO),
    "tcp-echo-gateway-api": Sample(("tcp-echo/gateway-api/tcp-echo-all-v1.yaml",), only_one, TCP_ECHO),
    "tcp-echo-gateway-api-20-v2": Sample(
        ("tcp-echo/gateway-api/tcp-echo-all-v1.yaml", "tcp-echo/gateway-api/tcp-echo-20-v2.yaml"), four_to_one, TCP_ECHO
    ),
    "external-aptget": Sample(("external/aptget.yaml",), known("deb.debian.org:80", "security.ubuntu.com:80")),
    "external-github": Sample(("external/github.yaml",), known("github.com:443", "dummy.github.com:22")),
    "external-pypi": Sample(("external/pypi.yaml",), known("pypi.org:443", "files.pythonhosted.org:443")),
    "egress-google-apis": Sample((networking("egress-rule-google-apis"),), tls_for_googleapis),
    "details-v2": Sample(
        (_ALL, networking("virtual-service-details-v2")),
        answers_as("details", "v2"),
        (App("details", "v2", "9080:http", "v2"),),
    ),
    "ratings-db": Sample(
        (_ALL, networking("virtual-service-ratings-db")), answers_as("ratings", "v2"), (App("ratings", "v2", "9080:http", "v2"),)
    ),
    "ratings-mysql": Sample(
        (_ALL, networking("virtual-service-ratings-mysql")),
        answers_as("ratings", "v2-mysql"),
        (App("ratings", "v2-mysql", "9080:http", "v2-mysql"),),
    ),
    "ratings-mysql-vm": Sample(
        (_ALL, networking("virtual-service-ratings-mysql-vm")),
        answers_as("ratings", "v2-mysql-vm"),
        (App("ratings", "v2-mysql-vm", "9080:http", "v2-mysql-vm"),),
    ),
    "destination-rule-all-mtls": Sample((networking("destination-rule-all-mtls"),), pages),
    "destination-rule-reviews": Sample((networking("destination-rule-reviews"),), pages),
    "certmanager": Sample((networking("certmanager-gateway"),), challenge, RESOLVER, ingress=True),
}


class Stage:
    """The stand-ins that run now. Those of one sample go on for the next that wants the same."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.children: dict[App, subprocess.Popen[str]] = {}

    def set(self, *apps: App) -> None:
        """These run and no others: each by a `tulle run`, until its workload is in the mesh."""
        if set(apps) == set(self.children):
            return
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        late = [app for app, child in self.children.items() if not ended(child)]
        assert late == []
        self.children = {app: self._start(app) for app in apps}
        for app, child in self.children.items():
            until_known(self.mesh, child, app)

    def _start(self, app: App) -> subprocess.Popen[str]:
        ports = [part.partition(":")[0] for part in app.ports.split(",")]
        named = [flag for part in app.ports.split(",") for flag in ("--port", part)]
        run = ["run", "--service", app.service, "--version", app.version, "-n", app.namespace, *named]
        argv = [*TULLE, *run, "--", sys.executable, str(PROGRAM), app.word, *ports]
        return subprocess.Popen(argv, env=self.mesh.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def stage(mesh: Mesh) -> Iterator[Stage]:
    made = Stage(mesh)
    yield made
    made.set()


def until_known(mesh: Mesh, child: subprocess.Popen[str], app: App) -> None:
    """Wait until the workload is ready."""
    deadline = time.monotonic() + 60
    wanted = f"app={app.service},version={app.version}"
    path = "jsonpath={.items[*].metadata.annotations.tulle\\.dev/ready}"
    while time.monotonic() < deadline:
        ready = mesh.kubectl("get", "workloadentries", "-n", app.namespace, "-l", wanted, "-o", path).out
        if "true" in ready.split():
            mesh.synced()
            return
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
    raise AssertionError(f"{app} is not ready: {mesh.logs()}")


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(mesh: Mesh, stage: Stage, name: str) -> None:
    """Broken: somebody who brings a sample of Istio along would see something else than its documentation says."""
    sample = SAMPLES[name]
    if name == "tcp-echo-ipv6" and not gives_ipv6():
        pytest.skip("no IPv6 on this host")
    files, services = ([corpora(f"istio/samples/{file}") for file in some] for some in (sample.files, sample.services))
    with ExitStack() as stack:
        if any(app.namespace != "default" for app in sample.apps):
            mesh.kubectl("create", "namespace", "istio-system", check=False)
        if sample.ingress:
            without_own_gateway(mesh)
            stack.callback(with_own_gateway, mesh)
        if services:
            stage.set()
            stack.callback(stage.set)
        for file in services:
            stack.callback(mesh.kubectl, "delete", "--ignore-not-found", "-f", str(file), check=False)
            said = mesh.kubectl("apply", "-f", str(file), check=False).err
            assert set(re.findall(r'no matches for kind "([A-Za-z]+)"', said)) == {"Deployment"}, said
            assert "Error from server" not in said
        stage.set(*sample.apps)
        for file in files:
            mesh.apply("kubectl", file)
            stack.callback(mesh.kubectl, "delete", "--ignore-not-found", "-f", str(file))
        sample.check(mesh)
