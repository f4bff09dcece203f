"""Where connections and questions for names go, with real namespaces and real Envoys."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.mesh import free_port
from tests.support.sandboxes import (
    ASKS_BY_SIX,
    ROOT,
    by_six,
    connecting,
    envoy,
    inside,
    listener,
    listening,
    said,
    six,
    static,
)
from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture
from tulle.node import host_network
from tulle.node.budget import budget
from tulle.node.dns import DnsServer
from tulle.node.netns import NetnsNetwork
from tulle.node.network import PROXY_MARK
from tulle.node.relay import inner_resources, relay_bootstrap
from tulle.node.sandbox import NetnsSandbox

pytestmark = [pytest.mark.e2e, pytest.mark.netns]
VIRTUAL = "240.240.0.7"


async def test_outbound_connections_reach_the_proxy(network: NetnsNetwork) -> None:
    """Without this an application's calls would go past its sidecar, or the sidecar would not know where they were going."""
    one = await network.create("default/one", [9080])
    async with listening(one, ("0.0.0.0", 15001)):
        assert await said(inside(one, connecting(VIRTUAL, 80))) == f"15001 {VIRTUAL}:80"
        assert await said(inside(one, connecting("192.0.2.77", 3306))) == "15001 192.0.2.77:3306"


async def test_inbound_connections_reach_the_proxy(network: NetnsNetwork) -> None:
    """Without this plaintext would reach an application behind its sidecar's back, or health and metrics would be captured."""
    one, two = await asyncio.gather(network.create("default/one", [9080]), network.create("default/two", [9080]))
    proxy = ("0.0.0.0", 15006), ("0.0.0.0", 15021), ("0.0.0.0", 15090), ("0.0.0.0", 15001), ("0.0.0.0", 9080)
    async with listening(two, *proxy):
        for port, expected in {
            9080: f"15006 {two.address}:9080",
            7777: f"15006 {two.address}:7777",
            15021: f"15021 {two.address}:15021",
            15090: f"15090 {two.address}:15090",
            15001: "ConnectionRefusedError",
            15006: "ConnectionRefusedError",
            15053: "ConnectionRefusedError",
        }.items():
            found = await said(inside(one, connecting(two.address, port, mark=PROXY_MARK), app=False))
            assert found.removesuffix(" -") in (expected, expected.partition(" ")[0]), port


async def test_a_call_to_a_sleeping_proxy_is_refused(network: NetnsNetwork) -> None:
    """While a proxy is away its application must not be reachable without it."""
    one, two = await asyncio.gather(network.create("default/one"), network.create("default/two", [9080]))
    async with listening(two, ("0.0.0.0", 9080)):
        found = await said(inside(one, connecting(two.address, 9080, mark=PROXY_MARK), app=False))
        assert found == "ConnectionRefusedError"


async def test_loopback_is_the_applications_own(network: NetnsNetwork) -> None:
    """An application that speaks to itself (IPv4, IPv6, own address) is not captured."""
    one = await network.create("default/one", [9080])
    async with listening(one, ("0.0.0.0", 15001), ("0.0.0.0", 15006), ("0.0.0.0", 9080)):
        for host in ("127.0.0.1", one.address):
            assert (await said(inside(one, connecting(host, 9080)))).startswith("9080 ")
    code = """
        import socket
        s = socket.create_server(("::1", 4000), family=socket.AF_INET6)
        socket.create_connection(("::1", 4000))
        print("reached")
    """
    assert await said(inside(one, code)) == "reached"


async def test_calls_of_a_workload_to_itself(network: NetnsNetwork) -> None:
    """A proxy that picks its own workload must meet the inbound proxy; what the inbound proxy passes on must not loop."""
    one = await network.create("default/one", [9080])
    async with listening(one, ("0.0.0.0", 15006), ("0.0.0.0", 9080), ("0.0.0.0", 7777)):
        for port, source, expected in (
            (9080, "", f"15006 {one.address}:9080"),
            (7777, "", "7777 "),
            (9080, "127.0.0.6", "9080 "),
        ):
            found = await said(inside(one, connecting(one.address, port, mark=PROXY_MARK, source=source), app=False))
            assert found.startswith(expected)
        assert (await said(inside(one, connecting("127.0.0.1", 9080, mark=PROXY_MARK), app=False))).startswith("9080 ")


