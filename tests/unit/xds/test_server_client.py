"""The ADS server and the node's client, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
import msgspec
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.playbook.dialogue import CLUSTER, ENDPOINT, LISTENER, Book, cluster, endpoints, thing
from tests.support.xds import Watch, connected, listening
from tulle.control.ca.authority import Authority
from tulle.kit.errors import Refused
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.xds.client import AdsClient, Response, Upstream
from tulle.xds.credentials import ServerCredentials
from tulle.xds.server import AdsServer, Observer
from tulle.xds.status import Nack, Progress

NODE = "spiffe://cluster.local/node/host-1"
CONTROL_PLANE = "spiffe://cluster.local/ns/tulle-system/sa/control-plane"


class Proxy:
    """A client that keeps what it gets, and acknowledges at once unless told to wait."""

    def __init__(self, upstream: Upstream, name: str = "default/x", answers: bool = True) -> None:
        self.watch = Watch()
        self.has: dict[str, dict[str, str]] = {}
        self.heard: list[Response] = []
        self.answers = answers
        self.ups = 0
        self.client = AdsClient(upstream, name, self.deliver, self.versions, self.up)

    def versions(self, type_url: str) -> Mapping[str, str]:
        return self.has.get(type_url, {})

    def up(self, connected: bool) -> None:
        self.ups += connected
        self.watch.changed()

    def deliver(self, response: Response) -> None:
        self.heard.append(response)
        holds = self.has.setdefault(response.type_url, {})
        holds.update({resource.name: resource.version for resource in response.resources})
        for name in response.removed:
            holds.pop(name, None)
        if self.answers:
            self.client.ack(response.nonce)
        self.watch.changed()

    async def until(self, type_url: str, names: str) -> None:
        await self.watch.until(lambda: sorted(self.has.get(type_url, {})) == sorted(names.split()))


class Notes(Observer):
    def __init__(self) -> None:
        self.watch = Watch()
        self.lines: list[str] = []

    def _note(self, line: str) -> None:
        self.lines.append(line)
        self.watch.changed()

    def connected(self, proxy: str, stream: int) -> None:
        self._note(f"{proxy} {stream} connected")

    def disconnected(self, proxy: str, stream: int) -> None:
        self._note(f"{proxy} {stream} disconnected")

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        self._note(f"{proxy} {stream} refused {' '.join(nack.names)}: {nack.message}")

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        self._note(f"{proxy} {stream} synced {revision}")


def book() -> Book:
    made = Book()
    made.tell(cluster("a"), endpoints("a"), thing(LISTENER, "l"))
    return made


async def test_publish_ack_and_wait(tmp_path: Path) -> None:
    """Would fail if a change did not reach a proxy, or `tulle wait` returned before it was acknowledged, or for ever after."""
    source, notes = book(), Notes()
    server = AdsServer(source, observer=notes, clock=lambda: 1000.0)
    async with listening(server, str(tmp_path / "s")) as target:
        upstream = Upstream(target)
        proxy = Proxy(upstream)
        proxy.client.want(CLUSTER, ["*"])
        proxy.client.want(LISTENER, ["*"])
        async with connected(proxy.client):
            await proxy.until(CLUSTER, "a")
            proxy.client.want(ENDPOINT, ["a"])
            assert await server.wait_synced(1, 10) == []
            server.publish(source.tell(thing(LISTENER, "m")))
            assert await server.wait_synced(2, 10) == []
            assert sorted(proxy.has[LISTENER]) == ["l", "m"]
            (status,) = server.proxies()
            assert (status.proxy, status.peer, status.connected, status.synced, status.held) == (
                "default/x",
                "",
                1000.0,
                2,
                False,
            )
            assert [(it.sent, it.acked, it.resources) for it in status.types] == [(1, 1, 1), (1, 1, 1), (2, 2, 2)]
            proxy.answers = False
            server.publish(source.tell(thing(LISTENER, "n")))
            assert await server.wait_synced(3, 0.05) == ["default/x"]
            waiting = asyncio.create_task(server.wait_synced(3, 10))
            await proxy.until(LISTENER, "l m n")
            proxy.client.ack(proxy.heard[-1].nonce)
            assert await waiting == []
            assert await server.wait_synced(4, 0.05) == ["default/x"], "the source itself is not there yet"
        await notes.watch.until(lambda: notes.lines[-1] == "default/x 1 disconnected")
        assert server.proxies() == []
        assert await server.wait_synced(3, 1) == []
        await upstream.close()


async def test_a_refusal_is_told(tmp_path: Path) -> None:
    """Would fail if Envoy's words about a bad resource got lost between the node and `tulle proxy status`."""
    source, notes = book(), Notes()
    server = AdsServer(source, observer=notes)
    async with listening(server, str(tmp_path / "s")) as target:
        upstream = Upstream(target)
        proxy = Proxy(upstream, answers=False)
        proxy.client.want(CLUSTER, ["*"])
        async with connected(proxy.client):
            await proxy.watch.until(lambda: len(proxy.heard) == 1)
            proxy.client.nack(proxy.heard[0].nonce, "cluster a: no such thing")
            await notes.watch.until(lambda: "default/x 1 refused a: cluster a: no such thing" in notes.lines)
            proxy.client.ack(proxy.heard[0].nonce)  # it is answered already
            (status,) = server.proxies()
            assert status.types[0].refused == {"a": "cluster a: no such thing"}
            assert server.progress() == [Progress("default/x", 0, {(CLUSTER, "a"): "cluster a: no such thing"})]
        await upstream.close()


