"""kubectl create, edit, patch, replace, label: changes by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.corpora import corpora
from tests.support.kubectl import ROUTE, SERVICE, Kubectl, changed

pytestmark = pytest.mark.e2e

NETWORKING = "istio/samples/bookinfo/networking"


def test_namespaces(kubectl: Kubectl) -> None:
    """An absent namespace is said; deleting one takes its contents."""
    missing = kubectl.run("apply", "-n", "nowhere", "-f", "-", stdin=SERVICE)
    assert 'namespaces "nowhere" not found' in missing.stderr
    kubectl("create", "namespace", "shop")
    kubectl("apply", "-n", "shop", "-f", "-", stdin=SERVICE)
    assert "cart" in kubectl("get", "svc", "-A")
    assert "Active" in kubectl("get", "ns", "shop")
    assert "shop" in kubectl("describe", "ns", "shop")
    kubectl("delete", "ns", "shop")
    assert "shop" not in kubectl("get", "svc,ns", "-A")
    assert "may not be deleted" in kubectl.run("delete", "ns", "default").stderr


def test_imperative_commands(kubectl: Kubectl) -> None:
    """`kubectl create` of the core kinds speaks protobuf."""
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "service", "clusterip", "web", "--tcp=5678:8080", "--tcp=81:http")
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[*].targetPort}") == "8080 http"
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.a}") == "b"
    assert "robot" in kubectl("get", "sa")


def test_patch_replace_edit(kubectl: Kubectl) -> None:
    """The three patch languages, replace with its conflict, and an editor."""
    kubectl("apply", "-f", str(corpora(f"{NETWORKING}/virtual-service-reviews-80-20.yaml")))
    kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"gateways":["mesh"]}}')
    kubectl("patch", "vs", "reviews", "--type=json", "-p", '[{"op":"replace","path":"/spec/http/0/route/0/weight","value":70}]')
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.gateways[0]} {.spec.http[0].route[0].weight}") == "mesh 70"
    wrong = kubectl.run("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"htp":[]}}')
    assert "htp" in wrong.stderr
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("patch", "svc", "cart", "-p", '{"spec":{"ports":[{"port":80,"targetPort":1234}]}}')
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.ports[*].targetPort}") == "1234 81"
    read = kubectl("get", "vs", "reviews", "-o", "json")
    kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"gateways":["other"]}}')
    late = kubectl.run("replace", "-f", "-", stdin=read)
    assert "Conflict" in late.stderr
    kubectl("replace", "-f", "-", stdin=kubectl("get", "vs", "reviews", "-o", "json"))
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.gateways[0]}") == "other"


def test_an_editor(kubectl: Kubectl) -> None:
    """`kubectl edit` sends what the editor left; a mistake comes back as a sentence in the file, and nothing is stored."""
    kubectl("apply", "-f", "-", stdin=ROUTE)
    edited = kubectl("edit", "vs", "reviews", KUBE_EDITOR="sed -i -e s/weight:.80/weight:\\ 70/")
    assert "virtualservice.networking.istio.io/reviews edited" in edited
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.http[0].route[*].weight}") == "70 20"
    assert "Edit cancelled, no changes made" in kubectl.run("edit", "vs", "reviews", KUBE_EDITOR="true").stderr
    wrong = kubectl.run("edit", "vs", "reviews", KUBE_EDITOR="sed -i -e s/weight:.[0-9]*$/weight:\\ many/")
    assert wrong.returncode == 1
    kept = re.search(r'stored to "([^"]+)"', wrong.stderr)
    assert kept is not None
    assert 'found "many" (a string); needed an integer' in Path(kept[1]).read_text()
    Path(kept[1]).unlink()
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.http[0].route[*].weight}") == "70 20"
    kubectl("edit", "vs", "-o", "json", KUBE_EDITOR='sed -i -e s/\\"v2\\"/\\"v3\\"/')
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.http[0].route[1].destination.subset}") == "v3"


def test_replace_with_force(kubectl: Kubectl) -> None:
    """Deleted and made anew: what cannot be changed in place."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    uid = kubectl("get", "svc", "cart", "-o", "jsonpath={.metadata.uid}")
    other = changed(SERVICE, ("  selector:", "  clusterIP: 240.240.77.77\n  selector:"))
    assert "does not change" in kubectl.run("replace", "-f", "-", stdin=other).stderr
    assert "replaced" in kubectl("replace", "--force", "-f", "-", stdin=other)
    shown = kubectl.object("svc", "cart")
    assert shown["metadata"]["uid"] != uid
    assert shown["spec"]["clusterIP"] == "240.240.77.77"


