"""Goldens served to real Envoys by tulle's own ADS server: they get ready, and follow what changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.support.certificates import Roots
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.core import type_urls
from tulle.core.encoded import Encoded, Published
from tulle.core.envoy import tap
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.secrets import encode_bundle, encode_certificate
from tulle.core.pipeline import Pipeline
from tulle.node.logs.runtime import Runtime
from tulle.xds.server import OPTIONS, AdsServer

HERE = Path(__file__).parent
Changes = dict[tuple[str, str, str], Object | None]


class WithSecrets:
    """A pipeline as a node would serve it: with the workload's certificate in a layer of its own."""

    def __init__(self, pipeline: Pipeline, proxy: str) -> None:
        self.pipeline = pipeline
        roots = Roots()
        workload = pipeline.workload(proxy)
        assert workload is not None
        secrets = (encode_certificate("default", *roots.leaf(workload.identity)), encode_bundle("ROOTCA", roots.pem))
        self._secrets = {secret.name: secret for secret in secrets}

    @property
    def revision(self) -> int:
        return self.pipeline.revision

    def layers(self, proxy: str) -> tuple[str, ...]:
        return ("secrets", *self.pipeline.layers(proxy))

    def table(self, layer: str, type_url: str) -> Mapping[str, Encoded]:
        if layer == "secrets":
            return self._secrets if type_url == type_urls.SECRET else {}
        return self.pipeline.table(layer, type_url)


class Served:
    """A pipeline, its server and one Envoy."""

    def __init__(self, pipeline: Pipeline, server: AdsServer, proxy: Proxy) -> None:
        self.pipeline, self.server, self.proxy = pipeline, server, proxy

    async def commit(self, changes: Changes) -> Published:
        """Take in objects; returns when Envoy has acknowledged what they became."""
        published = self.pipeline.commit(changes)
        self.server.publish(published)
        assert await self.server.wait_synced(published.revision, 10) == []
        assert [status for status in self.server.proxies() if any(one.refused for one in status.types)] == []
        return published


@asynccontextmanager
async def served(objects: Changes, proxy: str, scratch: Path) -> AsyncIterator[Served]:
    pipeline = Pipeline()
    pipeline.commit(objects)
    server = AdsServer(WithSecrets(pipeline, proxy))
    listening = grpc.aio.server(options=OPTIONS)
    listening.add_generic_rpc_handlers((*server.handlers, Runtime(tap.NAME).handler))
    listening.add_insecure_port(f"unix:{scratch / 'xds.sock'}")
    await listening.start()
    options = Options(
        node_id=proxy,
        cluster="test",
        xds_socket=str(scratch / "xds.sock"),
        admin_socket=str(scratch / "admin.sock"),
        health_port=0,
        metrics_port=0,
    )
    try:
        async with running(bootstrap(options), scratch) as envoy:
            await envoy.until("/ready", "LIVE", deadline=4)  # before the five seconds that a missing table would take
            yield Served(pipeline, server, envoy)
    finally:
        await server.close()
        await listening.stop(None)


def objects_of(case: str, **replaced: str) -> Changes:
    """The objects of a golden, with numbers in its text replaced."""
    text = (HERE / case / "in.yaml").read_text()
    for old, new in replaced.items():
        text = text.replace(old.strip("_"), new)
    found: Changes = {}
    for document in read_documents(text, "in.yaml")[0]:
        decoded, problems = decode(document.raw, document.locate)
        assert decoded is not None, problems
        kind = kind_for(decoded.ref.group, decoded.kind)
        assert kind is not None
        found[kind.resource, decoded.metadata.namespace, decoded.metadata.name] = decoded
    return found


async def test_a_gateway_gets_ready_and_follows_its_routes(tmp_path: Path) -> None:
    """Broken: the ingress would never open, or go on with routes that were changed or deleted."""
    port = free_port()
    everything = objects_of("ingress-istio", _8080_=str(port), _10_0_0_100_="127.0.0.1")
    async with served(everything, "tulle-system/ingressgateway", tmp_path) as one:
        key = ("virtualservices.networking.istio.io", "default", "bookinfo")
        dump = await one.proxy.until("/config_dump", f"http.{port}.tulle-system.ingressgateway/*:{port}")
        assert "/api/v1/products" in dump
        published = await one.commit({key: None})
        assert {url for changed in published.changed.values() for url in changed} == {type_urls.VIRTUAL_HOST}
        assert "/api/v1/products" not in await one.proxy.admin("/config_dump")
        await one.commit({key: everything[key]})
        assert "/api/v1/products" in await one.proxy.admin("/config_dump")


async def test_a_port_that_comes_later_has_its_hosts(tmp_path: Path) -> None:
    """Broken: hosts sent before their table are dropped by Envoy, and a new port would stay closed."""
    everything = objects_of("proxy-capture", **{f"_3100{n}_": str(free_port()) for n in range(1, 5)}, _31080_=str(free_port()))
    async with served(everything, "default/reviews-v1", tmp_path) as one:
        other = objects_of("proxy-capture", _9080_="9081", _reviews_="ratings")
        await one.commit({key: row for key, row in other.items() if key[0] == "services"})
        await one.proxy.until("/config_dump", "9081.default/ratings.default.svc.cluster.local:9081", deadline=2)
        stats = await one.proxy.admin("/listeners")
        assert "0.0.0.0_9081" in stats
