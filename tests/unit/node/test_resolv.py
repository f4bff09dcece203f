"""What a workload's C library reads instead of the host's files."""

from __future__ import annotations

from tulle.node.resolv import nameservers, nsswitch_conf, resolv_conf

HOST = """\
# made by hand
nameserver 192.0.2.53
nameserver fe80::1%eth0
nameserver nonsense
domain old
search example.org cluster.local
"""


def test_the_hosts_servers_are_found() -> None:
    """Names of elsewhere are asked there; a line that is no address must not become one."""
    assert nameservers(HOST) == ["192.0.2.53", "fe80::1%eth0"]
    assert nameservers("") == []


def test_a_workload_searches_its_own_namespace_first() -> None:
    """`reviews` means the one of the workload's namespace; the host's own search list still holds behind."""
    assert resolv_conf("shop", HOST).splitlines() == [
        "nameserver 127.0.0.1",
        "search shop.svc.cluster.local svc.cluster.local cluster.local example.org",
        "options ndots:1",
    ]


def test_ways_past_dns_are_closed() -> None:
    """systemd-resolved and mDNS answer over Unix sockets: with them a mesh name would be unknown, or another machine's."""
    host = "passwd: files\nhosts: files resolve [!UNAVAIL=return] mdns4_minimal [NOTFOUND=return] dns myhostname\n"
    assert nsswitch_conf(host) == "passwd: files\nhosts: files dns myhostname\n"
    assert nsswitch_conf("hosts: files resolve[!UNAVAIL=return]\n") == "hosts: files dns\n"
    plain = "hosts:          files [SUCCESS=return] dns\n"
    assert nsswitch_conf(plain) == plain
