"""Sandboxes come and go: teardown, kill -9 of anything, several agents on a host, the choice of a capture."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.sandboxes import (
    ROOT,
    connecting,
    inside,
    listening,
    said,
    traces,
)
from tulle.core.model.workload import Capture
from tulle.kit.errors import Refused, Unavailable
from tulle.node import host_network, process
from tulle.node.capture import choose
from tulle.node.netns import NetnsNetwork
from tulle.node.network import PROXY_MARK, teardown_instance

pytestmark = [pytest.mark.e2e, pytest.mark.netns]


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


WAY_OUT = """
import ipaddress, pathlib, socket, subprocess, time
gateway = subprocess.run(["ip", "-4", "route", "show", "default"], capture_output=True, text=True).stdout.split()[2]
for _ in range(100):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (gateway, 9))
    known = [line.split()[3] for line in pathlib.Path("/proc/net/arp").read_text().splitlines() if line.startswith(f"{gateway} ")]
    if known and known != ["00:00:00:00:00:00"]: break
    time.sleep(0.05)
print(*known, "02:74:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(gateway).packed))
"""


async def test_the_way_out_stays_where_it_is(network: NetnsNetwork) -> None:
    """Broken: whenever a workload comes or goes the others would reach nothing beyond for seconds, for the bridge had the address
    of one of its ports, and has that of another.
    """
    for name in ("one", "two", "three"):
        seen, of_its_own = (await said(inside(await network.create(f"default/{name}"), WAY_OUT))).split()
        assert seen == of_its_own


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
    if not ROOT:  # as root: test_cgroup.py
        with pytest.raises(Refused, match="it takes root"):
            await choose("cgroup", instance="x", folder=folder / "choose")
    with pytest.raises(Refused, match="not known"):
        await choose("iptables", instance="x", folder=folder / "choose")


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