async def test_nobody_waits_at_a_virtual_address(network: NetnsNetwork) -> None:
    """What a proxy passes on to a port that no service has must not be waited for: nobody could answer."""
    one = await network.create("default/one")
    calls = [connecting(VIRTUAL, 80, mark=PROXY_MARK)]
    calls += [by_six("fd74:756c:f0f0::7", 80, mark=PROXY_MARK)] if one.ipv6 else []
    for call in calls:
        assert await said(inside(one, call, app=False)) == "ConnectionRefusedError"


DATAGRAMS = """
    import socket
    family, here = (socket.AF_INET6, "::1") if ":" in "{0}" else (socket.AF_INET, "127.0.0.1")
    def made(host="", port=0, transparent=False):
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.settimeout(10)
        if transparent:
            one.setsockopt(*((41, 75) if family == socket.AF_INET6 else (0, 19)), 1)
        if port:
            one.bind((host, port))
        return one
    try:
        busy = made("", 53)
    except PermissionError:
        pass  # an ordinary user
    proxy, caller = made("{0}", 53 | 0xF000, True), made()
    caller.connect(("{0}", 53))
    caller.send(b"question")
    asked, whom = proxy.recvfrom(99)
    proxy.sendto(b"answer", whom)
    print(asked.decode(), whom[0], caller.recv(99).decode())
    application, other = made("", 7000), made()
    other.sendto(b"to a service", ("{0}", 7000))
    other.sendto(b"to itself", (here, 7000))
    print(application.recv(99).decode())
"""


async def test_datagrams_to_a_virtual_address_stay_inside(network: NetnsNetwork) -> None:
    """They must meet the proxy's socket, also at DNS's port, and no application that listens at all of its addresses; which, and
    not the proxy, has the port.
    """
    one = await network.create("default/one")
    assert isinstance(one, NetnsSandbox)
    assert one.datagrams
    for virtual, own in ((VIRTUAL, one.address), *([("fd74:756c:f0f0::7", one.record.address6)] if one.ipv6 else [])):
        found = await said(inside(one, DATAGRAMS.format(virtual), app=False))
        assert found.splitlines() == [f"question {own} answer", "to itself"]


async def test_ipv6_is_caught_too(network: NetnsNetwork) -> None:
    """Both directions by IPv6, and DNS: or applications would walk past their sidecars, and not reach dual-stack services."""
    one, two = await asyncio.gather(network.create("default/one", [9080]), network.create("default/two"))
    assert isinstance(one, NetnsSandbox)
    if not one.ipv6:
        pytest.skip("no IPv6 on this host")
    there = one.record.address6
    with six(one, 15006, 9080, app=True), six(two, 15001, app=True):
        assert await said(inside(two, by_six("fd00:99::7", 80))) == "15001 fd00:99::7 80"
        assert await said(inside(two, by_six(there, 9080, mark=PROXY_MARK), app=False)) == f"15006 {there} 9080"
        assert await said(inside(one, by_six(there, 9080, mark=PROXY_MARK), app=False)) == f"15006 {there} 9080"
        assert (await said(inside(one, by_six("::1", 9080)))).startswith("9080 ")
        assert await said(inside(two, by_six(there, 15006, mark=PROXY_MARK), app=False)) == "ConnectionRefusedError"
    server = DnsServer(resolvers=list)
    server.publish({"cart.default.svc.cluster.local": ["240.240.0.1", "fd00:99::7"]})
    answering = await server.serve(await two.dns_sockets(), "default")
    try:
        assert (await said(inside(two, ASKS_BY_SIX))).split() == ["240.240.0.1", "fd00:99::7", "fd00:99::7"]
    finally:
        await answering.close()


