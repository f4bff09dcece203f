"""exportTo: who is not to see an object is neither sent what it became, nor told its name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.exports import EXPORT_TO
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2

TYPES = (type_urls.CLUSTER, type_urls.ENDPOINT, type_urls.LISTENER, type_urls.VIRTUAL_HOST, type_urls.NAME)
HERE, OTHER, GATEWAY, FOREIGN_GATEWAY = "shop/cart-1", "other/curl", "shop/ingress", "other/ingress"


def private(words: str = ".", name: str = "cart", **more: Any) -> Object:
    """A Service of `shop`, exported to these namespaces."""
    one = service(name, "shop", address="240.240.0.9", **more)
    metadata = one.metadata.model_copy(update={"annotations": {EXPORT_TO: words}})
    return one.model_copy(update={"metadata": metadata})


def istio(kind: str, name: str, namespace: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


@pytest.fixture
def mesh() -> Mesh:
    gateways = [
        entry("ingress", f"10.0.{at}.9", {"istio": "ingress"}, namespace, capture="none")
        for at, namespace in enumerate(("shop", "other"))
    ]
    workloads = [entry("cart-1", "10.0.0.1", {"app": "cart"}, "shop"), entry("curl", "10.0.1.1", {"app": "curl"}, "other")]
    return Mesh([*workloads, *gateways, service("web", "shop", address="240.240.0.8", ports=({"port": 80, "name": "web"},))])


def knows(mesh: Mesh, proxy: str, what: str = "cart") -> set[str]:
    """The types of resources of a proxy that are of a service."""
    of = (f"{what}.shop.svc", "240.240.0.9_")
    return {
        kind.rpartition(".")[2]
        for kind in TYPES
        for layer in mesh.pipeline.layers(proxy)
        for name in mesh.pipeline.table(layer, kind)
        if any(word in name for word in of)
    }


UNDECLARED = ({"port": 9080, "name": "cart"},)


@pytest.mark.parametrize("ports", [({"port": 9080, "name": "http"},), UNDECLARED])
def test_who_may_not_see_it_is_sent_nothing_of_it(mesh: Mesh, ports: Any) -> None:
    """Broken: a namespace's private service would be named, and could be called, in all others."""
    mesh.apply([private(ports=ports)])
    assert {"Cluster", "ClusterLoadAssignment", "VirtualHost"} < knows(mesh, HERE)
    assert {"Cluster", "ClusterLoadAssignment"} <= knows(mesh, GATEWAY)
    assert knows(mesh, OTHER) == knows(mesh, FOREIGN_GATEWAY) == set()
    assert knows(mesh, OTHER, "web"), "what nobody hides is everybody's"
    mesh.apply([private("., other", ports=ports)])
    assert knows(mesh, OTHER) == knows(mesh, HERE)
    assert knows(mesh, FOREIGN_GATEWAY) == knows(mesh, GATEWAY)
    mesh.apply([private("*", ports=ports)])
    assert "exported/other" not in mesh.pipeline.layers(OTHER)
    assert knows(mesh, OTHER) == knows(mesh, HERE)
    mesh.apply([private("~", ports=ports)])
    assert [knows(mesh, one) for one in (HERE, OTHER, GATEWAY, FOREIGN_GATEWAY)] == [set()] * 4


def test_a_gateway_calls_it_as_gateways_do(mesh: Mesh) -> None:
    """Broken: what nobody declared would be called in HTTP/2 by a gateway, where its application may not speak that."""
    mesh.apply([private(ports=UNDECLARED)])
    assert mesh.pipeline.layers(GATEWAY)[:5] == ("unguarded", "mesh", "gateways", "exported/shop", "gateways/shop")
    found = [layer for layer in mesh.pipeline.layers(GATEWAY) if "cart" in " ".join(_clusters(mesh, layer))]
    assert found == ["exported/shop", "gateways/shop"]
    assert not any("cart" in name for name in _clusters(mesh, "gateways"))


def _clusters(mesh: Mesh, layer: str) -> list[str]:
    return list(mesh.pipeline.table(layer, type_urls.CLUSTER))


