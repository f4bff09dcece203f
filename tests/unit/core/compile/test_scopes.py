"""What a Sidecar leaves out is not sent to those who follow it: neither destinations nor names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.endpoints import endpoints
from tulle.core.model.destination import DestinationKey
from tulle.core.pipeline import Pipeline

CURL = "default/curl"


def sidecar(*hosts: str, name: str = "s", namespace: str = "default", **spec: Any) -> Any:
    meta = {"name": name, "namespace": namespace}
    body = {"egress": [{"hosts": list(hosts)}], **spec}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": meta, "spec": body})


def istio(kind: str, **spec: Any) -> Any:
    return obj({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "r"}, "spec": spec})


def seen(pipeline: Pipeline, type_url: str, proxy: str = CURL) -> set[str]:
    return {
        name.removesuffix(".default.svc.cluster.local")
        for layer in pipeline.layers(proxy)
        for name in pipeline.table(layer, type_url)
    }


def test_what_is_left_out_is_not_sent() -> None:
    """Broken: a Sidecar would forbid calls and still cost every proxy the memory of the whole mesh, and its DNS say the names."""
    mesh = Mesh([*bookinfo(), sidecar("./reviews.default.svc.cluster.local")])
    assert mesh.pipeline.layers(CURL) == ("unguarded", "scope/default", "namespace/default", f"workload/{CURL}")
    assert seen(mesh.pipeline, type_urls.NAME) == {"reviews"}
    clusters = {name for name in seen(mesh.pipeline, type_urls.CLUSTER) if name.startswith("outbound")}
    assert clusters == {"outbound|9080||reviews"} == seen(mesh.pipeline, type_urls.ENDPOINT)
    assert "mesh" in mesh.pipeline.layers("tulle-system/ingress"), "a gateway follows no Sidecar"
    assert len(mesh.pipeline.table("mesh", type_urls.NAME)) > 6, "and what others have stays what it was"


def test_nothing_is_made_twice() -> None:
    """Broken: each Sidecar would cost the control plane another copy of the bytes of all that it lets through."""
    mesh = Mesh([*bookinfo(), sidecar("./reviews.default.svc.cluster.local")])
    name = DestinationKey("reviews.default.svc.cluster.local", 9080).cluster
    both = [mesh.pipeline.table(layer, type_urls.CLUSTER)[name] for layer in ("mesh", "scope/default")]
    assert both[0] is both[1]


def test_it_follows_what_changes() -> None:
    """Broken: a proxy would go on with the clusters of another Sidecar, or lack those of a host that it may call since."""
    mesh = Mesh([*bookinfo(), sidecar("./reviews.default.svc.cluster.local")])
    mesh.apply([sidecar("./reviews.default.svc.cluster.local", "./late.default.svc.cluster.local")])
    changed = mesh.apply([service("late", address="240.240.0.77")])
    assert changed["scope/default"][type_urls.NAME].keys() == {"late.default.svc.cluster.local"}
    mesh.apply([sidecar("./ratings.default.svc.cluster.local")])
    assert seen(mesh.pipeline, type_urls.NAME) == {"ratings"}
    mesh.apply([sidecar("*/*")])
    assert mesh.pipeline.layers(CURL)[1] == "mesh"
    mesh.apply([sidecar("./ratings.default.svc.cluster.local")])
    mesh.delete([sidecar("*/*")])
    assert mesh.pipeline.layers(CURL)[1] == "mesh"
    assert not mesh.pipeline.table("scope/default", type_urls.CLUSTER)
    fresh = Mesh(mesh.objects.values())
    assert mesh.pipeline.table("mesh", type_urls.CLUSTER) == fresh.pipeline.table("mesh", type_urls.CLUSTER)


def test_what_routes_lead_to_is_sent() -> None:
    """Broken: a route of a host that one may call would lead to a cluster that the proxy does not have, and answer 503."""
    subset = istio("DestinationRule", host="details", subsets=[{"name": "v1", "labels": {"version": "v1"}}])
    there = {"destination": {"host": "details", "subset": "v1"}}
    mirror = {"destination": {"host": "productpage"}}
    rule = {"route": [there], "mirrors": [mirror]}
    mesh = Mesh([*bookinfo(), subset, sidecar("./reviews.default.svc.cluster.local")])
    mesh.apply([istio("VirtualService", hosts=["reviews"], http=[rule])])
    clusters = seen(mesh.pipeline, type_urls.CLUSTER)
    assert {"outbound|9080|v1|details", "outbound|9080||productpage"} <= clusters
    assert "outbound|9080||details" not in clusters
    assert seen(mesh.pipeline, type_urls.NAME) == {"reviews"}, "what a route leads to is no name that one may call"


@pytest.mark.parametrize(
    ("sidecars", "name"),
    [
        ((("all", "tulle-system", {}),), "all"),
        ((("all", "tulle-system", {}), ("space", "default", {})), "space"),
        ((("all", "tulle-system", {}), ("space", "default", {}), ("mine", "default", {"app": "curl"})), "mine"),
        ((("all", "tulle-system", {}), ("other", "default", {"app": "details"})), "all"),
    ],
)
def test_precedence(sidecars: tuple[tuple[str, str, dict[str, str]], ...], name: str) -> None:
    """Broken: another Sidecar than the documented one would hold: what selects, else the namespace's, else the root's."""
    hosts = {"all": "reviews", "space": "ratings", "mine": "details", "other": "productpage"}
    made = [
        sidecar(
            f"*/{hosts[one]}.default.svc.cluster.local",
            name=one,
            namespace=space,
            **({"workloadSelector": {"labels": labels}} if labels else {}),
        )
        for one, space, labels in sidecars
    ]
    mesh = Mesh([*bookinfo(), *made])
    assert seen(mesh.pipeline, type_urls.NAME) == {hosts[name]}


def bound(mesh: Mesh, proxy: str) -> list[tuple[str, int]]:
    row = mesh.pipeline.workload(proxy)
    assert row is not None
    return [(one.address, one.port) for one in row.egress if not one.captured]


def test_an_address_is_one_workloads_alone() -> None:
    """Broken: two proxies of one host would take each other's calls, each with its own identity, or one would be refused."""
    listener = {"port": {"number": 15100, "protocol": "HTTP"}, "captureMode": "NONE", "hosts": ["./*"]}
    own = sidecar("*/*", egress=[listener, {**listener, "bind": "unix:///run/a.sock", "port": {"number": 0, "protocol": "HTTP"}}])
    workloads = [entry(name, "10.0.9.9", {"app": name}, capture=kind) for name, kind in (("a", "proxy"), ("b", "cgroup"))]
    elsewhere = entry("c", "10.0.9.8", {"app": "c"}, capture="proxy", node="other")
    mesh = Mesh([service("reviews"), own, *workloads, elsewhere])
    assert bound(mesh, "default/a") == [("127.0.0.1", 15100), ("unix:///run/a.sock", 0)] == bound(mesh, "default/c")
    assert bound(mesh, "default/b") == []
    mesh.delete(workloads[:1])
    assert bound(mesh, "default/b") == [("127.0.0.1", 15100), ("unix:///run/a.sock", 0)]