async def test_nothing_leaves_by_ipv6(network: NetnsNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the world outside there is no way; and where a host gives no addresses, there is none at all past the sidecar."""
    one = await network.create("default/one")
    outside = inside(one, by_six("2001:db8::1", 80))
    assert await said(outside) == "OSError"
    await network.teardown()
    monkeypatch.setattr(host_network, "gives_ipv6", lambda: False)
    one = await network.create("default/one")
    assert not one.ipv6
    code = """
        import socket
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            s.connect(("2001:db8::1", 80)); print("leaks")
        except OSError:
            print("closed")
        print(len([line for line in open("/proc/net/if_inet6") if not line.rstrip().endswith(" lo")]))
    """
    assert (await said(inside(one, code))).split() == ["closed", "0"]


async def test_names_resolve_inside(network: NetnsNetwork) -> None:
    """Mesh names in every form, names of elsewhere, and servers that an application insists on: all through the node's DNS."""
    one = await network.create("shop/one")
    elsewhere = DnsServer(resolvers=list)
    elsewhere.publish({"www.example.org": ["192.0.2.1"]})
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    upstream = await elsewhere.serve([udp], "none")
    server = DnsServer(resolvers=lambda: [udp.getsockname()])
    server.publish({"cart.shop.svc.cluster.local": ["240.240.0.1"], "reviews.default.svc.cluster.local": ["240.240.0.2"]})
    serving = await server.serve(await one.dns_sockets(), "shop")
    try:
        code = """
            import socket
            for name in ("cart", "cart.shop", "reviews.default", "reviews.default.svc", "cart.shop.svc.cluster.local",
                         "www.example.org"):
                print(socket.gethostbyname(name))
            for name in ("reviews", "nobody.shop.svc.cluster.local"):
                try:
                    print(socket.gethostbyname(name))
                except socket.gaierror:
                    print("unknown")
        """
        expected = ["240.240.0.1"] * 2 + ["240.240.0.2"] * 2 + ["240.240.0.1", "192.0.2.1", "unknown", "unknown"]
        assert (await said(inside(one, code))).split() == expected
        server.publish({"cart.shop.svc.cluster.local": ["240.240.0.9"]})
        query = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x04cart\0\x00\x01\x00\x01"
        code = f"""
            import socket
            query = {query!r}
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10); u.connect(("192.0.2.53", 53)); u.send(query)
            print(socket.inet_ntoa(u.recv(512)[-4:]))
            t = socket.create_connection(("192.0.2.53", 53), 10); t.sendall(len(query).to_bytes(2, "big") + query)
            print(socket.inet_ntoa(t.recv(512)[-4:]))
        """
        assert (await said(inside(one, code))).split() == ["240.240.0.9"] * 2
    finally:
        await serving.close()
        await upstream.close()


async def test_many_at_once(network: NetnsNetwork) -> None:
    """Sandboxes made at the same time must not share an address, and each must be reachable."""
    made = await asyncio.gather(*(network.create(f"default/w{number}", [9080]) for number in range(8)))
    assert len({one.address for one in made}) == 8
    async with listening(made[7], ("0.0.0.0", 15006)):
        for one in made[:7]:
            found = await said(inside(one, connecting(made[7].address, 9080, mark=PROXY_MARK), app=False))
            assert found == f"15006 {made[7].address}:9080"


async def test_a_call_through_two_real_envoys(network: NetnsNetwork, folder: Path) -> None:
    """The whole path: application → captured → Envoy → the other's Envoy, captured → the other's application on 127.0.0.1."""
    one, two = await asyncio.gather(network.create("default/one"), network.create("default/two", [9080]))
    mark = {"level": 1, "name": 36, "int_value": PROXY_MARK, "state": "STATE_PREBIND"}
    manager = {"upstream_bind_config": {"socket_options": [mark]}}
    passing = {"name": "passing", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    out = listener("out", 15001, "passing", "envoy.filters.listener.original_dst")
    into = listener("in", 15006, "app")
    node = {"id": "test", "cluster": "test"}
    calling = {"node": node, "cluster_manager": manager, "static_resources": {"listeners": [out], "clusters": [passing]}}
    called = {
        "node": node,
        "cluster_manager": manager,
        "static_resources": {"listeners": [into], "clusters": [static("app", 9080)]},
    }
    async with (
        listening(two, ("127.0.0.1", 9080)),
        envoy(one, calling, folder, lambda: 15001 in one.listening()),
        envoy(two, called, folder, lambda: 15006 in two.listening()),
    ):
        assert (await said(inside(one, connecting(two.address, 9080)))).startswith("9080 ")
        assert (await said(inside(one, connecting(two.address, 1234)))).startswith("9080 ")


async def test_the_host_reaches_a_gateway_through_the_relay(network: NetnsNetwork, folder: Path) -> None:
    """Without root a gateway lies in the user namespace: the relay is the only way in."""
    gateway = await network.gateway("tulle-system/ingressgateway", [8080])
    assert gateway.capture is Capture.NONE
    assert network.relayed is not ROOT
    two = await network.create("default/two", [9080])
    port, path = free_port(), str(folder / "relay.sock")
    inner = inner_resources({8089: path})
    inner["listeners"].append(listener("gateway", 8089, "workload"))
    workload = static("workload", 9080)
    workload["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = (
        two.address
    )
    inner["clusters"].append(workload)
    outer = relay_bootstrap("127.0.0.1", {port: path}, admin_socket=str(folder / "admin.sock"), budget=budget())
    async with (
        listening(two, ("0.0.0.0", 15006)),
        envoy(
            gateway, {"node": {"id": "g", "cluster": "g"}, "static_resources": inner}, folder, lambda: 8089 in gateway.listening()
        ),
        envoy(None, outer, folder, lambda: _open("127.0.0.1", port)),
    ):
        _, writer = connected = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(connected[0].read(), 10) == f"15006 {two.address}:9080".encode()
        writer.close()


def _open(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.mark.skipif(not ROOT, reason="the host reaches workloads only as root")
async def test_root_reaches_workloads_from_the_host(network: NetnsNetwork) -> None:
    """A gateway on the host calls workloads by their addresses; so does `openssl s_client`."""
    one = await network.create("default/one", [9080])
    async with listening(one, ("0.0.0.0", 15006)):
        reader, writer = await asyncio.open_connection(one.address, 9080)
        assert await reader.read() == f"15006 {one.address}:9080".encode()
        writer.close()


async def test_what_is_excluded_passes(network: NetnsNetwork) -> None:
    """Ports and ranges by Istio's annotations: a database beyond the mesh must be reached directly, a probe's port as it is."""
    two = await network.create("default/two", [9080, 9090], Interception(not_inbound_ports=(9090,)))
    ranges = Interception(not_outbound_ranges=(f"{two.address}/32",), not_outbound_ports=(7000,))
    one = await network.create("default/one", [], ranges)
    only = await network.create("default/only", [], Interception(outbound_ranges=("192.0.2.0/24",), inbound_ports=(9080,)))
    async with (
        listening(two, ("0.0.0.0", 15006), ("0.0.0.0", 9090)),
        listening(one, ("0.0.0.0", 15001)),
        listening(only, ("0.0.0.0", 15001), ("0.0.0.0", 15006), ("0.0.0.0", 7000)),
    ):
        assert await said(inside(one, connecting(two.address, 9080))) == f"15006 {two.address}:9080"
        assert (await said(inside(one, connecting(two.address, 9090)))).startswith("9090 ")
        assert await said(inside(one, connecting(only.address, 9080))) == f"15001 {only.address}:9080"
        assert (await said(inside(one, connecting(only.address, 7000)))).startswith("7000 ")
        assert await said(inside(only, connecting("192.0.2.1", 80))) == "15001 192.0.2.1:80"
        assert await said(inside(only, connecting("240.240.0.1", 80))) == "15001 240.240.0.1:80"
        assert (await said(inside(only, connecting(two.address, 9090)))).startswith("9090 ")
