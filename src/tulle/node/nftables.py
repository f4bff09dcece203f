"""The nftables rules of capture, as text for `nft -f -`; `inside.py` and `netns.py` load them.

A workload's rules lie in its own network namespace, those for the way out of this machine in the host's, in a table of our own.

What they do with a workload's traffic:

- TCP that the application opens goes to the proxy's 15001, DNS (UDP and TCP port 53, to whatever server) to 127.0.0.1:15053.
- TCP that arrives goes to 15006. Let through: 15020, 15021, 15090 (metrics, health); refused: the proxy's other ports.
- Exempt: what carries the proxy's socket mark; loopback, with which the application speaks to itself.
- A proxy that calls its own workload at a declared port (marked, over `lo`) goes to 15006 as any other caller would. At other
  ports, and from 127.0.0.6 (Istio's choice), it is the inbound proxy that passes a connection on to the application.
- IPv6 stays inside: dropped but over `lo`. Other protocols (UDP beside DNS, ICMP) pass as they are, as in Istio.
"""

from __future__ import annotations

from collections.abc import Sequence

from tulle.core.model.interception import Interception
from tulle.core.model.workload import ProxyPorts
from tulle.node import selection
from tulle.node.network import DNS_PORT, PASSTHROUGH_SOURCE, PROXY_DNS_PORT, PROXY_MARK

_MERGED_METRICS = 15020


def workload_rules(ports: ProxyPorts, declared: Sequence[int] = (), chosen: Interception | None = None) -> str:
    """The rules inside the network namespace of a workload that declares these TCP ports, and whose proxy has `ports`.

    `chosen` excludes traffic from capture, or includes some only.
    """
    chosen = chosen or Interception()
    entering = [port for port in declared if chosen.enters(port)]
    called = f"tcp dport {selection.ports(entering)}"
    to_itself = f'meta mark {PROXY_MARK} oifname "lo" ip daddr != 127.0.0.0/8 {called} redirect to :{ports.inbound}'
    reachable = f"{{ {_MERGED_METRICS}, {ports.health}, {ports.metrics} }}"
    own = f"{{ 15000-15019, {ports.outbound}, {ports.inbound}, {DNS_PORT}, {PROXY_DNS_PORT} }}"
    return f"""\
table inet tulle {{
  chain output {{
    type nat hook output priority -100
    ip saddr {PASSTHROUGH_SOURCE} return
    {to_itself if entering else ""}
    meta mark {PROXY_MARK} return
    udp dport 53 redirect to :{DNS_PORT}
    tcp dport 53 redirect to :{DNS_PORT}
    oifname "lo" return
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
    iifname "lo" accept
    ct status dnat accept
    tcp dport {own} reject with tcp reset
  }}
}}
table ip6 tulle {{
  chain output {{
    type filter hook output priority 0
    oifname != "lo" drop
  }}
  chain input {{
    type filter hook input priority 0
    iifname != "lo" drop
  }}
}}
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
