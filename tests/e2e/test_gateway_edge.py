"""Who gets through a gateway, whose word about a client it takes, and how large a request may be."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.gateways import (
    ROOTS,
    Gateways,
    behind,
    context,
    curl,
    echo_server,
    handshake,
    listener,
    names,
    object_,
    pem,
    route,
    secret,
)
from tests.support.mesh import Mesh, free_port

CONFIG = "proxy.istio.io/config"
CLIENT = "203.0.113.9"


@contextmanager
def own_gateway(mesh: Mesh, *more: str) -> Iterator[None]:
    """`tulle gateway` for the Gateway default/edge alone."""
    run = mesh.home / "run" / "demo" / "node.sock"
    command = [*mesh.command, "gateway", "--name", "edge", "--gateway", "edge", "--socket", str(run), *more]
    process = subprocess.Popen(command, env=mesh.env, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "default/edge serves at" in process.stderr.readline()
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def edge(mesh: Mesh) -> Iterator[int]:
    """A gateway of its own with an echo behind it; its port."""
    port, objects = free_port(), Gateways(mesh)
    spec = {"gatewayClassName": "tulle", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]}
    gone = {"type": "RequestRedirect", "requestRedirect": {"hostname": "gone.example"}}
    rules: list[dict[str, Any]] = [{"matches": [{"path": {"value": "/gone"}}], "filters": [gone]}]
    with echo_server() as backend, own_gateway(mesh):
        rules.append({"backendRefs": [{"name": "echo", "port": backend}]})
        objects.apply(
            *behind("echo", backend),
            object_("Gateway", "edge", spec),
            object_("HTTPRoute", "edge", {"parentRefs": [{"name": "edge"}], "rules": rules}),
        )
        yield port
        objects.remove()


def configure(mesh: Mesh, settings: dict[str, Any] | None) -> None:
    """Annotate the gateway's workload, and wait until it acts on that."""
    note = f"{CONFIG}-" if settings is None else f"{CONFIG}={json.dumps(settings)}"
    mesh.kubectl("annotate", "workloadentry", "edge", "--overwrite", note)
    mesh.synced()


def heard(port: int, *arguments: str) -> dict[str, str]:
    """The headers that arrive behind the gateway of a request by curl."""
    found = json.loads(curl(*arguments, f"http://127.0.0.1:{port}/"))["headers"]
    return {name.lower(): ",".join(values) for name, values in found.items()}


def exchange(port: int, first: bytes) -> bytes:
    """Begin a connection with these bytes, and ask: the answer, or nothing where it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(first + b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        found = b""
        try:
            while data := connection.recv(65536):
                found += data
        except ConnectionResetError:
            pass
        return found


def test_a_gateway_of_ones_own(gateways: Gateways) -> None:
    """`tulle gateway --gateway` would serve what others say, and others what is this one's alone."""
    port = free_port()
    mesh = gateways.mesh
    with own_gateway(mesh, "--annotation", f"{CONFIG}=requestLimits: {{maxHeadersCount: 10}}"):
        gateways.apply(
            secret("shop", pem(ROOTS.server("shop.example"))),
            object_("Gateway", "edge", {"gatewayClassName": "tulle", "listeners": [listener("a", port, "shop.example", "shop")]}),
            route("edge"),
        )
        assert names(handshake(port, "shop.example", context())) == ("shop.example",)
        many = [word for index in range(11) for word in ("-H", f"x-{index}: a")]
        at = ["-k", "--http1.1", "--connect-to", f"shop.example:{port}:127.0.0.1:{port}", "-o", "/dev/null", "-w", "%{http_code}"]
        assert curl(*at, *many, f"https://shop.example:{port}/productpage") == "431", "what its annotation says"
        said = mesh.tulle("proxy", "config", "listener", "ingressgateway", "-n", "tulle-system", "-o", "json").out
        assert str(port) not in said, "the demo's own gateway has nothing to do with it"
    assert "NotFound" in mesh.kubectl("get", "workloadentry", "edge", check=False).err


def test_a_client_is_not_believed(mesh: Mesh, edge: int) -> None:
    """Anybody could say that he is somebody else: by address, by certificate, or as a proxy of the mesh that may set timeouts."""
    lies = {
        "x-forwarded-for": CLIENT,
        "x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/admin",
        "x-envoy-external-address": CLIENT,
        "x-envoy-internal": "true",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-original-path": "/admin",
    }
    said = [word for name, value in lies.items() for word in ("-H", f"{name}: {value}")]
    here = heard(edge)["x-forwarded-for"]  # Envoy says the host's own address where a client is on the same host
    found = heard(edge, *said)
    assert found["x-forwarded-for"] == f"{CLIENT},{here}", "it is added to, as Istio's gateways do"
    assert not {name: found[name] for name in lies if name in found and name != "x-forwarded-for" and found[name] == lies[name]}
    configure(mesh, {"gatewayTopology": {"numTrustedProxies": 1, "forwardClientCertDetails": "ALWAYS_FORWARD_ONLY"}})
    try:
        found = heard(edge, *said)
        assert found["x-forwarded-for"] == f"{CLIENT},{here}"
        assert found["x-envoy-external-address"] == CLIENT, "a proxy in front is believed"
        assert found["x-forwarded-client-cert"] == lies["x-forwarded-client-cert"]
        assert "x-envoy-retry-on" not in found
    finally:
        configure(mesh, None)


def test_the_proxy_protocol_tells_who_the_client_is(mesh: Mesh, edge: int) -> None:
    """Behind a load balancer every client would have its address; or who does not come by it could get in beside it."""
    addresses = socket.inet_aton(CLIENT) + socket.inet_aton("192.0.2.1")
    second = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x11, 12) + addresses + struct.pack(">HH", 40000, 80)
    assert b" 400 " in exchange(edge, second), "nobody asked for it"
    configure(mesh, {"gatewayTopology": {"proxyProtocol": {}}})
    try:
        assert heard(edge, "--haproxy-protocol")["x-forwarded-for"] not in ("", CLIENT), "curl says where it is"
        for announced in (f"PROXY TCP4 {CLIENT} 192.0.2.1 40000 80\r\n".encode(), second):
            assert f'"{CLIENT}"'.encode() in exchange(edge, announced), "version 1, version 2"
        assert exchange(edge, b"") == b"", "without it nobody gets in"
    finally:
        configure(mesh, None)
    assert heard(edge)["x-forwarded-for"] not in ("", CLIENT)


def test_how_large_a_request_may_be(mesh: Mesh, edge: int) -> None:
    """A limit that somebody sets would not hold, or a request that he wants to let in would be refused."""
    large = [word for index in range(20) for word in ("-H", f"x-{index}: {'a' * 4000}")]

    def status(path: str, *arguments: str) -> str:
        return curl("-o", "/dev/null", "-w", "%{http_code}", *arguments, f"http://127.0.0.1:{edge}{path}")

    assert status("/gone", *large) == "431", "80 KB are more than Envoy's own limit"
    assert status("/", "-d", "b" * 2000) == "200"
    configure(mesh, {"requestLimits": {"maxRequestHeadersKb": 96, "maxRequestBytes": 1000}})
    try:
        assert status("/gone", *large) == "302"
        assert status("/", "-d", "b" * 2000) == "413"
        assert status("/", "-d", "b" * 2000, "-H", "transfer-encoding: chunked") == "413"
        assert status("/", "-d", "b" * 900) == "200"
    finally:
        configure(mesh, None)
