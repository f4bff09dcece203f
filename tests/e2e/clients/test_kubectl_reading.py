"""kubectl get, describe, explain and discovery: what people see."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.corpora import corpora
from tests.support.kubectl import ROUTE, SERVICE, Kubectl, changed
from tulle.api.registry import KINDS, REVIEWS

pytestmark = pytest.mark.e2e

NETWORKING = "istio/samples/bookinfo/networking"


def test_get_in_all_forms(kubectl: Kubectl) -> None:
    """Columns, wide, selectors, sorting, names, templates."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "-f", "-", stdin=changed(SERVICE, ("name: cart", "name: till")))
    lines = kubectl("get", "svc").splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == ["cart", "till"]
    assert "SELECTOR" in kubectl("get", "svc", "-o", "wide")
    kubectl("label", "svc", "cart", "tier=shop")
    kubectl("annotate", "svc", "cart", "note=x")
    assert kubectl("get", "svc", "-l", "tier=shop", "-o", "name") == "service/cart\n"
    assert kubectl("get", "svc", "-l", "tier notin (shop)", "-o", "name") == "service/till\n"
    assert kubectl("get", "svc", "--field-selector", "metadata.name=till", "-o", "name") == "service/till\n"
    assert "LABELS" in kubectl("get", "svc", "--show-labels")
    assert kubectl("get", "svc", "--sort-by=.metadata.name", "--no-headers").splitlines()[0].startswith("cart")
    assert "kind: Service" in kubectl("get", "svc", "cart", "-o", "yaml")
    assert "NAMESPACE" in kubectl("get", "all", "-A").splitlines()[0]
    kubectl("label", "svc", "cart", "tier-")
    assert kubectl("get", "svc", "-l", "tier") == ""


def test_describe_and_explain(kubectl: Kubectl) -> None:
    """People look things up with these."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "-f", str(corpora(f"{NETWORKING}/virtual-service-all-v1.yaml")))
    assert "240.240." in kubectl("describe", "svc", "cart")
    assert "Subset:  v1" in kubectl("describe", "vs", "reviews")
    assert "route" in kubectl("explain", "virtualservice.spec.http")
    assert "targetPort" in kubectl("explain", "service.spec.ports")
    assert "backendRefs" in kubectl("explain", "httproute.spec.rules", "--recursive")


def test_discovery(kubectl: Kubectl) -> None:
    """Kinds, short names, versions, categories."""
    resources = kubectl("api-resources")
    for word in ("virtualservices", "vs", "httproutes", "peerauthentications", "workloadentries", "svc"):
        assert re.search(rf"\b{word}\b", resources)
    versions = kubectl("api-versions").split()
    assert {"v1", "networking.istio.io/v1alpha3", "gateway.networking.k8s.io/v1"} <= set(versions)
    assert "Server Version" in kubectl("version")
    old = str(corpora(f"{NETWORKING}/virtual-service-all-v1.yaml"))
    kubectl("apply", "-f", old)
    assert kubectl("get", "virtualservices.v1alpha3.networking.istio.io", "reviews", "-o", "jsonpath={.apiVersion}").endswith(
        "v1alpha3"
    )
    assert "virtualservice.networking.istio.io/reviews" in kubectl("get", "istio-io")
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_every_kind_is_explained_with_all_its_fields(kubectl: Kubectl) -> None:
    """`kubectl explain` is how people look a field up; a schema that it cannot read says nothing."""

    def explained(resource: str) -> str:
        return kubectl("explain", resource, "--recursive")

    resources = kubectl("api-resources", "-o", "name").split()
    assert len(resources) > 25
    with ThreadPoolExecutor(2) as pool:
        for resource, text in zip(resources, pool.map(explained, resources), strict=True):
            kind = next(kind for kind in (*KINDS, *REVIEWS) if kind.resource == resource)
            assert f"KIND:       {kind.kind}\n" in text
            assert re.search(r"metadata\t<ObjectMeta>", text), resource
            for field in {one.alias for one in kind.model.model_fields.values()} - {"apiVersion", "kind", "metadata"}:
                assert re.search(rf"^  {field}\t<", text, re.MULTILINE), (resource, field)


def test_pages_and_orders(kubectl: Kubectl) -> None:
    """A long list comes in pages; sorted and selected it is still the same list."""
    for name in "dbeca":
        kubectl("create", "configmap", name)
    for flags in (("--chunk-size=2",), ("--chunk-size=0",), ("--sort-by=.metadata.name",)):
        assert kubectl("get", "cm", "-o", "name", *flags).split() == [f"configmap/{name}" for name in "abcde"]
    newest = kubectl("get", "cm", "--sort-by=.metadata.creationTimestamp", "--no-headers").split("\n")
    assert len(newest) == 6
    assert (
        kubectl("get", "cm", "--field-selector=metadata.name!=a,metadata.namespace=default", "-o", "name").count("configmap/")
        == 4
    )
    wrong = kubectl.run("get", "cm", "--field-selector=data.x=1")
    assert "field label not supported" in wrong.stderr
    columns = kubectl("get", "cm", "a", "-o", "custom-columns=N:.metadata.name,NS:.metadata.namespace")
    assert columns.split() == ["N", "NS", "a", "default"]
    assert kubectl("get", "cm", "a", "-o", "go-template={{.metadata.name}}") == "a"
    assert kubectl("get", "cm", "a", "b", "-o", "jsonpath={.items[*].metadata.name}") == "a b"
    assert "error" not in kubectl.run("get", "cm", "nothing", "--ignore-not-found").stderr


def test_events(kubectl: Kubectl) -> None:
    """`get events`, `events --for` and `describe` show what happened to an object, as on Kubernetes."""
    kubectl("apply", "-f", "-", stdin=ROUTE)
    uid = kubectl("get", "vs", "reviews", "-o", "jsonpath={.metadata.uid}")
    kubectl("create", "-f", "-", stdin=EVENT.replace("UID", uid))
    header, row = kubectl("get", "events").splitlines()
    assert header.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert row.split()[1:4] == ["Warning", "HostNotFound", "virtualservice/reviews"]
    assert "no host of that name" in kubectl("events", "--for", "virtualservices.networking.istio.io/reviews")
    assert "no host of that name" in kubectl("get", "events", "--field-selector=involvedObject.kind=VirtualService,type=Warning")
    assert kubectl("get", "events", "--field-selector=involvedObject.name=other", "-o", "name") == ""
    assert "HostNotFound" in kubectl("describe", "vs", "reviews")


EVENT = """
apiVersion: v1
kind: Event
metadata: {name: reviews.1, namespace: default}
involvedObject: {apiVersion: networking.istio.io/v1, kind: VirtualService, name: reviews, namespace: default, uid: UID}
type: Warning
reason: HostNotFound
message: no host of that name
count: 1
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:00Z"
source: {component: tulle}
"""
