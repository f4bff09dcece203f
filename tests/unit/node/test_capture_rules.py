"""The nftables rules of `cgroup` and `netns` capture, as text; where nft is there, it reads them too."""

from __future__ import annotations

import os
import shutil
import subprocess

import msgspec
import pytest

from tulle.core.model.interception import Interception
from tulle.core.model.workload import ProxyPorts
from tulle.node import nftables
from tulle.node.cgroup_rules import Captured, gone, rules

ONE = Captured(10, "tulle-x/10/app", "tulle-x/10/proxy", (9080, 9090), 20000, 20001, 20004)
TWO = Captured(11, "tulle-x/11/app", "tulle-x/11/proxy", (9081,), 20005, 20006, 20009)
CHOSEN = Interception(
    outbound_ranges=("10.0.0.0/8", "2001:db8::/32"),
    not_outbound_ranges=("192.0.2.0/24", "fd00::/8"),
    outbound_ports=(9000,),
    not_outbound_ports=(25, 3306),
    inbound_ports=(80, 443),
    not_inbound_ports=(22,),
    not_interfaces=("docker0", "eth1"),
)


def chain(text: str, name: str) -> list[str]:
    """The lines of a chain."""
    inside = text.partition(f"chain {name} {{")[2].partition("\n  }")[0]
    return [line.strip() for line in inside.splitlines() if line.strip()]


def test_only_groups_and_declared_ports_are_caught() -> None:
    """Every way into a proxy begins with a control group or a declared port; all else of the host goes as it went."""
    text = rules("tulle-x", 3, [ONE, TWO])
    assert chain(text, "output") == [
        "type nat hook output priority -100",
        "socket cgroupv2 level 3 vmap @outward",
        "fib daddr type local goto called",
    ]
    assert chain(text, "prerouting") == [
        "type nat hook prerouting priority -100",
        'iifname "lo" return',
        "socket cgroupv2 level 3 vmap @inward",
    ]
    assert chain(text, "called") == ["tcp dport vmap @declared"]
    assert '"tulle-x/11/app" : goto out_11,' in text
    assert '"tulle-x/11/proxy" : goto from_proxy,' in text
    assert "9081 : goto in_11," in text


def test_an_application_reaches_itself_and_its_hosts_loopback() -> None:
    """Captured there, it would meet its own sidecar for its own socket, and a local database would be looked for in the mesh."""
    assert chain(rules("tulle-x", 3, [ONE]), "out_10") == [
        "udp dport 53 redirect to :20004",
        "tcp dport 53 redirect to :20004",
        "tcp dport { 9080, 9090 } fib daddr type local return",
        "ip daddr 127.0.0.0/8 goto called",
        "ip6 daddr ::1 goto called",
        "meta l4proto tcp redirect to :20000",
    ]


def test_loading_replaces() -> None:
    """In one transaction: between two there would be a moment in which everything goes past the proxies."""
    for text in (rules("tulle-x", 3, [ONE]), gone("tulle-x")):
        assert text.startswith("table inet tulle-x\ndelete table inet tulle-x\n")
    assert rules("tulle-x", 3, []).count("elements") == 0


def test_without_ipv6_nothing_goes_past_by_it() -> None:
    """Proxies that do not listen there would be walked around."""
    text = rules("tulle-x", 3, [msgspec.structs.replace(ONE, ipv6=False), TWO])
    assert chain(text, "closed_out")[1].endswith("meta nfproto ipv6 meta l4proto { tcp, udp } reject")
    assert chain(text, "closed_in")[1].endswith("drop")
    assert "closed" not in rules("tulle-x", 3, [ONE])


def test_what_is_chosen() -> None:
    """Exclusions first, then what is included; the mesh's own addresses always, for nobody else answers there."""
    text = rules("tulle-x", 3, [Captured(10, "a/app", "a/proxy", (80,), 1, 2, 3, CHOSEN)])
    assert chain(text, "out_10")[5:] == [
        'oifname { "docker0", "eth1" } return',
        "tcp dport { 25, 3306 } return",
        "ip daddr { 192.0.2.0/24 } return",
        "ip6 daddr { fd00::/8 } return",
        "tcp dport { 9000 } redirect to :1",
        "meta l4proto tcp ip daddr { 10.0.0.0/8, 240.240.0.0/16 } redirect to :1",
        "meta l4proto tcp ip6 daddr { 2001:db8::/32, fd74:756c:f0f0::/112 } redirect to :1",
    ]
    assert chain(text, "in_10") == [
        'iifname { "docker0", "eth1" } return',
        "tcp dport { 22 } return",
        "tcp dport != { 80, 443 } return",
        "meta l4proto tcp redirect to :2",
    ]


