"""The nftables rules of capture, as text for `nft -f -`; `inside.py` and `netns.py` load them.

A workload's rules lie in its own network namespace, those for the way out of this machine in the host's, in a table of our own.

What they do with a workload's traffic:

- TCP that the application opens goes to the proxy's 15001; DNS (UDP and TCP port 53, to whatever server but a service of the
  mesh) to 127.0.0.1:15053.
- TCP that arrives goes to 15006. Let through: 15020, 15021, 15090 (metrics, health); refused: the proxy's other ports.
- Exempt: what goes to these ports of others; what carries the proxy's socket mark; loopback, with which the application speaks
  to itself.
- A proxy that calls its own workload at a declared port (marked, over `lo`) goes to 15006 as any other caller would. At other
  ports, and from 127.0.0.6 (Istio's choice), it is the inbound proxy that passes a connection on to the application.
- What leaves for a virtual address all the same is refused: a port that no service has, which the proxy passes on.
- IPv6 is captured as IPv4 is where the proxy has it; elsewhere it stays inside: dropped but over `lo`.
- `datagrams`: UDP to a virtual address stays inside (`datagram_routes`), for the proxy that listens there, at another port. Its
  sockets are transparent: with them it answers as that address, and by that its own datagrams are told from the application's.
- Other protocols (other UDP beside DNS, ICMP) pass as they are, as in Istio.
"""

from __future__ import annotations

from collections.abc import Sequence

from tulle.core.model.interception import Interception
from tulle.core.model.workload import ProxyPorts
from tulle.core.networks import DATAGRAM_PORTS
from tulle.node import selection
from tulle.node.network import DNS_PORT, MERGED_METRICS, PASSTHROUGH_SOURCE, PROXY_DNS_PORT, PROXY_MARK


def workload_rules(
    ports: ProxyPorts,
    declared: Sequence[int] = (),
    chosen: Interception | None = None,
    *,
    ipv6: bool = False,
    datagrams: bool = False,
) -> str:
    """The rules inside the network namespace of a workload that declares these TCP ports, and whose proxy has `ports`.

    `chosen` excludes traffic from capture, or includes some only. `ipv6`: the proxy listens there too. `datagrams`: and for UDP.
    """
    chosen = chosen or Interception()
    entering = [port for port in declared if chosen.enters(port)]
    called = f"tcp dport {selection.ports(entering)}"
    to_itself = [
        f'meta mark {PROXY_MARK} oifname "lo" {address} {called} redirect to :{ports.inbound}'
        for address in ("ip daddr != 127.0.0.0/8", "ip6 daddr != ::1")
    ]
    reachable = f"{{ {MERGED_METRICS}, {ports.health}, {ports.metrics} }}"
    own = f"{{ 15000-15019, {ports.outbound}, {ports.inbound}, {DNS_PORT}, {PROXY_DNS_PORT} }}"
    return f"""\
table inet tulle {{
  chain output {{
    type nat hook output priority -100
    ip saddr {PASSTHROUGH_SOURCE} return
{_lines(to_itself if entering else [])}
    meta mark {PROXY_MARK} return
{_lines([f"{match} meta l4proto tcp goto outward" for match in _TO_SERVICES])}
{_lines(_DATAGRAMS_OUT if datagrams else [])}
    udp dport 53 redirect to :{DNS_PORT}
    tcp dport 53 redirect to :{DNS_PORT}
    oifname "lo" return
    tcp dport {reachable} return
    goto outward
  }}
  chain outward {{
{_lines(selection.outbound(chosen, ports.outbound))}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    iifname "lo" return
    tcp dport {reachable} return
    tcp dport {own} return
{_lines(selection.inbound(chosen, ports.inbound))}
  }}
  chain input {{
    type filter hook input priority 0
{_lines(_DATAGRAMS_IN if datagrams else [])}
    iifname "lo" accept
    ct status dnat accept
    tcp dport {own} reject with tcp reset
  }}
  chain nowhere {{
    type filter hook output priority 0
    oifname "lo" accept
{_lines(selection.nowhere())}
  }}
}}
{"" if ipv6 else _CLOSED}"""


_TO_SERVICES = tuple(f"{family} daddr {network}" for family, network in selection.VIRTUALS)
_DATAGRAMS_OUT = (
    "meta l4proto udp socket transparent 1 return",
    *(f"{match} meta l4proto udp dnat to :udp dport | {DATAGRAM_PORTS:#x}" for match in _TO_SERVICES),
)
# Where no service has the port, an application that listens at all of its addresses would meet itself.
_DATAGRAMS_IN = tuple(
    f'iifname "lo" {match} meta l4proto udp {end}' for match in _TO_SERVICES for end in ("socket transparent 1 accept", "drop")
)
_TABLE = 240  # of routes


def datagram_routes(address: str) -> list[str]:
    """`ip` commands of the family of a workload's `address`: its UDP to virtual ones stays inside, its TCP goes as before."""
    network = selection.VIRTUAL_SIX if ":" in address else selection.VIRTUAL
    return [
        f"rule add iif lo ipproto udp to {network} lookup {_TABLE} pref 100",
        f"route add local {network} dev lo src {address} table {_TABLE}",
    ]


_CLOSED = """\
table ip6 tulle {
  chain output {
    type filter hook output priority 0
    oifname != "lo" drop
  }
  chain input {
    type filter hook input priority 0
    iifname != "lo" drop
  }
}
"""


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def host_rules(table: str, bridge: str, network: str) -> str:
    """The rules in the host's namespace that let the workloads on `bridge`, with addresses of `network`, out of this machine."""
    return f"""\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority 100
    ip saddr {network} oifname != "{bridge}" masquerade
  }}
}}
"""
