"""`cgroup` capture on this host: what is caught, what never is, and what is left. Callers from outside live in a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.support.mesh import free_port
from tests.support.sandboxes import ASKS_BY_SIX, ROOT, by_six, connecting, inside, listening, said, six
from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture
from tulle.kit.errors import Refused
from tulle.node import cgroups
from tulle.node.capture import choose
from tulle.node.cgroup import CgroupNetwork, CgroupSandbox, own_address, tried
from tulle.node.dns import DnsServer
from tulle.node.netns import NetnsNetwork
from tulle.node.network import PROXY_MARK, Sandbox, teardown_instance

pytestmark = [pytest.mark.e2e, pytest.mark.netns, pytest.mark.skipif(not ROOT, reason="cgroup capture takes root")]

SOMEWHERE = "240.240.0.1"


@pytest.fixture
async def host(folder: Path) -> AsyncIterator[CgroupNetwork]:
    """A network of control groups on this host, removed whatever happens."""
    made = CgroupNetwork(f"cgroup-{folder.name}", folder)
    try:
        await tried(CgroupNetwork(f"probe-{folder.name}", folder / "probe"))
        await made.open()
    except Refused as error:
        pytest.skip(f"no cgroup capture here: {error.message}")
    try:
        yield made
    finally:
        await made.teardown()
        assert left(made) == []


def left(network: CgroupNetwork) -> list[str]:
    """What of an instance is left in the kernel."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    return [
        *(line for line in tables.splitlines() if network.table in line),
        *(line for line in routes.splitlines() if f"metric {network._metric}" in line),
        *([str(network._root())] if network._root().exists() else []),
    ]


@contextlib.contextmanager
def serving(box: Sandbox, *ports: int, host: str = "0.0.0.0") -> Iterator[subprocess.Popen[str]]:
    """An application inside that answers `app` at each of its ports."""
    code = f"""
        import selectors, socket
        waiting = selectors.DefaultSelector()
        for port in {ports!r}:
            waiting.register(socket.create_server(({host!r}, port)), selectors.EVENT_READ)
        print("up", flush=True)
        while True:
            for key, _ in waiting.select():
                connection, _ = key.fileobj.accept()
                connection.sendall(b"app")
                connection.close()
    """
    running = inside(box, code)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n", running.communicate()
        yield running
    finally:
        running.kill()
        running.communicate()


async def answer(host: str, port: int) -> str:
    """What a program of the host, outside of the mesh, hears there."""
    reader, writer = await asyncio.open_connection(host, port)
    heard = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return heard


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


async def test_what_an_application_opens_is_caught(host: CgroupNetwork) -> None:
    """Its whole process tree, also what moves deeper into groups of its own; each workload to its own proxy."""
    one = cast(CgroupSandbox, await host.create("default/one"))
    two = cast(CgroupSandbox, await host.create("default/two"))
    async with listening(one, ("127.0.0.1", one.proxy_ports.outbound)), listening(two, ("127.0.0.1", two.proxy_ports.outbound)):
        for box in (one, two):
            expected = f"{box.proxy_ports.outbound} {SOMEWHERE}:80"
            assert await said(inside(box, connecting(SOMEWHERE, 80))) == expected
            grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_flat(connecting(SOMEWHERE, 80))!r}])"
            assert await said(inside(box, grandchild)) == expected
        deeper = one.folder / "app" / "deeper"
        deeper.mkdir()
        moved = f"open({str(deeper / 'cgroup.procs')!r}, 'w').write('0')\n{_flat(connecting(SOMEWHERE, 80))}"
        assert await said(inside(one, moved)) == f"{one.proxy_ports.outbound} {SOMEWHERE}:80"


def _flat(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)


async def test_the_hosts_own_is_never_caught(host: CgroupNetwork, network: NetnsNetwork) -> None:
    """A socket outside of every workload (an ssh server): called from the host, other hosts, and by a workload over loopback."""
    one = await host.create("default/one", [])
    ssh = socket.create_server(("0.0.0.0", 0), backlog=8)
    port = ssh.getsockname()[1]
    outside = await network.create("default/outside")
    address = own_address()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ssh.setblocking(False)
        while True:
            connection, _ = await loop.sock_accept(ssh)
            await loop.sock_sendall(connection, b"SSH-2.0")
            connection.close()

    server = asyncio.create_task(serve())
    try:
        async with listening(one, ("0.0.0.0", one.proxy_ports.inbound), ("127.0.0.1", one.proxy_ports.outbound)):
            assert await answer("127.0.0.1", port) == "SSH-2.0"
            assert await answer(address, port) == "SSH-2.0"
            assert await said(inside(outside, connecting(address, port, mark=PROXY_MARK), app=False)) == "SSH-2.0"
            assert await said(inside(one, connecting("127.0.0.1", port))) == "SSH-2.0"
            # What the host itself opens goes where it goes: here to an address that nobody has, and not to a proxy.
            with pytest.raises((OSError, TimeoutError)):
                async with asyncio.timeout(0.5):
                    await answer(SOMEWHERE, port)
    finally:
        server.cancel()
        ssh.close()