def test_a_host_of_a_service_entry(mesh: Mesh) -> None:
    """Broken: its virtual address would be answered to those for whom no proxy stands behind it."""
    ports = [{"number": 443, "name": "tls", "protocol": "TLS"}]
    mesh.apply([istio("ServiceEntry", "api", "other", hosts=["api.example.com"], exportTo=["."], resolution="DNS", ports=ports)])

    def names(proxy: str) -> set[str]:
        return {name for layer in mesh.pipeline.layers(proxy) for name in mesh.pipeline.table(layer, type_urls.NAME)}

    assert "api.example.com" in names(OTHER)
    assert "api.example.com" not in names(HERE)


def test_a_route_of_others_does_not_open_it(mesh: Mesh) -> None:
    """Broken: whoever writes a rule for his own callers could take them to what was not meant for them."""
    mesh.apply([private()])
    destination = {"host": "cart.shop.svc.cluster.local"}
    mesh.apply([istio("VirtualService", "web", "other", hosts=["web.shop"], http=[{"route": [{"destination": destination}]}])])
    assert [(one.reason, one.path) for one in mesh.problems()] == [("NotExported", "spec.http[0].route[0].destination.host")]
    assert "Cluster" not in knows(mesh, OTHER)
    mesh.apply([istio("Sidecar", "s", "other", egress=[{"hosts": ["*/web.shop.svc.cluster.local"]}])])
    assert "Cluster" not in knows(mesh, OTHER)


def test_a_grant_is_no_export(mesh: Mesh) -> None:
    """Broken: a route of the Gateway API would say that its reference holds, and be answered 503."""
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "shop"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "other"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "other"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}],
            "rules": [{"backendRefs": [{"name": "cart", "namespace": "shop", "port": 9080}]}],
        },
    }
    mesh.apply([private(), obj(grant), obj(route)])
    status = written(mesh.pipeline, ("httproutes.gateway.networking.k8s.io", ("other", "r")))
    resolved = condition(status["parents"][0]["conditions"], "ResolvedRefs")
    assert (resolved["status"], resolved["reason"]) == ("False", "RefNotPermitted")
    assert "not exported to namespace other" in resolved["message"]


def _most(mesh: Mesh, proxy: str) -> int:
    """The bound of connections to `web` that a proxy has."""
    name = "outbound|80||web.shop.svc.cluster.local"
    layers = [layer for layer in mesh.pipeline.layers(proxy) if name in mesh.pipeline.table(layer, type_urls.CLUSTER)]
    cluster = cluster_pb2.Cluster.FromString(mesh.pipeline.table(layers[-1], type_urls.CLUSTER)[name].value)
    return cluster.circuit_breakers.thresholds[0].max_connections.value


def _rule(name: str, most: int, namespace: str = "shop", **more: Any) -> Object:
    policy = {"connectionPool": {"tcp": {"maxConnections": most}}}
    return istio("DestinationRule", name, namespace, host="web.shop.svc.cluster.local", trafficPolicy=policy, **more)


def test_a_destination_rule_for_its_own_namespace(mesh: Mesh) -> None:
    """Broken: a rule that was kept from others would bind them all the same."""
    unbound = _most(mesh, OTHER)
    mesh.apply([_rule("own", 1, exportTo=["."])])
    assert (_most(mesh, HERE), _most(mesh, GATEWAY), _most(mesh, OTHER), _most(mesh, FOREIGN_GATEWAY)) == (1, 1, unbound, unbound)
    assert mesh.problems() == []
    mesh.apply([_rule("own", 1, exportTo=["~"])])
    assert _most(mesh, HERE) == _most(mesh, OTHER) == unbound
    assert [one.path for one in mesh.problems()] == ["metadata.namespace"], "nobody follows it"


