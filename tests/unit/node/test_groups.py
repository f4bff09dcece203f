"""WorkloadGroups on a node: what an entry takes from its group, and what probes make of answers."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tulle.client.node_api import Port, Probe, WorkloadSpec
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.node import objects
from tulle.node.groups import in_group
from tulle.node.objects import Place
from tulle.node.probing import Verdict, healthy
from tulle.node.proxy import ProxyRecord, ProxySandbox

GROUP: dict[str, Any] = {
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {
        "metadata": {"labels": {"app": "reviews", "team": "a"}, "annotations": {"note": "x"}},
        "template": {
            "labels": {"version": "v1", "team": "b"},
            "serviceAccount": "bookinfo-reviews",
            "locality": "eu/north/a",
            "weight": 7,
            "network": "dmz",
            "ports": {"grpc": 7070},
        },
        "probe": {"httpGet": {"path": "/healthz", "port": 9080}, "periodSeconds": 2, "failureThreshold": 5},
    },
}


def test_an_entry_has_what_its_group_says() -> None:
    """A VM would join without the labels by which Services select it, or under another identity."""
    spec = in_group(WorkloadSpec(name="vm", group="reviews", ports=(Port(9080, "http"),), labels={"version": "v2"}), GROUP)
    assert spec.service_account == "bookinfo-reviews"
    assert spec.probe == Probe(port=9080, path="/healthz", period=2, failures=5)
    entry = objects.workload_entry(spec, Place(Capture.NETNS, "10.0.0.7"), "host", ready=False)
    own = {key: entry["spec"]["labels"][key] for key in ("app", "team", "version")}
    assert own == {"app": "reviews", "team": "a", "version": "v2"}
    assert (entry["spec"]["locality"], entry["spec"]["weight"]) == ("eu/north/a", 7)
    assert entry["spec"]["ports"]["grpc"] == 7070
    assert entry["spec"]["labels"]["topology.istio.io/network"] == "dmz"
    assert entry["metadata"]["annotations"]["tulle.dev/group"] == "reviews"
    assert entry["metadata"]["annotations"]["note"] == "x"


def test_what_is_said_itself_wins() -> None:
    """A person's flags would be overruled by a template."""
    spec = in_group(WorkloadSpec(name="vm", group="reviews", service_account="own", labels={"team": "c"}), GROUP)
    assert (spec.service_account, spec.labels["team"]) == ("own", "c")


def test_so_many_in_a_row() -> None:
    """One lost answer would take a workload out of rotation."""
    verdict = Verdict(Probe(successes=2, failures=3))
    answers = [True, False, True, True, False, False, True, False, False, False]
    assert [verdict.heard(one) for one in answers] == [False, False, False, True, False, False, False, False, False, True]


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[int]:
    """A server that says one thing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def box() -> ProxySandbox:
    """A place on this host."""
    return ProxySandbox(ProxyRecord("default/app", 1, "127.0.0.1", ProxyPorts(), {}, {}))


@pytest.mark.parametrize(("status", "well"), [(200, True), (302, True), (404, False), (503, False)])
async def test_http(box: ProxySandbox, status: int, well: bool) -> None:
    """An application that says 503 would get traffic."""
    async with answering(status) as port:
        assert await healthy(Probe(port=port, path="/healthz"), box, {}) is well


async def test_a_connection(box: ProxySandbox) -> None:
    """A port that nobody has would count as ready."""
    async with answering(200) as port:
        assert await healthy(Probe(port=port), box, {})
    assert not await healthy(Probe(port=port), box, {})


async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """gRPC's health service, to which one service serves (SERVING is 1), another does not, and others are not known."""
    known = {b"": b"\x08\x01", b"\x0a\x04cart": b"\x08\x01", b"\x0a\x03pay": b"\x08\x02"}
    if request not in known:
        await context.abort(grpc.StatusCode.NOT_FOUND)
    return known[request]


async def test_grpc(box: ProxySandbox) -> None:
    """A gRPC application that says NOT_SERVING would get traffic, or one that serves none."""
    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        asked = {name: await healthy(Probe(port=port, grpc=name, timeout=10), box, {}) for name in ("", "cart", "pay", "unknown")}
    finally:
        await server.stop(None)
    assert asked == {"": True, "cart": True, "pay": False, "unknown": False}
    assert not await healthy(Probe(port=port, grpc="", timeout=0.5), box, {})
    async with answering(200) as port:  # no gRPC at all
        assert not await healthy(Probe(port=port, grpc="", timeout=0.5), box, {})


@pytest.mark.parametrize(
    ("said", "probe"),
    [
        ({"grpc": {}}, Probe(port=9080, grpc="")),
        ({"grpc": {"service": "cart", "port": 7070}, "successThreshold": 2}, Probe(port=7070, grpc="cart", successes=2)),
        ({"tcpSocket": {"port": 9, "host": "10.0.0.1"}, "initialDelaySeconds": 4}, Probe(port=9, host="10.0.0.1", delay=4)),
        ({"exec": {"command": ["a", "b"]}, "timeoutSeconds": 3}, Probe(command=("a", "b"), timeout=3)),
        (
            {"httpGet": {"port": 9, "scheme": "HTTPS", "httpHeaders": [{"name": "a", "value": "b"}]}},
            Probe(port=9, path="/", tls=True, headers=(("a", "b"),)),
        ),
    ],
)
def test_every_probe_of_a_group(said: dict[str, Any], probe: Probe) -> None:
    """A group's probe would be run as another one, or not at all."""
    group = {"metadata": {"name": "reviews"}, "spec": {"template": {}, "probe": said}}
    assert in_group(WorkloadSpec(name="vm", group="reviews", ports=(Port(80, "http", target=9080),)), group).probe == probe


async def test_silence_is_no_answer(box: ProxySandbox) -> None:
    """An application that hangs would stay in rotation, and its probes would pile up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not await healthy(Probe(port=server.getsockname()[1], path="/", timeout=0.1), box, {})


async def test_a_command(box: ProxySandbox, tmp_path: Path) -> None:
    """A command's exit code would not be heard, or one that hangs be left running."""
    for code in (0, 3):
        assert await healthy(Probe(command=(sys.executable, "-c", f"raise SystemExit({code})"), timeout=10), box, {}) is (
            code == 0
        )
    assert not await healthy(Probe(command=("sleep", "60"), timeout=0.1), box, {})
