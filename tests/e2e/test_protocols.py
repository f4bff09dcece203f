"""What is not plain HTTP crosses two sidecars whole: server-first bytes, WebSockets, gRPC, large and slow bodies."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_mtls import address
from tests.support.commands import run
from tests.support.mesh import Mesh, assert_shares
from tests.support.serving import serving as served
from tulle.control.ca.authority import Authority

SPOKEN = str(Path(__file__).resolve().parents[1] / "support" / "spoken.py")
PYTHON = sys.executable
SERVICE = "spoken.Spoken"  # as spoken.py serves it

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mail, namespace: default}
spec:
  hosts: [mail]
  http:
  - match: [{uri: {prefix: /gone}}]
    directResponse: {status: 410}
  - route: [{destination: {host: mail}}]
"""
PLAINTEXT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mail, namespace: default}
spec:
  selector: {matchLabels: {app: mail}}
  mtls: {mode: PERMISSIVE}
"""


SHARES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: line, namespace: default}
spec:
  host: line
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: line, namespace: default}
spec:
  hosts: [line]
  tls:
  - match: [{sniHosts: ["*.two.example"]}]
    route: [{destination: {host: line, subset: v2}}]
  - match: [{sniHosts: [one.example]}]
    route: [{destination: {host: line, subset: v1}}]
  tcp:
  - route:
    - {destination: {host: line, subset: v1}, weight: 80}
    - {destination: {host: line, subset: v2}, weight: 20}
"""


VERSIONS = """
apiVersion: v1
kind: Service
metadata: {{name: line-{version}, namespace: default}}
spec:
  selector: {{app: line, version: {version}}}
  ports: [{{port: {port}, name: {protocol}}}]
---
"""
ATTACHED = """
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: line, namespace: default}}
spec:
  parentRefs: [{{group: "", kind: Service, name: line, port: {port}}}]
  {names}
  rules:
  - backendRefs:
    - {{name: line-v1, port: {port}, weight: {weight}}}
    - {{name: line-v2, port: {port}, weight: 10}}
"""


# What is done with a call depends on its metadata; each case is its own call to what answers UNAVAILABLE twice.
CASES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: flaky, namespace: default}
spec:
  hosts: [flaky]
  http:
  - match: [{headers: {x-case: {exact: never}}}]
    retries: {attempts: 0}
    route: [{destination: {host: flaky}}]
  - match: [{headers: {x-case: {exact: asked}}}]
    retries: {attempts: 2, retryOn: "unavailable,resource-exhausted"}
    route: [{destination: {host: flaky}}]
  - match: [{headers: {x-case: {exact: other}}}]
    retries: {attempts: 2, retryOn: "cancelled,deadline-exceeded,internal"}
    route: [{destination: {host: flaky}}]
  - match: [{headers: {x-case: {exact: abort}}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: flaky}}]
"""
ASK_CASES = """
import grpc, json, sys
call = grpc.insecure_channel("flaky:50053", [("grpc.enable_retries", 0)]).unary_unary(sys.argv[1])
seen = {}
for case in ("never", "asked", "other", "abort"):
    try: seen[case] = call(case.encode(), timeout=20, metadata=[("x-case", case)]).decode()
    except grpc.RpcError as error: seen[case] = error.code().name