def test_a_destination_rule_for_another_namespace(mesh: Mesh) -> None:
    """Broken: it would hold for nobody, or for all; and callers would not follow a rule of their own before it."""
    mesh.apply([_rule("all", 1), _rule("some", 2, exportTo=["other"])])
    assert (_most(mesh, HERE), _most(mesh, OTHER)) == (1, 2)
    mesh.apply([_rule("mine", 3, "other")])
    assert (_most(mesh, HERE), _most(mesh, OTHER)) == (1, 3)
    mesh.delete([_rule("mine", 3, "other"), _rule("some", 2)])
    assert (_most(mesh, HERE), _most(mesh, OTHER)) == (1, 1)


def test_the_roots_rule_for_one_namespace_comes_after_the_services(mesh: Mesh) -> None:
    """Broken: a default that was written for a namespace would undo what a service's owner says to all."""
    mesh.apply([_rule("default", 5, "tulle-system", exportTo=["other"])])
    assert _most(mesh, OTHER) == 5
    mesh.apply([_rule("all", 1)])
    assert (_most(mesh, HERE), _most(mesh, OTHER)) == (1, 1)


def test_words_that_name_no_namespace(mesh: Mesh) -> None:
    """Broken: a mistake would open what was to be hidden, or be found by nobody."""
    mesh.apply([private("*.other")])
    assert [(one.reason, one.path) for one in mesh.problems()] == [("BadAnnotation", f"metadata.annotations[{EXPORT_TO}]")]
    assert knows(mesh, OTHER) == set()


CART, SUBSET = (f"outbound|9080|{subset}|cart.shop.svc.cluster.local" for subset in ("", "v1"))
SEEN = {"Service": "clusters", "VirtualService": "routes", "DestinationRule": "rules"}


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("default", [".", "~", "*"])
def test_what_says_nothing_is_exported_as_the_mesh_says(mesh: Mesh, kind: str, default: str) -> None:
    """Broken: a mesh in which namespaces are to share nothing unasked would show all to all, or hide what says `*`."""
    field = f"default{kind}ExportTo"
    config = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": {field: [default]}}
    cart = service("cart", "shop", address="240.240.0.9", ports=({"port": 9080, "name": "http"},))
    pool = {"connectionPool": {"tcp": {"maxConnections": 7}}}
    subsets = [{"name": "v1", "labels": {"app": "cart"}}]

    def rules(*exported: str) -> list[Object]:
        said = {"exportTo": list(exported)} if exported else {}
        redirect = [{"redirect": {"uri": "/told"}}]
        return [
            istio("VirtualService", "cart", "shop", hosts=["cart"], http=redirect, **said),
            istio("DestinationRule", "cart", "shop", host="cart", trafficPolicy=pool, subsets=subsets, **said),
        ]

    def told(proxy: str) -> dict[str, bool]:
        resources = {
            (type_url, name): one.value
            for layer in mesh.pipeline.layers(proxy)
            for type_url in TYPES
            for name, one in mesh.pipeline.table(layer, type_url).items()
        }
        cluster = cluster_pb2.Cluster.FromString(resources.get((type_urls.CLUSTER, CART), b""))
        hosts = [value for (_url, name), value in resources.items() if "/cart.shop" in name]
        return {
            "clusters": (type_urls.CLUSTER, CART) in resources,
            "routes": any(b"/told" in value for value in hosts),
            "rules": cluster.circuit_breakers.thresholds[0].max_connections.value == 7 if cluster.name else False,
            "subset": {(type_urls.CLUSTER, SUBSET), (type_urls.ENDPOINT, SUBSET)} <= resources.keys(),
        }

    mesh.apply([cart, *rules(), obj(config)])
    here, there = told(HERE), told(OTHER)
    assert here[SEEN[kind]] is (default != "~")
    assert there[SEEN[kind]] is (default == "*")
    if kind == "DestinationRule":
        assert (here["subset"], there["subset"]) == (default != "~", default == "*"), "whose rule it is, his is the subset"
    elif kind == "VirtualService":
        assert there["subset"], "only what the field is for"
    mesh.apply([cart if kind != "Service" else private("*", ports=({"port": 9080, "name": "http"},)), *rules("*"), obj(config)])
    assert told(OTHER)[SEEN[kind]], "an object's own word counts"