async def test_reconnect_catches_up(tmp_path: Path) -> None:
    """Would fail if a node did not come back after an outage, or got everything again, or missed what changed meanwhile."""
    source = book()
    path = str(tmp_path / "s")
    upstream = Upstream(f"unix:{path}")
    proxy = Proxy(upstream)
    proxy.client.want(CLUSTER, ["*"])
    proxy.client.want(LISTENER, ["*"])
    proxy.client.want(ENDPOINT, ["a"])
    async with connected(proxy.client):
        server = AdsServer(source)
        async with listening(server, path):
            assert await server.wait_synced(1, 10) == []
            await proxy.watch.until(lambda: len(proxy.heard) == 3)
        await proxy.watch.until(lambda: not proxy.client.connected)
        source.tell(thing(LISTENER, "m"), gone=[(LISTENER, "l")])
        server = AdsServer(source)
        async with listening(server, path):
            await proxy.until(LISTENER, "m")
            assert [(it.type_url, [one.name for one in it.resources], it.removed) for it in proxy.heard[3:]] == [
                (LISTENER, ["m"], ()),
                (LISTENER, [], ("l",)),
            ]
            assert proxy.ups == 2
    await upstream.close()


async def test_a_proxy_that_becomes_known(tmp_path: Path) -> None:
    """Would fail if a workload whose entry the control plane has not seen yet did not start without a reconnect."""
    source = book()
    source.seen["default/x"] = ()
    notes = Notes()
    server = AdsServer(source, observer=notes)
    async with listening(server, str(tmp_path / "s")) as target:
        upstream = Upstream(target)
        proxy = Proxy(upstream)
        proxy.client.want(CLUSTER, ["*"])
        proxy.client.want(LISTENER, ["*"])
        proxy.client.want(ENDPOINT, ["a"])
        async with connected(proxy.client):
            await notes.watch.until(lambda: bool(notes.lines))
            assert server.proxies()[0].held
            assert await server.wait_synced(1, 5) == []
            waiting = asyncio.create_task(server.wait_synced(2, 10))
            await asyncio.sleep(0)
            source.seen.clear()
            server.publish(source.tell())
            assert await waiting == []
            assert sorted(proxy.has[CLUSTER]) == ["a"]
        await upstream.close()


