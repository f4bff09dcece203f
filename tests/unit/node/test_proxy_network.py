"""`proxy` capture: what is allotted, written down and told to the application."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tulle.core.model.workload import Capture
from tulle.kit.errors import Refused
from tulle.node.network import SocketSpec
from tulle.node.proxy import ProxyNetwork


async def test_workloads_do_not_share_ports(tmp_path: Path) -> None:
    """All of them lie in one network: a port given twice is a workload that does not start, or answers for another."""
    network = ProxyNetwork(tmp_path)
    made = [await network.create(f"default/w{number}", [9080, 9090]) for number in range(3)]
    ports = [
        port
        for one in made
        for port in (
            *one.inbound_ports.values(),
            *one.app_ports.values(),
            one.proxy_ports.outbound,
            one.proxy_ports.inbound,
            one.proxy_ports.health,
            one.proxy_ports.metrics,
        )
    ]
    assert len(set(ports)) == len(ports) == 3 * 8
    assert len({one.address for one in made}) in (1, 3)
    assert set(made[0].inbound_ports) == set(made[0].app_ports) == {9080, 9090}
    assert all(one.capture is Capture.PROXY for one in made)


async def test_a_new_agent_finds_what_was_allotted(tmp_path: Path) -> None:
    """An Envoy that outlived its agent listens at these ports; another choice would cut it off."""
    made = await ProxyNetwork(tmp_path).create("default/one", [9080])
    again = ProxyNetwork(tmp_path)
    await again.open()
    found = await again.adopt("default/one")
    assert found is not None
    assert (found.address, found.proxy_ports, found.app_ports) == (made.address, made.proxy_ports, made.app_ports)
    assert again.recorded() == ["default/one"]
    await again.teardown()
    assert again.recorded() == []
    assert await again.adopt("default/one") is None


async def test_the_application_is_told(tmp_path: Path) -> None:
    """Without http_proxy its calls are not in the mesh; without PORT it listens where nobody looks."""
    one = await ProxyNetwork(tmp_path).create("default/one", [9080])
    environment = one.app_environment()
    assert environment["http_proxy"] == environment["HTTP_PROXY"] == f"http://127.0.0.1:{one.proxy_ports.outbound}"
    assert environment["PORT"] == str(one.app_ports[9080])
    assert "127.0.0.1" in environment["no_proxy"]
    assert one.command(["app"], app=True) == ["app"]


async def test_ports_in_use_are_left_alone(tmp_path: Path) -> None:
    """Somebody else's program may have any port."""
    first = (await ProxyNetwork(tmp_path / "a").create("default/one", [9080])).proxy_ports.outbound
    with socket.create_server(("0.0.0.0", first)):
        second = (await ProxyNetwork(tmp_path / "b").create("default/one", [9080])).proxy_ports.outbound
        assert second != first


async def test_readiness_and_sockets(tmp_path: Path) -> None:
    """The agent sees that the application listens; an address in use is said and not waited for."""
    one = await ProxyNetwork(tmp_path).create("default/one", [9080])
    port = one.app_ports[9080]
    assert port not in one.listening()
    [listener] = await one.sockets(SocketSpec("tcp", "127.0.0.1", port))
    with listener:
        assert port in one.listening()
        with pytest.raises(Refused, match=f"{port}: Address already in use"):
            await one.sockets(SocketSpec("tcp", "127.0.0.1", port))