print(json.dumps(seen))
"""


@contextmanager
def attached(mesh: Mesh, kind: str, port: int, protocol: str, weight: int, names: str = "") -> Iterator[None]:
    """A route with `line` as parent, that shares its connections among Services for its versions."""
    services = "".join(VERSIONS.format(version=one, port=port, protocol=protocol) for one in ("v1", "v2"))
    made = services + ATTACHED.format(kind=kind, port=port, weight=weight, names=names)
    mesh.kubectl("apply", "-f", "-", stdin=made)
    try:
        mesh.synced()
        yield
    finally:
        mesh.kubectl("delete", "-f", "-", stdin=made)
        mesh.synced()


def call(mesh: Mesh, *words: str) -> Any:
    """What a caller inside a workload saw."""
    return json.loads(mesh.inside(PYTHON, SPOKEN, *words).out)


@contextmanager
def serving(
    mesh: Mesh, service: str, port: str, program: str, ready: list[str], *more: str, version: str = "v1"
) -> Iterator[None]:
    """A program of `spoken` as a service of the mesh, from when `ready` succeeds inside another workload until it is over."""
    argv = [PYTHON, SPOKEN, program, port.partition(":")[0], *more]
    with served(mesh, service, port, argv, ready, version):
        yield


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """An HTTP server by its base URL."""
    url = "http://web:8080"
    with serving(mesh, "web", "8080:http", "serve-web", ["curl", "-sS", "-m", "5", "--fail", f"{url}/"]):
        yield url


def test_a_server_that_speaks_first_on_an_undeclared_port(mesh: Mesh) -> None:
    """Its greeting comes within 100 ms more than the network takes, in mutual TLS and in plaintext; the connection then talks."""
    greet = [PYTHON, SPOKEN, "greet"]
    with serving(mesh, "mail", "7625", "serve-greeting", [*greet, "mail", "7625", "1"], "v1"):
        assert mesh.kubectl("get", "service", "mail", "-o", "jsonpath={.spec.ports[0].appProtocol}").out == ""
        seen = call(mesh, "greet", "mail", "7625", "15")
        assert seen["answer"] == "250 HELO 14\r\n"
        assert seen["waits"][7] < 0.1, seen
        mesh.kubectl("apply", "-f", "-", stdin=PLAINTEXT)
        try:
            mesh.synced()
            ran = run([*greet, address(mesh, "mail-v1"), "7625", "15"], mesh.env)
            assert ran.code == 0, ran.text
            assert json.loads(ran.out)["waits"][7] < 0.1, ran.out
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=PLAINTEXT)
            mesh.synced()


SIX = """
apiVersion: v1
kind: Service
metadata: {name: six, namespace: default}
spec:
  clusterIPs: [240.240.6.7, "fd00:6::7"]
  clusterIP: 240.240.6.7
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  selector: {app: details}
  ports: [{port: 9080, name: http}]
