"""What somebody can do who has taken over one part of the mesh: a workload's key, a node's, a place beside a sidecar."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from tests.e2e.test_rights import running
from tests.support.certificates import Roots
from tests.support.commands import run
from tests.support.gateways import Gateways, listener, object_, pem, route, secret
from tests.support.mesh import Mesh, envoy_of, free_port
from tulle.core.type_urls import CLUSTER
from tulle.kit.errors import Refused
from tulle.node.identity import Identity, IdentityClient, context
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.xds.client import Upstream

ENTRIES = "/apis/networking.istio.io/v1/namespaces/default/workloadentries"
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def stolen(mesh: Mesh, of: str) -> Identity:
    """The identity that a workload (`namespace/name`) or the node ("") has on this host's disk."""
    folder = mesh.home / "state" / "demo" / "node"
    found = folder / "identity.json" if not of else folder / "workloads" / of.replace("/", ".", 1) / "identity.json"
    identity = Identity.load(found)
    assert identity is not None
    return identity


@asynccontextmanager
async def stream(mesh: Mesh, thief: Identity, proxy: str) -> AsyncIterator[Any]:
    """An xDS stream that asks for a proxy's clusters."""
    upstream = Upstream(f"127.0.0.1:{mesh.xds_port}")
    upstream.use(thief.bundle.encode(), thief.key.encode(), thief.chain.encode())
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["*"])
    request.node.id = proxy
    call = upstream.channel.stream_stream(_ADS)()
    try:
        await call.write(request.SerializeToString())
        yield call
    finally:
        call.cancel()
        await upstream.close()


async def asked_for(mesh: Mesh, thief: Identity, proxy: str) -> grpc.StatusCode:
    """What such a stream ends with; OK where it gets an answer."""
    try:
        async with stream(mesh, thief, proxy) as call, asyncio.timeout(20):
            await call.read()
        return grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        return error.code()


