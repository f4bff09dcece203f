"""WorkloadGroups on a node: what an entry takes from its group, and what probes make of answers."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
