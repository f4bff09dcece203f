"""DestinationRules for some callers: whom they select, whose namespace they are in, and who is sent their Secrets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.certificates import Roots
from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj
from tulle.api.istio import WorkloadEntry
from tulle.core import type_urls
from tulle.core.encoded import Encoded
from tulle.core.envoy.tls import TLS
from tulle.core.model.route import labels_digest
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import tls_pb2

CURL, DETAILS, ELSEWHERE, GATEWAY = "default/curl", "default/details-v1", "elsewhere/curl", "tulle-system/ingress"
BOUNDS = {"connectionPool": {"tcp": {"maxConnections": 7}}}


def rule(policy: dict[str, Any], name: str = "some", namespace: str = "default", host: str = "", **more: Any) -> Any:
    spec = {"host": host or "reviews.default.svc.cluster.local", "trafficPolicy": policy, **more}
    raw = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": name}, "spec": spec}
    return obj(raw, namespace)


def selecting(**labels: str) -> dict[str, Any]:
    return {"workloadSelector": {"matchLabels": labels}}


def mesh(*objects: Any) -> Mesh:
    return Mesh([*bookinfo(), entry("curl", "10.0.0.99", {"app": "curl"}, "elsewhere"), *objects])


def seen(one: Mesh, proxy: str, type_url: str = type_urls.CLUSTER) -> dict[str, Encoded]:
    """What a proxy would be sent of a type."""
    found: dict[str, Encoded] = {}
    for layer in one.pipeline.layers(proxy):
        found |= one.pipeline.table(layer, type_url)
    return found


def cluster(one: Mesh, proxy: str, subset: str = "") -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster.FromString(seen(one, proxy)[f"outbound|9080|{subset}|reviews.default.svc.cluster.local"].value)


def bound(one: Mesh, proxy: str) -> bool:
    return cluster(one, proxy).circuit_breakers.thresholds[0].max_connections.value == 7


def holds(one: Mesh) -> list[str]:
    return [proxy for proxy in (CURL, DETAILS, ELSEWHERE, GATEWAY) if bound(one, proxy)]


def test_a_rule_is_for_those_whom_it_selects() -> None:
    """Broken: a bound that one client asked for would hold for all, or for a workload of that label in another namespace."""
    found = mesh(rule(BOUNDS, **selecting(app="curl")))
    assert found.problems() == []
    assert holds(found) == [CURL]
    found.delete([rule(BOUNDS)])
    assert holds(found) == []
    assert found.pipeline.layers(CURL) == ("unguarded", "mesh", "namespace/default", "workload/default/curl")


def test_what_it_leaves_out_is_everybodys() -> None:
    """Broken: who is selected would lose the subsets of the rule for all, or a policy of theirs."""
    subsets = [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}]
    found = mesh(rule(BOUNDS, **selecting(app="curl")), rule({"loadBalancer": {"simple": "ROUND_ROBIN"}}, "all", subsets=subsets))
    assert holds(found) == [CURL]
    assert cluster(found, CURL, "v1").lb_policy == cluster(found, DETAILS, "v1").lb_policy == cluster_pb2.Cluster.RANDOM


def test_callers_follow_their_own_namespaces_rule() -> None:
    """Broken: a team could not say how its own workloads call somebody else's service, or it would say so for everybody."""
    found = mesh(rule(BOUNDS, namespace="elsewhere"))
    assert found.problems() == []
    assert holds(found) == [ELSEWHERE]


@pytest.mark.parametrize("for_port", [False, True])
def test_places_of_some_callers(for_port: bool) -> None:
    """Broken: somebody would rely on a preference of near endpoints that is nobody's, or that others have too."""
    near: dict[str, Any] = {"loadBalancer": {"localityLbSetting": {"failoverPriority": ["version=v2"]}}}
    policy = {"portLevelSettings": [{"port": {"number": 9080}, **near}]} if for_port else near
    found = mesh(rule(policy, **selecting(app="curl")))
    assert found.problems() == []
    assert [layer for layer in found.pipeline.layers(CURL) if layer.startswith("near/")]
    name = "outbound|9080||reviews.default.svc.cluster.local"

    def priorities(proxy: str) -> dict[str, int]:
        loaded = endpoint_pb2.ClusterLoadAssignment.FromString(seen(found, proxy, type_urls.ENDPOINT)[name].value)
        return {
            one.endpoint.address.socket_address.address: group.priority
            for group in loaded.endpoints
            for one in group.lb_endpoints
        }

    preferred = priorities(CURL)
    assert sorted(preferred.values()) == [0, 1, 1], "v2 before the others"
    assert set(priorities(DETAILS).values()) == {0}
    found.delete([rule(policy, **selecting(app="curl"))])
    assert not [layer for layer in found.pipeline.layers(CURL) if layer.startswith("near/")]


def test_a_gateway_is_selected_as_any_workload() -> None:
    """Broken: an egress gateway could not be given a way of its own to what it calls."""
    found = mesh(rule(BOUNDS, namespace="tulle-system", **selecting(istio="ingressgateway")))
    assert holds(found) == [GATEWAY]