async def answered(mesh: Mesh, thief: Identity, path: str, method: str = "GET", body: Any = None) -> int:
    """The API server's status for a request with a certificate."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, f"https://127.0.0.1:{mesh.api_port}{path}", ssl=context(thief), server_hostname="localhost", json=body
        ) as reply,
    ):
        return reply.status


async def test_a_stolen_workload_key(mesh: Mesh) -> None:
    """Broken: who breaks into one application would have the configuration, the secrets or the identity of another."""
    thief = stolen(mesh, "default/details-v1")
    for proxy in ("default/details-v1", "default/reviews-v1", "tulle-system/ingressgateway", "default/nobody"):
        assert await asked_for(mesh, thief, proxy) is grpc.StatusCode.PERMISSION_DENIED, proxy
    for path in ("/api/v1/secrets", "/api/v1/namespaces/default/services", "/apis/networking.istio.io/v1/virtualservices"):
        assert await answered(mesh, thief, path) == 403, path
    identities = IdentityClient(f"127.0.0.1:{mesh.api_port}")
    for wanted in ("ns/default/sa/bookinfo-reviews", "ns/tulle-system/sa/control-plane", "node/demo"):
        with pytest.raises(Refused):
            await identities.sign(thief, f"spiffe://cluster.local/{wanted}")


async def test_a_stolen_node_key(mesh: Mesh) -> None:
    """Broken: who is root on one host would be the workloads of every other host, or another node."""
    token = (await asyncio.to_thread(mesh.tulle, "token", "create", "--allow", "default/mine")).out.split()[0]
    identities = IdentityClient(f"127.0.0.1:{mesh.api_port}")
    thief = await identities.join(token, "thief")
    assert (await identities.sign(thief, "spiffe://cluster.local/ns/default/sa/mine")).key, "what its token names"
    others = ("ns/default/sa/bookinfo-reviews", "ns/tulle-system/sa/control-plane", "ns/mine/sa/mine")
    for wanted in ("node/another", "node/demo", *others):
        with pytest.raises(Refused):
            await identities.sign(thief, f"spiffe://cluster.local/{wanted}")
    for proxy in ("default/details-v1", "tulle-system/ingressgateway"):
        assert await asked_for(mesh, thief, proxy) is grpc.StatusCode.PERMISSION_DENIED, proxy
    for path in ("/api/v1/secrets", "/api/v1/namespaces/tulle-system/secrets", "/apis/networking.istio.io/v1/virtualservices"):
        assert await answered(mesh, thief, path) == 403, path
    assert await answered(mesh, thief, f"{ENTRIES}/details-v1", "DELETE") == 403


async def test_a_node_that_asks_early(mesh: Mesh) -> None:
    """Broken: a node that asks for another's proxy before there is one would get its configuration as soon as there is."""
    thief = stolen(mesh, "")
    elsewhere = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "elsewhere", "namespace": "default", "annotations": {"tulle.dev/node": "another"}},
        "spec": {"address": "192.0.2.7", "labels": {"app": "elsewhere"}},
    }
    async with stream(mesh, thief, "default/elsewhere") as call:
        await call.initial_metadata()  # let in, for nobody knows of it
        await asyncio.to_thread(mesh.kubectl, "apply", "-f", "-", stdin=json.dumps(elsewhere))
        try:
            async with asyncio.timeout(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
            assert await asked_for(mesh, thief, "default/elsewhere") is grpc.StatusCode.PERMISSION_DENIED
        finally:
            await asyncio.to_thread(mesh.kubectl, "delete", "workloadentry", "elsewhere")


def test_a_proxys_administration_is_nobodys(mesh: Mesh) -> None:
    """Broken: any workload, or anybody on the network, could read a proxy's configuration, or end it."""
    victim, before = "default/details-v1", envoy_of(mesh, "default/details-v1")
    table = mesh.inside("cat", "/proc/net/tcp", workload="details-v1").out.splitlines()[1:]
    ports = {int(row[1].rpartition(":")[2], 16) for row in map(str.split, table) if row[3] == "0A"}
    assert {15001, 15006, 15021, 15090} <= ports
    address = mesh.kubectl("get", "workloadentry", "details-v1", "-o", "jsonpath={.spec.address}").out
    readable = ("config_dump", "certs", "stats", "clusters", "server_info")
    paths = (*readable, "healthz/ready/../../config_dump", "stats/prometheus/../certs")
    asking = ["curl", "-s", "-m", "3", "--path-as-is", "--http0.9", "--parallel", "--parallel-max", "100"]
    for host, where in ((address, "the host"), (address, "curl"), ("127.0.0.1", "details-v1")):
        reading = [f"http://{host}:{port}/{path}" for port in sorted(ports) for path in paths]
        ending = [f"http://{host}:{port}/{path}" for port in sorted(ports) for path in ("quitquitquit", "drain_listeners")]
        for argv in ([*asking, *reading], [*asking, "-X", "POST", *ending]):
            if where == "the host":
                said = run(argv, mesh.env, timeout=60).out
            else:
                said = mesh.inside(*argv, workload=where, check=False).out
            for word in ('"configs"', "BootstrapConfigDump", '"ca_cert"', "added_via_api", "command_line_options", "OK\n"):
                assert word not in said, f"{where}: {said[:300]}"
    assert envoy_of(mesh, victim) == before


@pytest.fixture
def canaries(gateways: Gateways) -> dict[str, str]:
    """Secrets by what they are, each in the forms in which it could be seen: everything that this mesh keeps, and more."""
    mesh, port = gateways.mesh, free_port()
    served = pem(Roots().server("canary.example"))
    listeners = [listener("a", port, "canary.example", "canary")]
    gateways.apply(
        secret("canary", served),
        object_("Gateway", "canary", {"gatewayClassName": "tulle", "listeners": listeners}),
        route("canary"),
    )
    keys = {"key of a gateway": served["tls.key"]}
    for file in mesh.home.rglob("identity.json"):
        keys[f"key of {file.parent.name}"] = json.loads(file.read_bytes())["key"]
    found = {}
    for name, key in keys.items():
        lines = [line for line in key.splitlines() if "-----" not in line]
        found[f"{name}, PEM"] = lines[len(lines) // 2 - 1 if len(lines) > 2 else 1][:48]
        found[f"{name}, base64"] = base64.b64encode(key.encode()).decode()[48:112]
    found["join token"] = mesh.tulle("token", "create", "--allow", "default/canary").out.split()[0]
    found["API token"] = mesh.tulle("apitoken", "create", "--user", "canary", "--group", "tulle:viewers").out.split()[0]
    first = mesh.home / "state" / "demo" / "join-token"
    if first.exists():
        found["the demo's join token"] = first.read_text().strip()
    return found


def test_no_secret_is_seen(mesh: Mesh, canaries: dict[str, str]) -> None:
    """Broken: who may read logs, dumps or the list of processes would have keys and tokens."""
    assert len(canaries) >= 18
    used = {**mesh.env, "TULLE_TOKEN": canaries["API token"]}
    run([*mesh.command, "get", "secrets", "-A", "-o", "yaml"], used)
    # A proxy that falls says where; that must not be what it holds.
    crashed = envoy_of(mesh, "default/ratings-v1")
    os.kill(crashed, signal.SIGABRT)
    end = time.monotonic() + 60
    while envoy_of(mesh, "default/ratings-v1") in (0, crashed):
        assert time.monotonic() < end, "it comes back"
        time.sleep(0.1)
    mesh.synced()
    hay: dict[str, str] = {}
    for file in mesh.home.rglob("*.log"):
        hay[str(file)] = file.read_text(errors="replace")
    assert any("SIGABRT" in text or "Caught Abort" in text for text in hay.values()), "the crash was written down"
    for file in mesh.home.rglob("bootstrap.json"):
        hay[str(file)] = file.read_text()
    for pids in running(mesh).values():
        for pid in pids:
            for what in ("cmdline", "environ"):
                hay[f"/proc/{pid}/{what}"] = Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
    for workload in ("ingressgateway", "ratings-v1"):
        namespace = ["-n", "tulle-system"] if workload == "ingressgateway" else []
        for what in ("all", "secret", "bootstrap"):
            hay[f"proxy config {what} {workload}"] = mesh.tulle("proxy", "config", what, workload, *namespace, "-o", "json").out
    for argv in (["history"], ["get", "workloadentries", "-A", "-o", "yaml"], ["proxy", "status"], ["check"]):
        hay[" ".join(argv)] = mesh.tulle(*argv, check=False).text
    hay["events"] = mesh.kubectl("get", "events", "-A", "-o", "json").out
    for what, needle in canaries.items():
        assert len(needle) >= 20, what
        seen = [place for place, text in hay.items() if needle in text]
        assert not seen, f"{what} is in {seen}"


def test_no_core_is_left(mesh: Mesh) -> None:
    """Broken: a crash would write a proxy's memory, with its keys, to the disk."""
    for program, pids in running(mesh).items():
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text()
            (row,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
            assert row.split()[4:6] == ["0", "0"], program
