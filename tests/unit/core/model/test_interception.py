"""Istio's traffic.sidecar.istio.io annotations: what they choose, and what is refused before it comes near a firewall."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.core.model import interception
from tulle.core.model.interception import Interception
from tulle.core.model.workload import ProxyPorts
from tulle.node import cgroup_rules, nftables

PREFIX = interception.PREFIX


def test_nothing_said_is_everything() -> None:
    """A workload without annotations would leave the mesh."""
    assert interception.read({"other": "x"}) == (Interception(), ())


def test_as_istio_documents_them() -> None:
    """Whoever comes from Istio writes exactly this."""
    found, mistakes = interception.read(
        {
            interception.INCLUDE_OUTBOUND_RANGES: "10.0.0.0/8, 10.1.0.0/16,2001:DB8::/32",
            interception.EXCLUDE_OUTBOUND_RANGES: "169.254.169.254/32",
            interception.INCLUDE_OUTBOUND_PORTS: "9000",
            interception.EXCLUDE_OUTBOUND_PORTS: "3306,25,3306",
            interception.INCLUDE_INBOUND_PORTS: "*",
            interception.EXCLUDE_INBOUND_PORTS: "22",
            interception.EXCLUDE_INTERFACES: "eth1,docker0",
        }
    )
    assert mistakes == ()
    assert found == Interception(
        outbound_ranges=("10.0.0.0/8", "2001:db8::/32"),
        not_outbound_ranges=("169.254.169.254/32",),
        outbound_ports=(9000,),
        not_outbound_ports=(25, 3306),
        not_inbound_ports=(22,),
        not_interfaces=("docker0", "eth1"),
    )


def test_empty_is_nothing_and_star_is_all() -> None:
    """Istio's own difference between "" and "*"."""
    found, _ = interception.read({interception.INCLUDE_INBOUND_PORTS: "", interception.INCLUDE_OUTBOUND_RANGES: ""})
    assert (found.inbound_ports, found.outbound_ranges) == ((), ())
    assert not found.enters(80)
    found, _ = interception.read({interception.INCLUDE_INBOUND_PORTS: "80", interception.INCLUDE_OUTBOUND_PORTS: "*"})
    assert found.enters(80)
    assert not found.enters(81)
    assert found.outbound_ports is None


ATTACKS = [
    "80; drop", "80 } } table ip x {", "$(reboot)", "`id`", "80\nflush ruleset", "0", "65536", "-1", "8e1", "٣", "80,,81",
    "x" * 500, ",".join(["80"] * 300), "80-90", "{ 80 }",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("annotation", interception.ANNOTATIONS)
def test_what_is_no_list_is_refused(annotation: str, attack: str) -> None:
    """An annotation must not become a line of firewall rules, and whoever mistypes one hears what is needed."""
    found, mistakes = interception.read({annotation: attack})
    if annotation == interception.EXCLUDE_INTERFACES and re.fullmatch("[0-9e-]+", attack) and attack != "-1":
        return  # odd names, and harmless
    if "Ranges" in annotation and attack in ("0",):
        return
    assert found == Interception()
    (mistake,) = mistakes
    assert mistake.annotation == annotation
    assert re.search(r"needed (ports|networks|names|at most)", mistake.message)
    assert len(mistake.message) < 200


@given(st.dictionaries(st.sampled_from(interception.ANNOTATIONS), st.text(max_size=60)))
def test_no_text_gets_into_the_rules(annotations: dict[str, str]) -> None:
    """Whatever is written, the rules consist of our own words, numbers, addresses and names of interfaces."""
    chosen, _ = interception.read(annotations)
    captured = cgroup_rules.Captured(10, "a/app", "a/proxy", (80,), 1, 2, 3, chosen)
    for rules in (
        nftables.workload_rules(ProxyPorts(), (80,), chosen),
        cgroup_rules.rules("tulle-x", 3, [captured]),
    ):
        assert re.fullmatch(r'[A-Za-z0-9_.:/{}"@!=<>,*\- \n]*', rules)
        assert rules.count("{") == rules.count("}")
        assert rules.count("table ") <= 4


def test_a_name_in_the_wrong_case_is_told() -> None:
    """Istio's names are written with capitals that people forget; unsaid, the annotation would be without effect."""
    _, mistakes = interception.read({f"{PREFIX}excludeOutboundIpRanges": "10.0.0.0/8"})
    assert [mistake.message for mistake in mistakes] == ["is not known; write it excludeOutboundIPRanges"]