async def test_what_arrives_is_caught(host: CgroupNetwork, network: NetnsNetwork) -> None:
    """From other hosts to any socket of the application; from this host to the ports that it declares."""
    declared, other, second = free_ports(3)
    one, two = await host.create("default/one", [declared]), await host.create("default/two", [second])
    outside = await network.create("default/outside")
    address = own_address()
    inbound = one.proxy_ports.inbound
    async with listening(one, ("0.0.0.0", inbound), ("127.0.0.1", one.proxy_ports.outbound)):
        with serving(one, declared, other):
            for port in (declared, other):
                heard = await said(inside(outside, connecting(address, port, mark=PROXY_MARK), app=False))
                assert heard == f"{inbound} {address}:{port}"
            assert await answer(address, declared) == f"{inbound} {address}:{declared}"
            assert await answer("127.0.0.1", declared) == f"{inbound} 127.0.0.1:{declared}"
            # Another workload: its proxy by the address, its application by loopback; the own one speaks to itself.
            assert await said(inside(two, connecting(address, declared), app=False)) == f"{inbound} {address}:{declared}"
            assert await said(inside(two, connecting("127.0.0.1", declared))) == f"{inbound} 127.0.0.1:{declared}"
            for itself in (address, "127.0.0.1"):
                assert await said(inside(one, connecting(itself, declared))) == "app"
            # The inbound proxy passes on over loopback, and where it went for a port that nobody declares.
            assert await said(inside(one, connecting("127.0.0.1", declared), app=False)) == "app"
            assert await said(inside(one, connecting(address, other), app=False)) == "app"
            assert await said(inside(one, connecting(address, declared), app=False)) == f"{inbound} {address}:{declared}"
    # A proxy's own port is no way around its rules.
    async with listening(one, ("0.0.0.0", inbound)):
        heard = await said(inside(outside, connecting(address, inbound, mark=PROXY_MARK), app=False))
        assert heard == "ConnectionRefusedError"


async def test_what_is_excluded_passes(host: CgroupNetwork, network: NetnsNetwork) -> None:
    """Ports and ranges by Istio's annotations: a database beyond the mesh must be reached directly, a probe's port as it is."""
    declared, probe = free_ports(2)
    direct_to = f"{own_address()}/32"
    chosen = Interception(not_outbound_ranges=(direct_to,), not_outbound_ports=(3306,), not_inbound_ports=(probe,))
    one = await host.create("default/one", [declared], chosen)
    outside = await network.create("default/outside")
    address, outbound = own_address(), one.proxy_ports.outbound
    with socket.create_server(("0.0.0.0", 0)) as direct:
        async with listening(one, ("0.0.0.0", one.proxy_ports.inbound), ("127.0.0.1", outbound)):
            with serving(one, declared, probe):
                assert await said(inside(outside, connecting(address, probe, mark=PROXY_MARK), app=False)) == "app"
                heard = await said(inside(outside, connecting(address, declared, mark=PROXY_MARK), app=False))
                assert heard == f"{one.proxy_ports.inbound} {address}:{declared}"
                assert await said(inside(one, connecting(SOMEWHERE, 80))) == f"{outbound} {SOMEWHERE}:80"
                calling = inside(one, connecting(address, direct.getsockname()[1]))
                connection, peer = await asyncio.to_thread(direct.accept)
                assert peer[0] == address
                connection.sendall(b"direct")
                connection.close()
                assert await said(calling) == "direct"


async def test_names_resolve(host: CgroupNetwork) -> None:
    """Each workload's DNS is its own, for namespaces differ, and whatever server the application asks."""
    server = DnsServer(resolvers=list)
    server.publish({"cart.shop.svc.cluster.local": ["240.240.0.1"], "cart.store.svc.cluster.local": ["240.240.0.2"]})
    for number, namespace in enumerate(("shop", "store"), start=1):
        one = await host.create(f"{namespace}/one")
        serving_dns = await server.serve(await one.dns_sockets(), namespace)
        try:
            code = """
                import socket
                print(socket.gethostbyname("cart"))
                u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10); u.connect(("192.0.2.53", 53))
                u.send(b"\\x12\\x34\\x01\\x00\\x00\\x01\\0\\0\\0\\0\\0\\0\\x04cart\\0\\x00\\x01\\x00\\x01")
                print(socket.inet_ntoa(u.recv(512)[-4:]))
            """
            assert (await said(inside(one, code))).split() == [f"240.240.0.{number}"] * 2
        finally:
            await serving_dns.close()


async def test_a_taken_port_is_refused(host: CgroupNetwork) -> None:
    """Whoever declares the port of the host's ssh would have its connections; the sentence says what else to do."""
    with socket.create_server(("0.0.0.0", 0)) as ssh:
        port = ssh.getsockname()[1]
        with pytest.raises(Refused, match=f"port {port} is that of a program of this host"):
            await host.create("default/one", [port])
    await host.create("default/one", [port])
    with pytest.raises(Refused, match=f"port {port} is that of workload default/one") as refused:
        await host.create("default/two", [port])
    assert f"--port {port}:PROTOCOL:" in refused.value.hint