async def test_a_proxy_that_becomes_somebody_elses(tmp_path: Path) -> None:
    """Broken: a node that asks early for another's proxy would get its configuration, with secrets, as soon as there is one."""
    source, owner = book(), ""
    source.seen["default/x"] = ()
    notes = Notes()

    def authorize(peer: str | None, proxy: str) -> None:
        if owner:
            raise Refused(f"{proxy} runs on {owner}, not with {peer}")

    server = AdsServer(source, authorize=authorize, observer=notes)
    async with listening(server, str(tmp_path / "s")) as target:
        upstream = Upstream(target)
        proxy = Proxy(upstream)
        proxy.client.want(CLUSTER, ["*"])
        async with connected(proxy.client):
            await notes.watch.until(lambda: bool(notes.lines))
            assert server.proxies()[0].held
            owner = "host-2"
            source.seen.clear()
            server.publish(source.tell())
            await notes.watch.until(lambda: any("disconnected" in str(line) for line in notes.lines))
            assert not proxy.has.get(CLUSTER)
        await upstream.close()


async def test_a_proxy_that_moves_to_another_node(tmp_path: Path) -> None:
    """Broken: a node goes on being sent a proxy that another one runs now, where nothing but that has changed."""
    source, owners = book(), {"default/x": ""}
    notes = Notes()

    def authorize(peer: str | None, proxy: str) -> None:
        if owners[proxy]:
            raise Refused(f"{proxy} runs on {owners[proxy]}, not with {peer}")

    server = AdsServer(source, authorize=authorize, observer=notes)
    async with listening(server, str(tmp_path / "s")) as target:
        upstream = Upstream(target)
        proxy = Proxy(upstream)
        proxy.client.want(CLUSTER, ["*"])
        async with connected(proxy.client):
            await proxy.until(CLUSTER, "a")
            owners["default/x"] = "host-2"
            server.publish(msgspec.structs.replace(source.tell(), proxies=frozenset({"default/x"})))
            await notes.watch.until(lambda: any("disconnected" in line for line in notes.lines))
            await proxy.watch.until(lambda: not proxy.client.connected)
        await upstream.close()


async def test_a_revoked_certificate_of_a_node(tmp_path: Path) -> None:
    """Broken: whoever has stolen a node's certificate goes on reading configuration after that certificate was revoked, or is let
    in again; or the node, which has a newer one, is cut off with him.
    """
    authority = Authority.open(tmp_path / "ca")
    pair = authority.issue_server(["127.0.0.1"], 600, CONTROL_PLANE)
    credentials = ServerCredentials(pair.key, pair.chain, authority.bundle)
    lost: set[tuple[str, str]] = set()
    server = AdsServer(book(), authorize=only_node, revoked=lambda peer, serial: (peer, serial) in lost)
    async with listening(server, credentials=credentials.grpc) as target:
        old, new = Upstream(target), Upstream(target)
        key, chain = node_certificate(authority)
        old.use(authority.bundle, key, chain)
        new.use(authority.bundle, *node_certificate(authority))
        thief, node = Proxy(old), Proxy(new)
        for one in (thief, node):
            one.client.want(CLUSTER, ["*"])
        async with connected(thief.client), connected(node.client):
            await thief.until(CLUSTER, "a")
            await node.until(CLUSTER, "a")
            lost.add((NODE, f"{x509.load_pem_x509_certificates(chain)[0].serial_number:x}"))
            with structlog.testing.capture_logs() as logs:
                server.end_revoked()
                async with asyncio.timeout(20):
                    while server.refused < 2:  # noqa: ASYNC110 - his next stream, which nobody is told of
                        await asyncio.sleep(0.05)
            assert all("revoked" in line["why"] and line["peer"] == NODE for line in logs if line["event"] == "proxy refused")
            assert not thief.client.connected
            assert node.client.connected
            assert len(server.proxies()) == 1
        await old.close()
        await new.close()


def csr() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return plain, made.public_bytes(serialization.Encoding.PEM)


def node_certificate(authority: Authority, identity: str = NODE) -> tuple[bytes, bytes]:
    key, request = csr()
    return key, authority.sign(request, identity, 600)


def only_node(peer: str | None, proxy: str) -> None:
    if peer != NODE or proxy != "default/x":
        raise Refused(f"{peer} may not have the configuration of {proxy}")