def test_connections_of_the_selected_have_its_bounds() -> None:
    """Broken: an idle timeout that is for some would be nobody's: it lies with the listeners and not with the destination."""
    database = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}}
    spec = {"clusterIP": "240.240.0.77", "selector": {"app": "db"}, "ports": [{"port": 3306, "name": "mysql"}]}
    tcp = {"connectionPool": {"tcp": {"idleTimeout": "5s"}}}
    found = mesh(obj({**database, "spec": spec}), rule(tcp, host="db", **selecting(app="curl")))
    own, other = (seen(found, proxy, type_urls.LISTENER)["240.240.0.77_3306"] for proxy in (CURL, DETAILS))
    assert own != other


def secret(name: str = "client", namespace: str = "default", authorities: bool = True) -> Any:
    roots = Roots()
    chain, key = roots.server("client.example")
    data = {"tls.crt": chain.decode(), "tls.key": key.decode()} | ({"ca.crt": roots.pem.decode()} if authorities else {})
    return obj({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}, namespace)


MUTUAL = {"tls": {"mode": "MUTUAL", "credentialName": "client", "sni": "far.example"}}


def asked(one: Mesh, proxy: str) -> set[str]:
    """The secrets that a proxy's cluster asks for."""
    socket = cluster(one, proxy).transport_socket
    if socket.name != TLS:
        return set()
    common = tls_pb2.UpstreamTlsContext.FromString(socket.typed_config.value).common_tls_context
    validation = common.combined_validation_context.validation_context_sds_secret_config.name
    return {*(one.name for one in common.tls_certificate_sds_secret_configs), validation}


def test_a_secret_is_sent_to_the_selected_alone() -> None:
    """Broken: a client's key would be on every host of the mesh, or not even where it is needed."""
    found = mesh(secret(), rule(MUTUAL, **selecting(app="curl")))
    assert found.problems() == []
    wanted = {"kubernetes://default/client", "kubernetes://default/client-cacert"}
    assert asked(found, CURL) == wanted == set(seen(found, CURL, type_urls.SECRET))
    for proxy in (DETAILS, ELSEWHERE, GATEWAY):
        assert not asked(found, proxy) & wanted
        assert not seen(found, proxy, type_urls.SECRET)
    layer = f"rules/default/{labels_digest((('app', 'curl'),))}"
    assert found.pipeline.layers(CURL)[2] == layer
    assert "PRIVATE KEY" not in str(found.pipeline.model(layer))


def test_without_a_selector_it_is_for_gateways() -> None:
    """Broken: what Istio's egress tasks give their gateway would have no effect, or sidecars would wait for it."""
    found = mesh(secret(namespace="tulle-system"), rule(MUTUAL))
    assert asked(found, GATEWAY) == {"kubernetes://tulle-system/client", "kubernetes://tulle-system/client-cacert"}
    assert set(seen(found, GATEWAY, type_urls.SECRET)) == asked(found, GATEWAY)
    assert not any("kubernetes" in name for name in asked(found, CURL))
    assert [(one.path, one.reason) for one in found.problems()] == [("spec.trafficPolicy.tls.credentialName", "NotYetSupported")]


def test_a_secret_that_is_not_there_says_so() -> None:
    """Broken: requests would fail and nobody be told why; or the server's certificate would not be checked."""
    chosen = selecting(app="curl")
    field = "spec.trafficPolicy.tls.credentialName"
    assert [(one.path, one.reason) for one in mesh(rule(MUTUAL, **chosen)).problems()] == [(field, "SecretNotFound")]
    found = mesh(secret(authorities=False), rule(MUTUAL, **chosen))
    assert [(one.path, one.reason) for one in found.problems()] == [(field, "SecretUnusable")]
    assert asked(found, CURL) == {"kubernetes://default/client", "file-root:"}


def test_a_subset_is_what_the_callers_own_rule_says() -> None:
    """Broken: of two teams with a private rule each, one would be sent to the workloads that the other means by that name, or all
    would, where the Service's own rule has a subset of the name: so Istio has it, whose callers follow their own namespace first.
    """

    def subset(namespace: str, version: str, **more: Any) -> Any:
        return rule(BOUNDS, "subsets", namespace, subsets=[{"name": "stable", "labels": {"version": version}}], **more)

    west = entry("curl", "10.0.0.98", {"app": "curl"}, "west")
    private = subset("elsewhere", "v1", exportTo=["."]), subset("west", "v2", exportTo=["."])
    found = mesh(west, *private)
    assert found.problems() == []

    def reached(proxy: str) -> list[str]:
        there = seen(found, proxy, type_urls.ENDPOINT).get("outbound|9080|stable|reviews.default.svc.cluster.local")
        loaded = endpoint_pb2.ClusterLoadAssignment.FromString(there.value if there else b"")
        return [one.endpoint.address.socket_address.address for group in loaded.endpoints for one in group.lb_endpoints]

    workloads = [one for one in bookinfo() if isinstance(one, WorkloadEntry) and one.spec.labels.get("app") == "reviews"]

    def of(version: str) -> list[str]:
        return [one.spec.address for one in workloads if one.spec.labels["version"] == version]

    assert (reached(ELSEWHERE), reached("west/curl"), reached(CURL)) == (of("v1"), of("v2"), [])
    found.apply([subset("default", "v3")])
    assert (reached(ELSEWHERE), reached("west/curl"), reached(CURL)) == (of("v1"), of("v2"), of("v3"))
    found.delete([private[1]])
    assert (reached(ELSEWHERE), reached("west/curl")) == (of("v1"), of("v3"))
