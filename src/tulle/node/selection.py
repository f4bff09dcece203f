"""The lines of nftables rules that choose what is captured (`Interception`), the same for `netns` and `cgroup` capture."""

from __future__ import annotations

from collections.abc import Iterable

from tulle.core import networks
from tulle.core.model.interception import Interception

# Nobody but a sidecar can answer there, so that they are captured also where only some ranges are.
VIRTUAL, VIRTUAL_SIX = networks.VIRTUAL
VIRTUALS = (("ip", VIRTUAL), ("ip6", VIRTUAL_SIX))


def ports(numbers: Iterable[int]) -> str:
    """A set of ports."""
    return f"{{ {', '.join(map(str, sorted(set(numbers))))} }}"


def outbound(chosen: Interception, port: int) -> list[str]:
    """For connections that the application opens, the last lines of their chain: redirected to `port`, or let go."""
    lines = []
    if chosen.not_interfaces:
        lines.append(f"oifname {_names(chosen.not_interfaces)} return")
    if chosen.not_outbound_ports:
        lines.append(f"tcp dport {ports(chosen.not_outbound_ports)} return")
    lines += [f"{match} return" for match in _addresses(chosen.not_outbound_ranges)]
    everything = f"meta l4proto tcp redirect to :{port}"
    if chosen.outbound_ranges is None or chosen.outbound_ports is None:
        return [*lines, everything]
    if chosen.outbound_ports:
        lines.append(f"tcp dport {ports(chosen.outbound_ports)} redirect to :{port}")
    lines += [
        f"meta l4proto tcp {match} redirect to :{port}" for match in _addresses((VIRTUAL, VIRTUAL_SIX, *chosen.outbound_ranges))
    ]
    return lines


def nowhere(match: str = "") -> list[str]:
    """Lines of a filter chain for what leaves for one of these addresses all the same, of what `match` holds for: it is refused.

    No port of a service is there, and beyond this network nobody answers: it would be waited for in vain.
    """
    lines = [f"{family} daddr {network} {match}".rstrip() for family, network in VIRTUALS]
    return [f"{line} {end}" for line in lines for end in ("meta l4proto tcp reject with tcp reset", "reject")]


def passing_in(chosen: Interception) -> list[str]:
    """Matches of what arrives and is not captured; `return`, `accept` or what else is to be done follows each."""
    lines = []
    if chosen.not_interfaces:
        lines.append(f"iifname {_names(chosen.not_interfaces)}")
    if chosen.not_inbound_ports:
        lines.append(f"tcp dport {ports(chosen.not_inbound_ports)}")
    if chosen.inbound_ports is not None:
        lines.append(f"tcp dport != {ports(chosen.inbound_ports)}" if chosen.inbound_ports else "meta l4proto tcp")
    return lines


def inbound(chosen: Interception, port: int) -> list[str]:
    """For connections that arrive, the last lines of their chain: redirected to `port`, or let through."""
    return [*(f"{match} return" for match in passing_in(chosen)), f"meta l4proto tcp redirect to :{port}"]


def _names(interfaces: Iterable[str]) -> str:
    quoted = [f'"{name}"' for name in interfaces]
    return f"{{ {', '.join(quoted)} }}"


def _addresses(ranges: Iterable[str]) -> list[str]:
    """A match for each family that the networks have; without overlaps, which nftables refuses in a set."""
    from ipaddress import IPv4Network, IPv6Network, collapse_addresses

    four = collapse_addresses(IPv4Network(one) for one in ranges if ":" not in one)
    six = collapse_addresses(IPv6Network(one) for one in ranges if ":" in one)
    families = ("ip", [str(one) for one in four]), ("ip6", [str(one) for one in six])
    return [f"{family} daddr {{ {', '.join(found)} }}" for family, found in families if found]
