"""Both backends agree on connections: random rules and connections, judged by `evaluate` and by a real Envoy.

The whole way is walked: objects → compile → model, from there to `evaluate` on one side, and by `core/envoy` to a proxy on the
other. The same destinations, or the same end.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests.support.carrier import CLOSED, HTTP, ask, carrying
from tests.unit.core.compile.mesh import changes, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.outbound import outbound
from tulle.core.envoy.clusters import BLACK_HOLE, PASSTHROUGH
from tulle.core.evaluate.connections import Connection, Way, carry
from tulle.core.pipeline import Pipeline

SETTINGS = settings(
    max_examples=int(os.environ.get("TULLE_EXAMPLES", "12")),  # more of them where somebody looks for differences
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
Json = dict[str, Any]
# A service's address is one of this machine, so that its listener can be called outright.
ADDRESSES = {"bytes": "127.9.0.1", "tls": "127.9.0.2", "undeclared": "127.9.0.3", "mixed": "127.9.0.4"}
NETWORKS = ("127.9.1.0/24", "127.9.1.128/25", "127.9.0.0/16")
SOURCES = ("127.5.0.0/16", "127.5.1.0/24")
NAMES = ("a.example", "b.a.example", "c.b.a.example", "other.test")
PATTERNS = ("a.example", "*.a.example", "b.a.example", "*.b.a.example")
HOSTS = (*ADDRESSES, "net.example", "*.a.example", "a.example")


@pytest.fixture(scope="module")
def ports() -> tuple[int, int, int]:
    """Three ports that nobody has, and that nobody is given who asks for any."""
    found: list[int] = []
    start = 20000 + os.getpid() % 10000
    for number in range(start, start + 1000):
        with socket.socket() as probe:
            if len(found) < 3 and probe.connect_ex(("127.0.0.1", number)) != 0:
                found.append(number)
    one, two, three = found
    return one, two, three


def standing(ports: tuple[int, int, int]) -> list[Any]:
    """Services at addresses, and others at networks, by names or by nothing; HTTP at one of the ports."""
    _one, two, three = ports
    names = {"bytes": "tcp", "tls": "tls", "undeclared": "x", "mixed": "tcp"}
    made = [
        service(name, ports=tuple({"port": port, "name": f"{kind}-{port}"} for port in ports), address=ADDRESSES[name])
        for name, kind in names.items()
    ]
    made.append(service("web", ports=({"port": two, "name": "http"},)))
    made.append(service("headless", ports=({"port": three, "name": "x"},)))

    def se(name: str, host: str, *at: Json, **more: Any) -> Any:
        spec = {"hosts": [host], "ports": list(at), "resolution": "NONE", **more}
        metadata = {"name": name, "creationTimestamp": "2024-01-01T00:00:00Z"}
        return obj({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata, "spec": spec})

    tls = [{"number": port, "name": f"tls-{port}", "protocol": "TLS"} for port in ports]
    return [
        *made,
        se("net", "net.example", *({**one, "protocol": "TCP"} for one in tls), addresses=[NETWORKS[0]]),
        se("narrow", "narrow.example", {**tls[0], "protocol": "TCP"}, addresses=[NETWORKS[1]]),
        se("wild", "*.a.example", *tls),
        se("named", "a.example", *tls[:2]),
        se("whole", "whole.example", {**tls[2], "protocol": "TCP"}),
        entry("curl", "10.0.0.9", {"app": "curl"}),
    ]


@st.composite
def rules(draw: st.DrawFn, ports: tuple[int, int, int]) -> list[Json]:
    """VirtualServices for connections, and the Gateway API's routes, each under a name of its own."""
    made: list[Json] = []
    backend = st.sampled_from(sorted(ADDRESSES))
    for at in range(draw(st.integers(1, 4))):
        metadata = {"name": f"r{at}", "creationTimestamp": f"2024-01-0{draw(st.integers(1, 9))}T00:00:00Z"}
        port = draw(st.sampled_from(ports))
        shares = [
            {"name": draw(backend), "port": port, "weight": draw(st.integers(0, 3))} for _ in range(draw(st.integers(1, 2)))
        ]
        kind = draw(st.sampled_from(["VirtualService", "VirtualService", "TCPRoute", "TLSRoute"]))
        if kind != "VirtualService":
            parent = {"group": "", "kind": "Service", "name": draw(backend), **({"port": port} if draw(st.booleans()) else {})}
            spec: Json = {"parentRefs": [parent], "rules": [{"backendRefs": shares}]}
            if kind == "TLSRoute":
                spec["hostnames"] = draw(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True))
            made.append({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
            continue
        host = draw(st.sampled_from(HOSTS))
        to = [{"destination": {"host": one["name"], "port": {"number": port}}, "weight": one["weight"]} for one in shares]
        tls = [{"match": [match], "route": to} for match in draw(st.lists(_tls(ports), max_size=2))]
        tcp: list[Json] = [{"match": [match], "route": to} for match in draw(st.lists(_match(ports), max_size=2))]
        if draw(st.booleans()):
            tcp.append({"route": to})
        spec = {"hosts": list(dict.fromkeys([host, *PATTERNS])), **({"tls": tls} if tls else {}), **({"tcp": tcp} if tcp else {})}
        if tls or tcp:
            made.append({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec})
    return made


def _match(ports: tuple[int, int, int]) -> st.SearchStrategy[Json]:
    parts: dict[str, st.SearchStrategy[Any]] = {
        "port": st.sampled_from(ports),
        "destinationSubnets": st.lists(st.sampled_from((*NETWORKS, "127.9.1.7")), min_size=1, max_size=2, unique=True),
        "sourceSubnet": st.sampled_from(SOURCES),
    }
    return st.fixed_dictionaries({}, optional=parts)


def _tls(ports: tuple[int, int, int]) -> st.SearchStrategy[Json]:
    names = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True)
    return st.builds(
        lambda match, sni: {**{k: v for k, v in match.items() if k != "sourceSubnet"}, "sniHosts": sni}, _match(ports), names
    )


def connections(ports: tuple[int, int, int]) -> st.SearchStrategy[list[Connection]]:
    one = st.builds(
        lambda address, port, source, said: Connection(address, port, source, said[0], said[1]),
        st.sampled_from([*ADDRESSES.values(), "127.9.1.7", "127.9.1.200", "127.9.2.1", "127.8.0.1"]),
        st.sampled_from(ports),
        st.sampled_from(["127.5.1.1", "127.5.2.1", "127.6.0.1"]),
        st.sampled_from([(None, False), (None, False), (None, True), ("", False), *((name, False) for name in NAMES)]),
    )
    return st.lists(one, min_size=40, max_size=40)


async def differences(pipeline: Pipeline, asked: list[Connection], scratch: Path) -> list[str]:
    """Where the two say different things of a connection."""
    row = pipeline.flow.get(outbound, "default")
    assert row is not None
    listeners = pipeline.table("namespace/default", type_urls.LISTENER).values()
    clusters = [name for name in pipeline.table("mesh", type_urls.CLUSTER) if name.startswith("outbound|")]
    found: list[str] = []
    async with carrying(listeners, [*clusters, PASSTHROUGH], [BLACK_HOLE], scratch) as bound:
        heard = [one for one in asked if {(one.address, one.port), ("0.0.0.0", one.port)} & bound]
        for one, did in zip(heard, await asyncio.gather(*map(ask, heard)), strict=True):
            carried = carry(row, one)
            said = {
                Way.HTTP: {HTTP},
                Way.PASSTHROUGH: {PASSTHROUGH},
                Way.CLOSED: {CLOSED},
                Way.FORWARD: {share.destination.cluster for share in carried.shares},
            }[carried.way]
            event(carried.way.value + (" by a rule" if carried.route else ""))
            if did not in said:
                found.append(f"{one}\nevaluate: {carried}\nEnvoy:    {did}")
    return found


@SETTINGS
@given(data=st.data())
def test_connections(data: st.DataObject, ports: tuple[int, int, int]) -> None:
    """Broken: what a plan or a description says of a connection is not what becomes of it."""
    objects = data.draw(rules(ports))
    pipeline = Pipeline()
    pipeline.commit(changes([*standing(ports), *map(obj, objects)]))
    asked = data.draw(connections(ports))
    with tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(differences(pipeline, asked, Path(scratch)))
    assert not found, f"{len(found)} of {len(asked)}:\n" + "\n\n".join(found[:5])
