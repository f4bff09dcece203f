"""The lines of nftables rules that choose what is captured (`Interception`), the same for `netns` and `cgroup` capture."""

from __future__ import annotations

from collections.abc import Iterable

from tulle.core.model.interception import Interception

# The addresses of the mesh's own that services without an address get: nobody but a sidecar can answer there, so they are
# captured also where only some ranges are.
VIRTUAL = "240.240.0.0/16"


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
    lines += [f"meta l4proto tcp {match} redirect to :{port}" for match in _addresses((VIRTUAL, *chosen.outbound_ranges))]
    return lines


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
    """A match for each family that the networks have."""
    four = [one for one in ranges if ":" not in one]
    six = [one for one in ranges if ":" in one]
    return [
        *([f"ip daddr {{ {', '.join(_merged(four))} }}"] if four else []),
        *([f"ip6 daddr {{ {', '.join(six)} }}"] if six else []),
    ]


def _merged(four: list[str]) -> list[str]:
    """Without overlaps, which nftables refuses in a set."""
    from ipaddress import IPv4Network, collapse_addresses

    return [str(one) for one in collapse_addresses(IPv4Network(one) for one in four)]