AGENT = """
import asyncio, sys
from pathlib import Path
from tulle.node.cgroup import CgroupNetwork

async def main():
    network = CgroupNetwork(sys.argv[1], Path(sys.argv[2]))
    await network.open()
    one = await network.create("default/one", [int(sys.argv[3])])
    print(one.proxy_ports.inbound, one.proxy_ports.outbound, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_rules_outlive_the_agent_and_go_with_it(host: CgroupNetwork, folder: Path) -> None:
    """After kill -9 of the agent traffic is captured as before; the next takes over without a gap; uninstalled, nothing stays."""
    (port,) = free_ports(1)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, host.instance, str(folder), str(port), stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    inbound, outbound = map(int, (await asyncio.wait_for(agent.stdout.readline(), 30)).split())
    agent.kill()
    await agent.wait()
    box = await host.adopt("default/one")
    assert box is not None
    calls = 0
    async with listening(box, ("0.0.0.0", inbound), ("127.0.0.1", outbound)):
        with serving(box, port):
            opening = asyncio.create_task(host.open())
            while not opening.done() or calls < 20:
                assert await answer("127.0.0.1", port) == f"{inbound} 127.0.0.1:{port}"
                calls += 1
            assert await said(inside(box, connecting(SOMEWHERE, 80))) == f"{outbound} {SOMEWHERE}:80"
        with serving(box, port) as runs:
            assert left(host)
            await teardown_instance(host.instance, folder)
            assert runs.wait(10) == -9
    assert left(host) == []
    assert not (folder / "cgroup").exists()


async def test_flushed_rules_come_back(host: CgroupNetwork) -> None:
    """A firewall service that is restarted flushes everything; without rules every connection would go past the sidecars."""
    one = await host.create("default/one")
    subprocess.run(["nft", "delete", "table", "inet", host.table], check=True)
    await host.open()
    async with listening(one, ("127.0.0.1", one.proxy_ports.outbound)):
        assert await said(inside(one, connecting(SOMEWHERE, 80))) == f"{one.proxy_ports.outbound} {SOMEWHERE}:80"


async def test_a_removed_workload_is_no_more(host: CgroupNetwork) -> None:
    """Its port is the host's again, and its neighbours go on."""
    first, second = free_ports(2)
    one, two = await host.create("default/one", [first]), await host.create("default/two", [second])
    with serving(one, first) as runs:
        await host.destroy("default/one")
        assert runs.wait(10) == -9
    assert not one.alive()
    assert two.alive()
    assert host.recorded() == ["default/two"]
    async with listening(two, ("0.0.0.0", first), ("0.0.0.0", two.proxy_ports.inbound)):
        assert (await answer("127.0.0.1", first)).startswith(f"{first} ")
        assert (await answer("127.0.0.1", second)).startswith(f"{two.proxy_ports.inbound} ")


async def test_it_is_chosen_by_name(folder: Path) -> None:
    """What was asked for is tried and said; the trial leaves nothing."""
    chosen, reason = await choose("cgroup", instance=f"choose-{folder.name}", folder=folder / "choose", address="192.0.2.7")
    assert chosen.capture is Capture.CGROUP
    assert reason.startswith("cgroup, as asked for")
    assert not [path for path in cgroups.hierarchy().glob("tulle-*") if path.name == cast(CgroupNetwork, chosen).table]


async def test_ipv6_is_caught_too(host: CgroupNetwork) -> None:
    """Both directions by IPv6, or applications would walk past their sidecars on every dual-stack host."""
    (declared,) = free_ports(1)
    one, two = await host.create("default/one", [declared]), await host.create("default/two")
    if not one.ipv6:
        pytest.skip("no IPv6 on this host")
    inbound, outbound = one.proxy_ports.inbound, two.proxy_ports.outbound
    with six(one, inbound, app=False), six(two, outbound, app=False), six(one, declared, app=True):
        assert await answer("::1", declared) == f"{inbound} ::1 {declared}"
        assert await said(inside(two, by_six("::1", declared))) == f"{inbound} ::1 {declared}"
        assert (await said(inside(one, by_six("::1", declared)))).startswith(f"{declared} ")
        with _route("2001:db8:7::/64"):
            heard = await said(inside(two, by_six("2001:db8:7::1", 80)))
            assert heard == f"{outbound} 2001:db8:7::1 80"
    server = DnsServer(resolvers=list)
    server.publish({"cart.default.svc.cluster.local": ["240.240.0.1", "2001:db8::7"]})
    answering = await server.serve(await two.dns_sockets(), "default")
    try:
        assert (await said(inside(two, ASKS_BY_SIX))).split() == ["2001:db8::7", "240.240.0.1", "2001:db8::7"]
    finally:
        await answering.close()


@contextlib.contextmanager
def _route(network: str) -> Iterator[None]:
    """A way to addresses that nobody has, on a host without any way out by IPv6."""
    subprocess.run(["ip", "-6", "route", "add", network, "dev", "lo", "src", "::1"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "-6", "route", "delete", network, "dev", "lo"], check=False)