"""


def test_ipv6(mesh: Mesh) -> None:
    """A dual-stack service by both of its addresses, through the sidecar; and nobody comes past a sidecar by IPv6."""
    found = mesh.inside("ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "global", workload="details-v1").out.split()
    if not found:
        pytest.skip("no IPv6 on this host")
    mesh.tulle("apply", "-f", "-", stdin=SIX)
    mesh.synced()
    try:
        for family, address_ in (("-4", "240.240.6.7"), ("-6", "[fd00:6::7]")):
            by_name = mesh.inside("curl", "-sS", "-v", family, "http://six:9080/details/0")
            assert "Shakespeare" in by_name.out
            assert address_.strip("[]") in by_name.err
            ran = mesh.inside("curl", "-sS", "-g", "-D-", f"http://{address_}:9080/details/0")
            assert "x-envoy" in ran.out
            assert "Shakespeare" in ran.out
        own = found[found.index("inet6") + 1].partition("/")[0]
        past = run(["curl", "-sS", "-g", "-m", "5", f"http://[{own}]:9080/details/0"], mesh.env)
        assert past.code in (52, 56), past  # as over IPv4 in strict mode: the sidecar closes it
    finally:
        mesh.tulle("delete", "-f", "-", stdin=SIX)
        mesh.synced()


def test_http_on_an_undeclared_port_has_routes(mesh: Mesh) -> None:
    """HTTP is recognized, 1 and 2: a VirtualService counts, and the application is told who calls."""
    ready = ["curl", "-sS", "-m", "5", "--fail", "http://mail:7625/"]
    with serving(mesh, "mail", "7625", "serve-web", ready):
        mesh.kubectl("apply", "-f", "-", stdin=ROUTES)
        try:
            mesh.synced()
            codes = mesh.inside(
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} ",
                "http://mail:7625/gone",
                "-o",
                "/dev/null",
                "http://mail:7625/",
            )
            assert codes.out == "410 200 "
            spoken = "%{http_code} %{http_version}"
            two = mesh.inside("curl", "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", spoken, "http://mail:7625/gone")
            assert two.out == "410 2", "HTTP/2 without a word of warning has the same routes"
            said = json.loads(mesh.inside("curl", "-sS", "-H", "Host: of.my.own", "http://mail:7625/").out)
            assert said["headers"]["Host"] == "of.my.own", "all that is called at the service's address is for the service"
            assert "spiffe://cluster.local/ns/default/sa/curl" in said["headers"]["x-forwarded-client-cert"]
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=ROUTES)
            mesh.synced()


@pytest.mark.parametrize("port", ["50051:grpc", "50052"])
def test_grpc_whole(mesh: Mesh, port: str) -> None:
    """Unary calls and all streams, in turns; trailers, status codes and messages; on an undeclared port as well."""
    number = port.partition(":")[0]
    with serving(mesh, f"rpc{number}", port, "serve-grpc", [PYTHON, SPOKEN, "grpc", f"rpc{number}:{number}"]):
        seen = call(mesh, "grpc", f"rpc{number}:{number}")
    assert seen["unary"] == "unary a"
    assert seen["unary trailers"]["x-trailer"] == "unary"
    assert (seen["many"], seen["collect"], seen["chat"]) == ("999", "a,b,c", ["re x", "re y"])
    assert seen["chat trailers"]["x-trailer"] == "chat"
    assert seen["statuses"] == {str(code): [code, "as asked: 100%", "fail"] for code in (3, 5, 7, 16)}


def test_grpc_retries(mesh: Mesh) -> None:
    """A call that was answered UNAVAILABLE twice succeeds the third time, without the caller's doing: the default retries.

    Rules say which statuses are repeated, and how often; and that a call is aborted with a status of gRPC.
    """
    ask = "curl -sS -m 5 --http2-prior-knowledge http://flaky:50053/"
    ready = ["sh", "-c", f'said=$({ask}) && test "$said" != "no healthy upstream"']  # the mesh's word while there is nobody
    with serving(mesh, "flaky", "50053:grpc", "serve-grpc", ready):
        assert call(mesh, "grpc", "flaky:50053")["flaky"] == "3"
        mesh.kubectl("apply", "-f", "-", stdin=CASES)
        try:
            mesh.synced()
            seen = json.loads(mesh.inside(PYTHON, "-c", ASK_CASES, f"/{SERVICE}/Flaky").out)
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=CASES)
            mesh.synced()
    assert seen == {"never": "UNAVAILABLE", "asked": "3", "other": "UNAVAILABLE", "abort": "RESOURCE_EXHAUSTED"}


def test_websocket(mesh: Mesh, web: str) -> None:
    """A WebSocket crosses the HTTP/2 between sidecars: messages in turns, and the close with its code."""
    seen = call(mesh, "websocket", f"{web}/ws", "5")
    assert seen == {"seen": [f"echo {number}" for number in range(5)], "closed": 1000}


def test_large_and_slow_bodies(mesh: Mesh, web: str) -> None:
    """50 MB up and down, byte for byte; and bodies that take longer than a timeout that nobody asked for."""
    seen = call(mesh, "upload", f"{web}/sum", "50", "0")
    assert (seen["status"], seen["said"]["length"], seen["said"]["sha256"]) == (200, 50 << 20, seen["sent"])
    ran = mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"{web}/bytes?megabytes=50")
    assert ran.out == f"200 {50 << 20}"
    slow = call(mesh, "upload", f"{web}/sum", "4", "0.5")
    assert (slow["status"], slow["said"]["sha256"]) == (200, slow["sent"])
    ran = mesh.inside("curl", "-sSN", f"{web}/slow?parts=5&pause=0.4")
    assert ran.out.split() == ["0", "1", "2", "3", "4"]


def test_expect_100_continue(mesh: Mesh, web: str) -> None:
    """A client that waits for the word to go on gets it at once, and its body arrives."""
    ran = mesh.inside(
        "sh", "-c", f"head -c 3000000 /dev/zero | curl -sSv --expect100-timeout 8 -H 'Expect: 100-continue' -T - {web}/sum"
    )
    assert "HTTP/1.1 100 Continue" in ran.err
    assert json.loads(ran.out)["length"] == 3_000_000


def until_both(mesh: Mesh, *words: str) -> None:
    """Until connections to a service are answered by both of its versions: the first alone answers before the second is there."""
    deadline = time.monotonic() + 60
    while len(call(mesh, "greet", *words[:2], "20", *words[2:])["greeted"]) < 2:
        assert time.monotonic() < deadline, words


@contextmanager
def two_versions(mesh: Mesh, port: str, certificate: str = "") -> Iterator[None]:
    """`line` in two versions, and rules that share its connections."""
    number = port.partition(":")[0]
    secured = [certificate] if certificate else []
    ready = [PYTHON, SPOKEN, "greet", "line", number, "1", *(["x"] if certificate else [])]
    with (
        serving(mesh, "line", port, "serve-greeting", ready, "v1", *secured),
        serving(mesh, "line", port, "serve-greeting", ready, "v2", *secured, version="v2"),
    ):
        until_both(mesh, "line", number, *(["x"] if certificate else []))
        mesh.kubectl("apply", "-f", "-", stdin=SHARES)
        try:
            mesh.synced()
            yield
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=SHARES)
            mesh.synced()


@pytest.mark.parametrize("port", ["7700:tcp", "7701"])
def test_shares_of_connections(mesh: Mesh, port: str) -> None:
    """VirtualService `tcp` with weights 80 and 20: so many of 1,000 connections; on an undeclared port as well.

    A TCPRoute with the Service as parent goes first: then none of them is for the first version.
    """
    with two_versions(mesh, port):
        assert_shares(lambda: Counter(call(mesh, "greet", "line", port[:4], "1000")["greeted"]), {"v1": 0.8, "v2": 0.2})
        with attached(mesh, "TCPRoute", int(port[:4]), "tcp", 0):
            assert call(mesh, "greet", "line", port[:4], "20")["greeted"] == {"v2": 20}


TUNNEL = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: forward, namespace: default}
spec:
  host: forward
  trafficPolicy:
    connectionPool: {tcp: {idleTimeout: 1s}}
    tunnel: {protocol: CONNECT, targetHost: line, targetPort: 7703}
"""


