"""Selectors, identities, tables, discovery, protobuf: the pure pieces around a request."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api.registry import KINDS, kind_of_resource
from tulle.control.apiserver import protobuf
from tulle.control.apiserver.discovery import Discovery
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.negotiation import form
from tulle.control.apiserver.selectors import name_in, selector
from tulle.control.apiserver.table import human
from tulle.control.apiserver.target import target


def body(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "a", "namespace": "default", "labels": labels}}


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("app=a", {"app": "a"}, True),
        ("app==a", {"app": "b"}, False),
        ("app!=a", {}, True),
        ("app", {"app": ""}, True),
        ("!app", {"app": ""}, False),
        ("app in (a, b),v=1", {"app": "b", "v": "1"}, True),
        ("app in (a,b),v=1", {"app": "b", "v": "2"}, False),
        ("app notin (a,b)", {"app": "c"}, True),
        ("app notin (a,b)", {}, True),
        ("app=", {"app": ""}, True),
        ("app.kubernetes.io/name=x", {"app.kubernetes.io/name": "x"}, True),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], expected: bool) -> None:
    """`kubectl get -l` and `delete -l` would take other objects than were meant."""
    assert selector(text, "", "services")(body(**labels)) is expected


@pytest.mark.parametrize("text", ["app in a", "=x", "a=b=c", "app in (a", "a b"])
def test_bad_selectors_are_refused(text: str) -> None:
    """A selector that is ignored selects everything, which is fatal for a delete."""
    with pytest.raises(Denial) as denial:
        selector(text, "", "services")
    assert denial.value.http == 400


def test_field_selectors() -> None:
    """`kubectl wait` and `describe` select by fields; unknown ones must not select everything."""
    assert selector("", "metadata.name=a,metadata.namespace!=x", "services")(body())
    assert not selector("", "metadata.name=b", "services")(body())
    assert selector("", "involvedObject.name=a", "events")({"involvedObject": {"name": "a"}})
    with pytest.raises(Denial, match="not supported"):
        selector("", "spec.hosts=a", "virtualservices.networking.istio.io")
    assert name_in("metadata.name=a,metadata.namespace=b") == "a"
    assert name_in("involvedObject.metadata.name=a") == ""
    assert name_in("metadata.name!=a") == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (10800, "3h"),
        (11400, "3h10m"),
        (90000, "25h"),
        (3 * 86400 + 7200, "3d2h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y70d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    """AGE would read differently from what people know."""
    assert human(seconds) == text


def test_forms() -> None:
    """kubectl asks for tables by a header; a wrong reading gives it a list that it prints with no columns."""
    asked = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
    assert form(asked, {}).kind == "Table"
    assert form("application/json", {}).kind == ""
    assert form("*/*", {}).kind == ""
    assert form("application/vnd.kubernetes.protobuf,application/json", {}).kind == ""
    assert form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", {}).kind == "PartialObjectMetadata"
    assert form(asked, {"includeObject": "Object"}).include == "Object"


def test_every_kind_is_discovered_in_every_version() -> None:
    """A kind that is registered and not discovered does not exist for kubectl."""
    discovery = Discovery(KINDS)
    for kind in KINDS:
        for version in kind.versions:
            root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
            names = {entry["name"]: entry for entry in discovery.documents[root]["resources"]}
            assert names[kind.plural]["kind"] == kind.kind
            assert "watch" in names[kind.plural]["verbs"]
            lists = discovery.aggregate("/apis" if kind.group else "/api", "v2")["items"]
            group = next(item for item in lists if item["metadata"].get("name", "") == kind.group)
            served = next(item for item in group["versions"] if item["version"] == version)
            assert kind.plural in {entry["resource"] for entry in served["resources"]}
    preferred = {group["name"]: group["preferredVersion"]["version"] for group in discovery.documents["/apis"]["groups"]}
    assert preferred["networking.istio.io"] == "v1"
    assert preferred["gateway.networking.k8s.io"] == "v1"


def test_targets() -> None:
    """A path that is read wrongly reads or writes another object."""
    at = target("/api/v1/namespaces/shop/services/cart/status", KINDS)
    assert (at.kind.kind, at.namespace, at.name, at.subresource) == ("Service", "shop", "cart", "status")
    at = target("/api/v1/namespaces/shop", KINDS)
    assert (at.kind.kind, at.namespace, at.name) == ("Namespace", "", "shop")
    at = target("/api/v1/namespaces/shop/status", KINDS)
    assert (at.kind.kind, at.name, at.subresource) == ("Namespace", "shop", "status")
    at = target("/apis/networking.istio.io/v1alpha3/virtualservices", KINDS)
    assert (at.kind.kind, at.version, at.namespace) == ("VirtualService", "v1alpha3", "")
    for path in (
        "/api",
        "/api/v2/services",
        "/api/v1/pods",
        "/apis/networking.istio.io/v9/gateways",
        "/api/v1/services/cart",
        "/api/v1/namespaces//services",
        "/api/v1/namespaces/shop/services/cart/logs",
        "/api/v1/namespaces/shop/services/cart/status/more",
        "/api/v1/namespaces/shop/services//status",
    ):
        with pytest.raises(Denial) as denial:
            target(path, KINDS)
        assert denial.value.http == 404, path


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"k8s\x00\xff", b"k8s\x00\x0a\x7f", b"k8s\x00", b"k8s\x00\x0a\x05\x0a\x02v1\x12", b"k8s\x00\x08\x01"]
)
def test_broken_protobuf_is_refused(data: bytes) -> None:
    """Bytes from outside must never be a crash, nor an endless loop."""
    with pytest.raises(Denial) as denial:
        protobuf.decode(data)
    assert denial.value.http == 400


def test_services_have_status_and_secrets_do_not() -> None:
    """`kubectl replace --subresource=status` works where status is separate, and only there."""
    from tulle.control.apiserver.discovery import has_status

    service, secret = kind_of_resource("services"), kind_of_resource("secrets")
    assert service is not None
    assert secret is not None
    assert has_status(service)
    assert not has_status(secret)
