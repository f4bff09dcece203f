"""The host's own network as root: the address range, the marked bridge, the way out; put back as it was by `clear`.

Several instances may share a host. What `net.ipv4.ip_forward` was before the first of them stands in the alias of every bridge,
and the last to go puts it back; opening and clearing exclude one another through a lock on the network namespace itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from tulle.kit.errors import Refused, Unavailable

PRIVATE_RANGES = [IPv4Network(f"10.{second}.0.0/16") for second in (*range(99, 128), *range(201, 240))]
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_NO_IPV6 = [Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("all", "default")]
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"  # not all of them are on an ordinary user's path
_PACKAGES = {"ip": "iproute2", "nft": "nftables", "sleep": "coreutils"}


def program(name: str) -> str:
    """Where a program of the system lies; raises `Refused`, naming its package."""
    if found := shutil.which(name, path=_path()):
        return found
    raise Refused(f"the program {name} is not installed", hint=f"install the package {_PACKAGES[name]}")


def programs() -> bool:
    """Whether what it takes is installed; where it is not, there can be nothing of ours in the host's network."""
    return all(shutil.which(name, path=_path()) for name in ("ip", "nft"))


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"


@contextlib.asynccontextmanager
async def one_at_a_time() -> AsyncIterator[None]:
    """Keep other agents from changing the host's network meanwhile; the lock goes with this process at the latest."""
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


async def free_range(wanted: str | None) -> IPv4Network:
    """`wanted`, or the first of the private ranges, that overlaps no address and no route but the default one."""
    taken = [
        IPv4Network(route["dst"], strict=False)
        for route in await _ip("-4", "route", "show", "table", "all")
        if route["dst"] != "default" and ":" not in route["dst"]
    ]
    for candidate in [*([IPv4Network(wanted)] if wanted else []), *PRIVATE_RANGES]:
        if not any(candidate.overlaps(one) for one in taken):
            return candidate
    raise Refused("no private address range is free on this host", hint="tried 10.99.0.0/16 to 10.239.0.0/16")


async def forward_before() -> str:
    """What ip_forward was before the first instance on this host."""
    for link in await _ip("link"):
        if "forward" in (alias := _alias(link)):
            return str(alias["forward"])
    return _forwarding()


def forwards() -> bool:
    """Whether this host forwards packets, so that workloads reach what lies beyond it."""
    return _forwarding() == "1"


def gives_ipv6() -> bool:
    """Whether new interfaces of this host, and of namespaces that are made here, may have addresses of IPv6."""
    with contextlib.suppress(OSError):
        return has_ipv6() and all(file.read_text().strip() == "0" for file in _NO_IPV6)
    return False


def has_ipv6() -> bool:
    """Whether programs of this host can use IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _forwarding() -> str:
    return _FORWARD.read_text().strip()


def _set_forwarding(value: str) -> None:
    with contextlib.suppress(OSError):  # a read-only /proc/sys, as in containers: `forwards` tells
        _FORWARD.write_text(value)


async def mark(bridge: str, instance: str, forward: str) -> None:
    """Write down on the bridge whose it is and what ip_forward was, and let the host forward."""
    alias = json.dumps({"tulle": instance, "forward": forward}, separators=(",", ":"))
    await succeed(program("ip"), "link", "set", "dev", bridge, "alias", alias)
    _set_forwarding("1")


async def load(rules: str) -> None:
    """Load nftables rules."""
    await succeed(program("nft"), "-f", "-", text=rules)


async def reach(network: str, metric: int) -> None:
    """Give addresses that are captured anyway a route, where this host has none: without one no program tries to connect."""
    code, _, _ = await attempt(program("ip"), "route", "get", str(ip_network(network)[1]))
    if code != 0:
        source, family = ("::1", "-6") if ":" in network else ("127.0.0.1", "-4")
        await succeed(program("ip"), family, "route", "replace", network, "dev", "lo", "src", source, "metric", str(metric))


async def unreach(network: str, metric: int) -> None:
    """Undo `reach`."""
    family = "-6" if ":" in network else "-4"
    await attempt(program("ip"), family, "route", "delete", network, "dev", "lo", "metric", str(metric))


async def pass_firewall(bridge: str) -> None:
    """Let the bridge's traffic through the iptables FORWARD chain where that drops, as Docker and ufw have it.

    A rule that accepts in a table of our own does not overrule one that drops elsewhere; and with `br_netfilter` even traffic
    that stays on the bridge goes through that chain.
    """
    code, chain, _ = await attempt(program("nft"), "list", "chain", "ip", "filter", "FORWARD")
    if code == 0 and "policy drop" in chain:
        rules = [f'insert rule ip filter FORWARD {side} "{bridge}" counter accept' for side in ("iifname", "oifname")]
        await load("\n".join(rules))


async def _leave_firewall(bridge: str) -> None:
    _, chain, _ = await attempt(program("nft"), "--handle", "list", "chain", "ip", "filter", "FORWARD")
    for line in chain.splitlines():
        if f'ifname "{bridge}"' in line:
            handle = line.rpartition("# handle ")[2].strip()
            await attempt(program("nft"), "delete", "rule", "ip", "filter", "FORWARD", "handle", handle)


async def has(bridge: str) -> bool:
    """Whether the bridge stands."""
    return any(link["ifname"] == bridge for link in await _ip("link"))


async def clear(bridge: str, instance: str) -> None:
    """Remove the bridge, its ports and its rules, and put ip_forward back; raises `Refused` where the bridge is another's."""
    await _leave_firewall(bridge)
    links = await _ip("link")
    found = next((link for link in links if link["ifname"] == bridge), None)
    if found is None:
        await attempt(program("nft"), "delete", "table", "ip", bridge)  # should somebody have taken the bridge away
        return
    alias = _alias(found)
    if (owner := alias.get("tulle", instance)) != instance:
        raise Refused(f"the bridge {bridge} belongs to the instance {owner!r}", hint="choose another instance name")
    for link in links:
        if link.get("master") == bridge:
            await attempt(program("ip"), "link", "delete", "dev", link["ifname"])
    await attempt(program("nft"), "delete", "table", "ip", bridge)
    if "forward" in alias and not any("tulle" in _alias(link) for link in links if link is not found):
        _set_forwarding(str(alias["forward"]))
    await attempt(program("ip"), "link", "delete", "dev", bridge)  # last: it remembers what ip_forward was


def _alias(link: dict[str, Any]) -> dict[str, Any]:
    """What one of our bridges has in its alias; {} for anybody else's link."""
    try:
        alias = json.loads(link.get("ifalias", ""))
    except ValueError:
        return {}
    return alias if isinstance(alias, dict) else {}


async def _ip(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await succeed(program("ip"), "-json", *arguments) or "[]")
    return found


async def succeed(*command: str, text: str = "") -> str:
    """Run a program; its output, or `Unavailable` with what it said."""
    code, out, err = await attempt(*command, text=text)
    if code != 0:
        raise Unavailable(f"{os.path.basename(command[0])}: {(err.strip() or f'exit code {code}').splitlines()[0]}")
    return out


async def attempt(*command: str, text: str = "") -> tuple[int, str, str]:
    """Run a program: exit code, output, errors."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    out, err = await process.communicate(text.encode())
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