def test_netns_chooses_by_the_same_lines() -> None:
    """One annotation, one meaning, however a host captures."""
    text = nftables.workload_rules(ProxyPorts(), (80, 8080), CHOSEN)
    assert "tcp dport { 25, 3306 } return" in chain(text, "outward")
    assert chain(text, "prerouting")[-2:] == ["tcp dport != { 80, 443 } return", "meta l4proto tcp redirect to :15006"]
    assert "tcp dport { 80 } redirect to :15006" in text.partition("daddr != 127.0.0.0/8 ")[2]


def test_nothing_leaves_for_an_address_of_services() -> None:
    """Broken: a call to a port that a service does not have is waited for until its caller gives up."""
    groups = 'socket cgroupv2 level 3 { "tulle-x/10/app", "tulle-x/10/proxy" } '
    for text, match in ((nftables.workload_rules(ProxyPorts()), ""), (rules("tulle-x", 3, [ONE]), groups)):
        lines = chain(text, "nowhere")
        assert lines[0] == "type filter hook output priority 0"
        assert lines[-4:] == [
            f"ip daddr 240.240.0.0/16 {match}meta l4proto tcp reject with tcp reset",
            f"ip daddr 240.240.0.0/16 {match}reject",
            f"ip6 daddr fd74:756c:f0f0::/112 {match}meta l4proto tcp reject with tcp reset",
            f"ip6 daddr fd74:756c:f0f0::/112 {match}reject",
        ]
    assert chain(rules("tulle-x", 3, []), "nowhere") == []


def test_datagrams_to_services_meet_the_proxy() -> None:
    """Broken: they are taken for DNS, or the proxy's own are; or an application that listens everywhere is sent its own."""
    text = nftables.workload_rules(ProxyPorts(), datagrams=True)
    out = chain(text, "output")
    for line in (
        "meta l4proto udp socket transparent 1 return",
        "ip daddr 240.240.0.0/16 meta l4proto udp dnat to :udp dport | 0xf000",
    ):
        assert out.index(line) < out.index("udp dport 53 redirect to :15053")
    assert chain(text, "input")[1:3] == [
        'iifname "lo" ip daddr 240.240.0.0/16 meta l4proto udp socket transparent 1 accept',
        'iifname "lo" ip daddr 240.240.0.0/16 meta l4proto udp drop',
    ]
    assert "transparent" not in nftables.workload_rules(ProxyPorts())
    assert [one.split()[-3] for one in nftables.datagram_routes("10.0.0.9")] == ["240", "10.0.0.9"]


@pytest.mark.parametrize("chosen", [Interception(), CHOSEN, Interception(outbound_ranges=(), inbound_ports=()),
                                    Interception(outbound_ranges=("0.0.0.0/0", "::/0"), outbound_ports=None)])  # fmt: skip
def test_nft_reads_them(chosen: Interception) -> None:
    """A rule that nft does not understand is a workload that does not start."""
    if not shutil.which("nft") or os.geteuid() != 0:
        pytest.skip("nft reads rules only as root")
    groups = ""  # a map of control groups takes groups that exist: tests/e2e/capture/test_cgroup.py
    captured = Captured(10, "a/app", "a/proxy", (80,), 1, 2, 3, chosen)
    text = "\n".join(
        line.replace("socket cgroupv2 level 3 vmap @outward", groups).replace("socket cgroupv2 level 3 vmap @inward", groups)
        for line in rules("tulle-x", 3, [captured]).splitlines()
        if '"a/' not in line
    ).replace("    elements = {\n    }\n", "")
    for one in (text, *(nftables.workload_rules(ProxyPorts(), (80,), chosen, datagrams=it) for it in (True, False))):
        done = subprocess.run(["nft", "-c", "-f", "-"], input=one, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + one
