"""Services' virtual addresses of both families: which they get, keep, and give back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import Running
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.kit.errors import BadData

SERVICE = kind_for("", "Service")
FOUR, SIX = "240.240.", "fd74:756c:f0f0::"


def service(name: str = "cart", **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80}]
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}


def starts(addresses: list[str]) -> list[str]:
    return [next(one for one in (FOUR, SIX) if address.startswith(one)) for address in addresses]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [FOUR]),
        ({"ipFamilies": ["IPv6"]}, [SIX]),
        ({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}, [SIX]),
        ({"ipFamilyPolicy": "PreferDualStack"}, [FOUR, SIX]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}, [SIX, FOUR]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, [SIX, FOUR]),
        ({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "240.240.9.9"}, [FOUR, SIX]),
        ({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None"}, None),
    ],
)
async def test_what_is_asked_for_is_allotted(api: ApiClient, asked: dict[str, Any], expected: list[str] | None) -> None:
    """Broken: a dual-stack Service of Kubernetes would be reached by one family only, or by none."""
    spec = (await api.create(service(**asked)))["spec"]
    if expected is None:
        assert "clusterIPs" not in spec or spec["clusterIPs"] == ["None"]
        return
    assert starts(spec["clusterIPs"]) == expected
    assert spec["clusterIP"] == spec["clusterIPs"][0]
    assert spec["ipFamilies"] == ["IPv4" if one == FOUR else "IPv6" for one in expected]
    assert spec["ipFamilyPolicy"] == asked.get("ipFamilyPolicy", "SingleStack")


async def test_a_second_family_comes_later_and_both_go(api: ApiClient, served: Running) -> None:
    """Broken: a Service that becomes dual-stack would lose its address; or the address of one that is gone be held for ever."""
    assert SERVICE is not None
    first = (await api.create(service()))["spec"]["clusterIP"]
    spec = (await api.patch(SERVICE, "cart", {"spec": {"ipFamilyPolicy": "RequireDualStack"}}, "default"))["spec"]
    assert (spec["clusterIP"], starts(spec["clusterIPs"]), spec["ipFamilies"]) == (first, [FOUR, SIX], ["IPv4", "IPv6"])
    held = {one.key.name for one in (await served.store.list("_clusterips"))[0]}
    assert held == set(spec["clusterIPs"])
    with pytest.raises(BadData, match="another Service has"):
        await api.create(service("other", clusterIP="240.240.9.9", clusterIPs=["240.240.9.9", spec["clusterIPs"][1]]))
    await api.delete(SERVICE, "cart", "default")
    assert not (await served.store.list("_clusterips"))[0]
