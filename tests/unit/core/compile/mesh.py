"""A mesh for the tests of compile: Bookinfo's services and workloads as objects, and a pipeline over them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.core import type_urls
from tulle.core.compile.gateway_hosts import gateway_virtual_host
from tulle.core.compile.gateways import table_key
from tulle.core.compile.hosts import virtual_host
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Route, RouteTableKey, VirtualHost
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem

Key = tuple[str, str, str]


def obj(raw: dict[str, Any], namespace: str = "default") -> Object:
    """A decoded object; its namespace is `namespace` where it names none."""
    raw = {**raw, "metadata": {**raw["metadata"]}}
    group = raw["apiVersion"].rpartition("/")[0]
    kind = kind_for(group, raw["kind"])
    if kind and kind.namespaced:
        raw["metadata"].setdefault("namespace", namespace)
    decoded, problems = decode(raw)
    assert decoded is not None, problems
    return decoded


def read(text: str | Path, namespace: str = "default") -> list[Object]:
    """The objects of a YAML file or text."""
    source = text.read_text() if isinstance(text, Path) else text
    return [obj(raw, namespace) for raw in yaml.safe_load_all(source) if raw]


def key_of(one: Object) -> Key:
    kind = kind_for(one.ref.group, one.kind)
    assert kind is not None
    return kind.resource, one.metadata.namespace, one.metadata.name


def changes(objects: Iterable[Object]) -> dict[Key, Object | None]:
    return {key_of(one): one for one in objects}


def service(
    name: str,
    namespace: str = "default",
    ports: tuple[dict[str, Any], ...] = ({"port": 9080, "name": "http"},),
    selector: dict[str, str] | None = None,
    address: str = "",
    created: str | None = None,
) -> Object:
    spec: dict[str, Any] = {"ports": [dict(port) for port in ports], "selector": {"app": name} if selector is None else selector}
    if address:
        spec["clusterIP"] = address
    metadata = {"name": name, "namespace": namespace}
    if created:
        metadata["creationTimestamp"] = created
    return obj({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def entry(
    name: str,
    address: str,
    labels: dict[str, str],
    namespace: str = "default",
    account: str = "",
    ports: dict[str, int] | None = None,
    **notes: str,
) -> Object:
    """A WorkloadEntry run by a node; `notes` are annotations of `tulle.dev` (with `_` for `-`)."""
    annotations = {"tulle.dev/node": "host", "tulle.dev/capture": "netns"}
    annotations |= {f"tulle.dev/{note.replace('_', '-')}": value for note, value in notes.items()}
    return obj(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": namespace, "annotations": {k: v for k, v in annotations.items() if v}},
            "spec": {"address": address, "labels": labels, "serviceAccount": account, "ports": ports or {}},
        }
    )


def bookinfo() -> list[Object]:
    """The sample application, its versions as Services of their own, a curl workload, and an ingress gateway on port 18080."""
    return list(_bookinfo())


@cache
def _bookinfo() -> tuple[Object, ...]:
    """Decoded once: objects do not change, and nearly every test of the compiler begins with these."""
    objects: list[Object] = []
    versions = {"productpage": ("v1",), "details": ("v1",), "reviews": ("v1", "v2", "v3"), "ratings": ("v1",)}
    host = 10
    for index, (name, all_versions) in enumerate(versions.items()):
        objects.append(service(name, address=f"240.240.0.{index + 1}"))
        for version in all_versions:
            host += 1
            objects.append(service(f"{name}-{version}", selector={"app": name, "version": version}, address=f"240.240.1.{host}"))
            labels = {"app": name, "version": version}
            objects.append(entry(f"{name}-{version}", f"10.0.0.{host}", labels, account=f"bookinfo-{name}"))
    objects.append(entry("curl", "10.0.0.9", {"app": "curl"}, account="curl"))
    ports = ({"port": 80, "name": "http", "targetPort": 18080}, {"port": 8080, "name": "http2", "targetPort": 18080})
    objects.append(service("ingressgateway", "tulle-system", ports, {"istio": "ingressgateway"}, "240.240.2.1"))
    objects.append(entry("ingress", "10.0.0.2", {"istio": "ingressgateway"}, "tulle-system", "ingress", capture="none"))
    return tuple(objects)


class Mesh:
    """A pipeline and what people would ask it."""

    def __init__(self, objects: Iterable[Object] = ()) -> None:
        self.pipeline = Pipeline()
        self.objects: dict[Key, Object] = {}
        self.apply(objects)

    def apply(self, objects: Iterable[Object]) -> dict[str, Any]:
        batch = changes(objects)
        self.objects |= {key: one for key, one in batch.items() if one is not None}
        return dict(self.pipeline.commit(batch).changed)

    def delete(self, objects: Iterable[Object]) -> dict[str, Any]:
        keys = [key_of(one) for one in objects]
        for key in keys:
            self.objects.pop(key, None)
        return dict(self.pipeline.commit(dict.fromkeys(keys)).changed)

    def host(self, name: str, viewer: str = "default", namespace: str = "default", port: int = 9080) -> VirtualHost:
        """The virtual host of a service as the sidecars of `viewer` have it."""
        row = self.pipeline.flow.get(virtual_host, (RouteTableKey(port, viewer), (namespace, name), port))
        assert row is not None
        table = self.pipeline.table(f"namespace/{viewer}", type_urls.VIRTUAL_HOST)
        assert RouteTableKey(port, viewer).host_resource(row.name) in table
        return row

    def routes(self, name: str, viewer: str = "default", namespace: str = "default", port: int = 9080) -> tuple[Route, ...]:
        return self.host(name, viewer, namespace, port).routes

    def ingress(self, host: str = "*", port: int = 18080) -> VirtualHost:
        """A virtual host of the ingress gateway."""
        row = self.pipeline.flow.get(gateway_virtual_host, (table_key(("tulle-system", "ingress"), port), host))
        assert row is not None
        return row

    def problems(self) -> list[Problem]:
        """The pipeline's problems, which must be those of one that gets all objects at once."""
        found = self.pipeline.problems()
        at_once = Pipeline()
        at_once.commit(changes(self.objects.values()))
        assert found == at_once.problems()
        return found

    def said(self) -> list[str]:
        return [str(problem) for problem in self.problems()]


def to(*shares: tuple[str, int] | str) -> list[tuple[str, int]]:
    """`to("reviews:v1")`, `to(("reviews:v1", 80), ("reviews:v2", 20))`: names of destinations in `default`, port 9080."""
    return [(_cluster(share), 1) if isinstance(share, str) else (_cluster(share[0]), share[1]) for share in shares]


def _cluster(share: str) -> str:
    name, _colon, subset = share.partition(":")
    return DestinationKey(f"{name}.default.svc.cluster.local", 9080, subset).cluster


def goes(route: Route) -> list[tuple[str, int]]:
    return [(share.destination.cluster, share.weight) for share in route.destinations]