SIDECARS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: caller, namespace: default}
spec:
  workloadSelector: {labels: {app: curl}}
  outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: line, port: {number: 7703}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: called, namespace: default}
spec:
  workloadSelector: {labels: {app: line}}
  inboundConnectionPool: {tcp: {idleTimeout: 1s}}
"""
CONNECT = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: forward, namespace: default}
spec:
  parentRefs: [{name: demo}]
  hostnames: [line.default.svc.cluster.local]
  rules:
  - matches: [{method: CONNECT}]
    backendRefs: [{name: forward, port: 3128}]
"""


def test_connect_and_tunnels(mesh: Mesh) -> None:
    """CONNECT reaches a forward proxy on an undeclared port, and through a gateway where a rule is for it.

    DestinationRule `tunnel`: bytes arrive at the far end by CONNECT through a proxy; `idleTimeout` ends what is silent. What
    nobody knows goes to a Sidecar's `egressProxy`.
    """
    greet = [PYTHON, SPOKEN, "greet", "line", "7703", "1"]
    through = "curl -sS -m 5 -p -x {} telnet://line.default.svc.cluster.local:7703 </dev/null | grep -q '220 v1'"
    with (
        serving(mesh, "line", "7703:tcp", "serve-greeting", greet, "v1"),
        serving(mesh, "forward", "3128", "serve-proxy", ["sh", "-c", through.format("http://forward:3128")]),
    ):
        mesh.kubectl("apply", "-f", "-", stdin=f"{TUNNEL}---{CONNECT}")
        try:
            mesh.synced()
            assert run(["sh", "-c", through.format(mesh.base)], mesh.env).code == 0
            assert call(mesh, "greet", "forward", "3128", "5")["greeted"] == {"v1": 5}
            seen = call(mesh, "silence", "forward", "3128")
            assert 0.9 < seen["ended"] < 10, seen
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=f"{TUNNEL}---{CONNECT}")
        mesh.kubectl("apply", "-f", "-", stdin=SIDECARS)
        try:
            mesh.synced()
            seen = call(mesh, "silence", "line", "7703")
            assert 0.9 < seen["ended"] < 10, "what a Sidecar says of the application's connections"
            assert call(mesh, "greet", "192.0.2.1", "7777", "1")["greeted"] == {"v1": 1}, "an address that nobody knows"
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=SIDECARS)
            mesh.synced()


def test_connections_by_server_name(mesh: Mesh, tmp_path: Path) -> None:
    """VirtualService `tls`, TLSRoute: an application's own TLS goes by its server name, and stays its own end to end."""
    made = Authority.open(tmp_path / "ca").issue_server(["one.example"], 3600)
    certificate = mesh.home / "line.pem"
    certificate.write_bytes(made.key + made.chain)
    certificate.chmod(0o644)
    with two_versions(mesh, "7702:tls", str(certificate)):
        seen = call(mesh, "greet", "line", "7702", "20", "a.two.example,one.example")
        assert seen["greeted"] == {"v1": 10, "v2": 10}
        rest = call(mesh, "greet", "line", "7702", "100", "three.example")["greeted"]
        assert set(rest) == {"v1", "v2"}, "what no server name takes is shared by the rule for bytes"
        with attached(mesh, "TLSRoute", 7702, "tls", 0, "hostnames: [one.example]"):
            seen = call(mesh, "greet", "line", "7702", "20", "one.example")
            assert seen["greeted"] == {"v2": 20}, "a TLSRoute goes before the VirtualService"