async def test_mutual_tls_and_rotation(tmp_path: Path) -> None:
    """Would fail if a peer without a certificate of the mesh were served, or a rotated certificate (or root) cut a stream off."""
    authority = Authority.open(tmp_path / "ca")
    server_pair = authority.issue_server(["127.0.0.1"], 600, CONTROL_PLANE)
    credentials = ServerCredentials(server_pair.key, server_pair.chain, authority.bundle)
    source = book()
    server = AdsServer(source, authorize=only_node)
    async with listening(server, credentials=credentials.grpc) as target:
        upstream = Upstream(target)
        key, chain = node_certificate(authority)
        upstream.use(authority.bundle, key, chain)
        proxy = Proxy(upstream)
        proxy.client.want(CLUSTER, ["*"])
        async with connected(proxy.client):
            await proxy.until(CLUSTER, "a")
            assert server.proxies()[0].peer == NODE
            # A new root: trusted first, then used by both sides, then the old one is dropped.
            other = Authority.open(tmp_path / "ca2")
            both = authority.bundle + other.bundle
            credentials.use(server_pair.key, server_pair.chain, both)
            upstream.use(both, key, chain)
            new_pair = other.issue_server(["127.0.0.1"], 600, CONTROL_PLANE)
            credentials.use(new_pair.key, new_pair.chain, both)
            new_key, new_chain = node_certificate(other)
            upstream.use(both, new_key, new_chain)
            credentials.use(new_pair.key, new_pair.chain, other.bundle)
            upstream.use(other.bundle, new_key, new_chain)
            await proxy.watch.until(lambda: not proxy.client.connected)
            server.publish(source.tell(cluster("b")))
            await proxy.until(CLUSTER, "a b")
            # The old root's certificates are worth nothing now.
            late = Upstream(target)
            late.use(both, key, chain)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with asyncio.timeout(10):
                    await late.channel.stream_stream("/x/y")().read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await late.close()
        await upstream.close()


@pytest.mark.parametrize(
    "case", ["other proxy", "other node", "no certificate", "person", "no node id", "garbage", "workload as server"]
)
async def test_who_is_not_served(tmp_path: Path, case: str) -> None:
    """Would fail if a node could read another workload's configuration, or a person or stranger any."""
    authority = Authority.open(tmp_path / "ca")
    pair = authority.issue_server(["127.0.0.1"], 600, CONTROL_PLANE)
    if case == "workload as server":  # a workload that pretends to be the control plane
        key, chain = node_certificate(authority, "spiffe://cluster.local/ns/default/sa/evil")
        credentials = ServerCredentials(key, chain, authority.bundle)
    else:
        credentials = ServerCredentials(pair.key, pair.chain, authority.bundle)
    server = AdsServer(book(), authorize=only_node)
    async with listening(server, credentials=credentials.grpc) as target:
        upstream = Upstream(target)
        key, chain = node_certificate(authority, NODE if case != "other node" else "spiffe://cluster.local/node/host-2")
        if case == "person":
            person = authority.issue_client("admin", ["system:masters"], 600)
            key, chain = person.key, person.chain
        if case == "no certificate":
            channel = grpc.aio.secure_channel(
                target,
                grpc.ssl_channel_credentials(authority.bundle),
                options=[("grpc.ssl_target_name_override", "tulle.tulle-system.svc")],
            )
        else:
            upstream.use(authority.bundle, key, chain)
            channel = upstream.channel
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = {"no node id": "", "other proxy": "default/y"}.get(case, "default/x")
        data = request.SerializeToString() if case != "garbage" else b"\xff\xff\xff"
        call = channel.stream_stream("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")()

        async def speak() -> None:
            await call.write(data)
            await call.read()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(speak(), 10)
        expected = {
            "no certificate": grpc.StatusCode.UNAVAILABLE,
            "workload as server": grpc.StatusCode.UNAVAILABLE,
            "garbage": grpc.StatusCode.INVALID_ARGUMENT,
        }
        assert caught.value.code() is expected.get(case, grpc.StatusCode.PERMISSION_DENIED)
        assert server.proxies() == []
        assert server.refused == (caught.value.code() is grpc.StatusCode.PERMISSION_DENIED)
        await channel.close()
        await upstream.close()
