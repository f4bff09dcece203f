"""Fields that keep their first value."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api.registry import kind_of_resource
from tulle.api.transitions import transition_faults


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"addressType": "IPv4"}, {"addressType": "IPv4"}, ""),
        ({"addressType": "IPv4"}, {"addressType": "IPv6"}, 'found "IPv6"; needed "IPv4"'),
        ({"addressType": "IPv4"}, {}, 'found nothing; needed "IPv4"'),
        ({}, {"addressType": "IPv4"}, ""),
    ],
)
def test_a_field_keeps_its_value(old: dict[str, Any], new: dict[str, Any], message: str) -> None:
    """An update would change what others rely on not to change."""
    kind = kind_of_resource("endpointslices.discovery.k8s.io")
    assert kind is not None
    faults = list(transition_faults(kind, old, new))
    assert len(faults) == bool(message)
    assert all(fault.message.startswith(message) for fault in faults)