def test_generated_names(kubectl: Kubectl) -> None:
    """`create` of a generated name makes another each time; `apply` refuses it."""
    body = changed(SERVICE, ("{name: cart}", "{generateName: cart-}"))
    first, second = (kubectl("create", "-f", "-", "-o", "name", stdin=body) for _ in range(2))
    assert first != second
    assert first.startswith("service/cart-")


def test_labels_and_annotations(kubectl: Kubectl) -> None:
    """Set, refused where there, overwritten where asked, listed, taken off; bad ones are said."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("label", "svc", "cart", "a=b")
    assert "already has a value" in kubectl.run("label", "svc", "cart", "a=c").stderr
    kubectl("label", "svc", "cart", "a=c", "--overwrite")
    assert kubectl("label", "svc", "cart", "--list").strip() == "a=c"
    kubectl("label", "svc", "--all", "a-")
    kubectl("annotate", "svc", "cart", "note=hello world")
    assert "hello world" in kubectl("annotate", "svc", "cart", "--list")
    assert kubectl.run("label", "svc", "cart", "a=not valid").returncode == 1
    patched = kubectl.run("patch", "svc", "cart", "--type=merge", "-p", '{"metadata":{"labels":{"a":"not valid"}}}')
    assert 'metadata.labels.a: found "not valid"' in patched.stderr


def test_deletes_by_policy(kubectl: Kubectl) -> None:
    """In the background, in the foreground, orphaned: what an object owns goes first, later, or not at all."""

    def family() -> None:
        kubectl("create", "configmap", "owner")
        uid = kubectl("get", "cm", "owner", "-o", "jsonpath={.metadata.uid}")
        kubectl("create", "-f", "-", stdin=OWNED.replace("UID", uid))

    family()
    kubectl("delete", "cm", "owner", "--cascade=orphan")
    assert kubectl("get", "cm", "-o", "name").split() == ["configmap/owned"]
    assert kubectl("get", "cm", "owned", "-o", "jsonpath={.metadata.ownerReferences}") == ""
    kubectl("delete", "cm", "owned")
    family()
    kubectl("delete", "cm", "owner", "--cascade=foreground")
    assert kubectl("get", "cm", "-o", "name") == ""
    family()
    kubectl("delete", "cm", "owner")
    kubectl("wait", "--for=delete", "cm/owned", "--timeout=30s")


def test_what_is_not_there(kubectl: Kubectl) -> None:
    """The usual errors, word for word as people (and their scripts) know them."""
    for command in (("get", "svc", "x"), ("delete", "svc", "x"), ("label", "svc", "x", "a=b"), ("patch", "svc", "x", "-p", "{}")):
        done = kubectl.run(*command)
        assert done.returncode == 1
        assert 'Error from server (NotFound): services "x" not found' in done.stderr
    kubectl("delete", "svc", "x", "--ignore-not-found")
    kubectl("create", "configmap", "a")
    assert 'configmaps "a" already exists' in kubectl.run("create", "configmap", "a").stderr


def test_a_namespace_that_waits(kubectl: Kubectl) -> None:
    """A namespace is Terminating while a finalizer holds something in it, takes nothing new, and ends by itself."""
    kubectl("create", "namespace", "shop")
    kubectl("create", "-n", "shop", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, finalizers: [x.y/z]}")
    kubectl("delete", "ns", "shop", "--wait=false")
    assert "Terminating" in kubectl("get", "ns", "shop")
    assert "because it is being terminated" in kubectl.run("create", "configmap", "b", "-n", "shop").stderr
    assert "x.y/z" in kubectl("describe", "ns", "shop")
    kubectl("patch", "cm", "a", "-n", "shop", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    kubectl("wait", "--for=delete", "ns/shop", "--timeout=30s")


OWNED = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: UID, blockOwnerDeletion: true}]
"""