def test_a_bound_port_has_mutual_tls() -> None:
    """Broken: callers would come in plaintext to a port that the sidecar binds where it captures nothing."""
    notes = {"traffic.sidecar.istio.io/excludeInboundPorts": "9080"}
    objects = [service("reviews", address="240.240.0.3"), entry("reviews", "10.0.0.8", {"app": "reviews"})]
    objects[1].metadata.annotations.update(notes)
    mesh = Mesh(objects)

    def secured() -> list[bool]:
        row = mesh.pipeline.flow.get(endpoints, (("default", "reviews"), 9080, ""))
        return [one.mtls for one in row.endpoints] if row else []

    assert secured() == [False]
    mesh.apply([sidecar("*/*", ingress=[{"port": {"number": 9080, "protocol": "HTTP"}, "captureMode": "NONE"}])])
    assert secured() == [True]


def test_the_proxys_own_ports_are_nobody_elses() -> None:
    """Broken: Envoy would refuse the listener, for the port is bound, and keep all that is new from the proxy."""
    listener = {"port": {"number": 15001, "protocol": "HTTP"}, "captureMode": "NONE", "hosts": ["./*"]}
    inside = {"port": {"number": 15006, "protocol": "HTTP"}, "captureMode": "NONE"}
    mesh = Mesh([*bookinfo(), sidecar("*/*", egress=[listener], ingress=[inside])])
    assert [(one.path, one.reason) for one in mesh.problems()] == [("spec.egress[0]", "AddressClash")]
    assert bound(mesh, CURL) == []
    row = mesh.pipeline.workload(CURL)
    assert row is not None
    assert [(port.port, port.bind) for port in row.inbound] == [(15006, "")]
