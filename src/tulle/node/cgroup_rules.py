"""The nftables rules of `cgroup` capture, as text for `nft -f -`: one table for all workloads of a node, in the host's network.

Pure: the same workloads give the same text, and loading it replaces the former table at once, without a moment in between.

- What a workload's application opens goes to its proxy, DNS (UDP and TCP port 53, to whatever server) to the node's resolver.
  Exempt: its own declared ports, at whatever address of the host, and what listens on the host's loopback.
- What arrives from other hosts for a socket of the application, declared or not, goes to the proxy.
- What processes of this host open to a port that a workload declares goes to its proxy: other workloads' proxies, gateways, the
  host's own programs. Exempt: a proxy that passes a connection on to its application, over loopback.
- What a workload or its proxy sends to a virtual address, at a port that no service has, is refused.
- The proxies' own ports are refused where somebody calls them without redirection from outside.

Nothing here matches a socket outside of the workloads' control groups and a port that none of them declares: the host's own
traffic and its ssh go as ever. Groups are matched by maps: a connection costs the same with one workload and with a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tulle.core.model.interception import Interception
from tulle.node import selection


class Captured(msgspec.Struct, frozen=True):
    """A workload: its number (a name in the rules), its control groups as nftables names them, its ports."""

    number: int
    application: str
    proxy: str
    declared: tuple[int, ...]
    outbound: int
    inbound: int
    dns: int
    chosen: Interception = Interception()
    ipv6: bool = True  # the proxy listens there too; else the application may not use it


def rules(table: str, level: int, workloads: Sequence[Captured]) -> str:
    """The whole table. `level`: how deep the groups lie."""
    outward = {
        **{one.application: f"goto out_{one.number}" for one in workloads},
        **{one.proxy: "goto from_proxy" for one in workloads},
    }
    inward = {one.application: f"goto in_{one.number}" for one in workloads}
    called = {port: f"goto in_{one.number}" for one in workloads for port in one.declared}
    chains = [chain for one in workloads for chain in (_outward(one), _inward(one))]
    own = sorted(one.inbound for one in workloads)
    return "\n".join(
        [
            f"table inet {table}",
            f"delete table inet {table}",
            f"table inet {table} {{",
            *_map("outward", f"typeof socket cgroupv2 level {level}", {f'"{group}"': to for group, to in outward.items()}),
            *_map("inward", f"typeof socket cgroupv2 level {level}", {f'"{group}"': to for group, to in inward.items()}),
            *_map("declared", "type inet_service", {str(port): to for port, to in sorted(called.items())}),
            *_chain("called", "tcp dport vmap @declared"),
            *_chain("from_proxy", "ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return", "fib daddr type local goto called"),
            *(line for chain in chains for line in chain),
            *_chain(
                "output",
                "type nat hook output priority -100",
                f"socket cgroupv2 level {level} vmap @outward",
                "fib daddr type local goto called",
            ),
            *_chain(
                "prerouting",
                "type nat hook prerouting priority -100",
                'iifname "lo" return',
                f"socket cgroupv2 level {level} vmap @inward",
            ),
            *_chain(
                "input",
                "type filter hook input priority 0",
                'iifname "lo" accept',
                "ct status dnat accept",
                *([f"tcp dport {selection.ports(own)} reject with tcp reset"] if own else []),
            ),
            *_nowhere(level, workloads),
            *_closed(level, [one for one in workloads if not one.ipv6]),
            "}",
            "",
        ]
    )


def _outward(one: Captured) -> list[str]:
    own = [f"tcp dport {selection.ports(one.declared)} fib daddr type local return"] if one.declared else []
    return _chain(
        f"out_{one.number}",
        f"udp dport 53 redirect to :{one.dns}",
        f"tcp dport 53 redirect to :{one.dns}",
        *own,
        "ip daddr 127.0.0.0/8 goto called",
        "ip6 daddr ::1 goto called",
        *selection.outbound(one.chosen, one.outbound),
    )


def _inward(one: Captured) -> list[str]:
    return _chain(f"in_{one.number}", *selection.inbound(one.chosen, one.inbound))


def _nowhere(level: int, workloads: Sequence[Captured]) -> list[str]:
    groups = ", ".join(f'"{group}"' for one in workloads for group in (one.application, one.proxy))
    match = f"socket cgroupv2 level {level} {{ {groups} }}"
    return _chain("nowhere", "type filter hook output priority 0", *selection.nowhere(match)) if workloads else []


def _closed(level: int, workloads: Sequence[Captured]) -> list[str]:
    """Where proxies have no IPv6: what applications open to beyond this host would go past them, and so would what arrives."""
    if not workloads:
        return []
    groups = ", ".join(f'"{one.application}"' for one in workloads)
    match = f"socket cgroupv2 level {level} {{ {groups} }} meta nfproto ipv6 meta l4proto {{ tcp, udp }}"
    return [
        *_chain("closed_out", "type filter hook output priority 0", f'oifname != "lo" {match} reject'),
        *_chain("closed_in", "type filter hook input priority 0", f'iifname != "lo" {match} drop'),
    ]


def _map(name: str, kind: str, elements: dict[str, str]) -> list[str]:
    inside = ["    elements = {", *(f"      {key} : {to}," for key, to in elements.items()), "    }"] if elements else []
    return [f"  map {name} {{", f"    {kind} : verdict", *inside, "  }"]


def _chain(name: str, *lines: str) -> list[str]:
    return [f"  chain {name} {{", *(f"    {line}" for line in lines), "  }"]


def gone(table: str) -> str:
    """What removes the table, also where there is none."""
    return f"table inet {table}\ndelete table inet {table}\n"
