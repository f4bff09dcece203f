"""Traces as a real Envoy makes them: which requests, what is told of them, and the contexts of callers and applications."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from google.protobuf import json_format

from tests.support.envoy import envoy_path
from tulle.core.envoy import b3
from tulle.core.envoy.http import _ROUTER
from tulle.core.envoy.tracing import gives_b3, is_traced, trace
from tulle.core.model.telemetry import SpanTag, Tracing
from tulle.node.spans import SERVICE
from tulle.pb import message_class, pool
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
NONE = Tracing(sampling=0.0)
B3_NONE, B3_ALL = Tracing(sampling=0.0, b3=True), Tracing(sampling=100.0, b3=True)


class Traced:
    """An Envoy before an application that answers with the headers of its request; `spans` are those that Envoy told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spans: list[Any] = []

    async def get(self, path: str = "/", **headers: str) -> dict[str, str]:
        """The headers that came to the application."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        connector = aiohttp.UnixConnector(str(self.folder / "in.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://shop{path}", headers=said) as answer,
        ):
            found: dict[str, str] = await answer.json()
            return found

    async def told(self, count: int) -> list[Any]:
        """So many spans."""
        async with asyncio.timeout(30):
            while len(self.spans) < count:  # noqa: ASYNC110 - Envoy tells when it likes
                await asyncio.sleep(0.02)
        return self.spans

    async def export(self, body: bytes, _context: Any) -> bytes:
        """OTLP's method."""
        request: Any = message_class("opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest").FromString(body)
        self.spans += [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
        return b""


def manager(said: Tracing, *, inbound: bool) -> dict[str, Any]:
    made = http_connection_manager_pb2.HttpConnectionManager(stat_prefix="test")
    host = made.route_config.virtual_hosts.add(name="all", domains=["*"])
    host.routes.add().route.cluster = "application"
    host.routes[0].match.prefix = "/"
    trace(made, said, inbound=inbound)
    made.http_filters.append(b3.GIVEN if inbound and gives_b3(said) else _ROUTER)
    found: dict[str, Any] = json_format.MessageToDict(made, descriptor_pool=pool())
    return found


def cluster(name: str, path: Path, *, http2: bool = False) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    made = {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    version = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    return made | ({"typed_extension_protocol_options": {options: version}} if http2 else {})


@asynccontextmanager
async def traced(folder: Path, said: Tracing, *, inbound: bool = True) -> AsyncIterator[Traced]:
    """Envoy, what it calls, and whom it tells."""
    made = Traced(folder)
    app = web.Application()

    async def mirror(request: web.Request) -> web.Response:
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    app.router.add_get("/{path:.*}", mirror)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "app.sock")).start()
    server = grpc.aio.server()
    methods = {"Export": grpc.unary_unary_rpc_method_handler(made.export)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"unix:{folder / 'xds.sock'}")
    await server.start()
    config = manager(said, inbound=inbound)
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {"@type": kind, **config}}]}
    listener = {
        "name": "in",
        "traffic_direction": "INBOUND" if inbound else "OUTBOUND",
        "address": {"pipe": {"path": str(folder / "in.sock")}},
        "filter_chains": [chain],
    }
    clusters = [cluster("application", folder / "app.sock"), cluster("xds", folder / "xds.sock", http2=True)]
    quick = {"tracing": {"opentelemetry": {"flush_interval_ms": 50}}}
    bootstrap = {
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": quick}]},
    }
    (folder / "envoy.json").write_text(json.dumps(bootstrap))
    argv = [envoy_path(), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    with subprocess.Popen(argv, env=os.environ) as child:
        try:
            async with asyncio.timeout(60):
                while True:
                    assert child.poll() is None
                    try:
                        await made.get(traceparent=f"00-{TRACE}-{PARENT}-00")
                        break
                    except (aiohttp.ClientError, OSError):
                        await asyncio.sleep(0.05)
            yield made
        finally:
            child.terminate()
            child.wait(30)
            await server.stop(0)
            await runner.cleanup()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short path, for sockets."""
    return tmp_path_factory.mktemp("t")


def test_who_is_traced() -> None:
    """Broken: proxies would pay for traces that nobody has asked for; or a Telemetry with traces have no effect."""
    assert not is_traced(Tracing())
    assert not is_traced(Tracing(sampling=5.0, reported=False))
    assert is_traced(NONE), "none begins here, but those that come go on"
    assert is_traced(Tracing(provider="otel"))


async def test_the_parent_decides(folder: Path) -> None:
    """Broken: a trace would have holes wherever a smaller share is said than where it began."""
    async with traced(folder, NONE) as envoy:
        for flag in ("01", "00"):
            found = await envoy.get(traceparent=f"00-{TRACE}-{PARENT}-{flag}")
            assert (found["traceparent"][3:35], found["traceparent"][-2:]) == (TRACE, flag)
        assert (await envoy.get())["traceparent"].endswith("-00")
        (span,) = await envoy.told(1)
        assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, 2)


async def test_what_is_told(folder: Path) -> None:
    """Broken: tokens from queries and headers would be in a store that more people may read than may read requests."""
    tags = (
        SpanTag("tenant", "header", "x-tenant", "none"),
        SpanTag("place", "literal", "here"),
        SpanTag("m", "formatter", "%PROTOCOL%"),
    )
    async with traced(folder, Tracing(sampling=100.0, tags=tags)) as envoy:
        await envoy.get("/cart?token=hidden", authorization="Bearer hidden", cookie="hidden=1", x_tenant="blue")
        (span,) = await envoy.told(1)
        said = {one.key: one.value.string_value for one in span.attributes}
        assert said["http.url"] == "http://shop/cart"
        assert (said["tenant"], said["place"], said["m"]) == ("blue", "here", "HTTP/1.1")
        assert "hidden" not in str(span)
        assert span.name == "GET shop"


# What comes, and the ids and the decision that go on; None: a new trace.
CONTEXTS: dict[str, tuple[dict[str, str], tuple[str, str] | None]] = {
    "several": ({"x_b3_traceid": TRACE, "x_b3_spanid": PARENT, "x_b3_sampled": "1"}, (TRACE, "1")),
    "several, not sampled": ({"x_b3_traceid": TRACE, "x_b3_spanid": PARENT, "x_b3_sampled": "0"}, (TRACE, "0")),
    "several, debug": ({"x_b3_traceid": TRACE, "x_b3_spanid": PARENT, "x_b3_flags": "1"}, (TRACE, "1")),
    "several, 64 bits": ({"x_b3_traceid": TRACE[16:], "x_b3_spanid": PARENT, "x_b3_sampled": "1"}, (16 * "0" + TRACE[16:], "1")),
    "several, undecided": ({"x_b3_traceid": TRACE, "x_b3_spanid": PARENT}, None),
    "one": ({"b3": f"{TRACE}-{PARENT}-1"}, (TRACE, "1")),
    "one, not sampled": ({"b3": f"{TRACE}-{PARENT}-0"}, (TRACE, "0")),
    "one, debug, with a parent": ({"b3": f"{TRACE}-{PARENT}-d-{PARENT}"}, (TRACE, "1")),
    "one, 64 bits": ({"b3": f"{TRACE[16:]}-{PARENT}-1"}, (16 * "0" + TRACE[16:], "1")),
    "one, undecided": ({"b3": f"{TRACE}-{PARENT}"}, None),
    "one, a decision alone": ({"b3": "0"}, None),
    "garbage": ({"b3": "x" * 200}, None),
    "garbage in several": ({"x_b3_traceid": "zz", "x_b3_spanid": PARENT, "x_b3_sampled": "1"}, None),
    "half of it": ({"x_b3_traceid": TRACE, "x_b3_sampled": "1"}, None),
    "w3c before b3": ({"traceparent": f"00-{TRACE}-{PARENT}-01", "b3": f"{PARENT}{PARENT}-{PARENT}-0"}, (TRACE, "1")),
}


async def test_b3_of_callers(folder: Path) -> None:
    """Broken: applications that speak B3 would begin a new trace with every request, or pass ids that nobody can read."""
    async with traced(folder, B3_NONE, inbound=False) as envoy:
        for what, (headers, wanted) in CONTEXTS.items():
            found = await envoy.get(**headers)
            said = found["traceparent"]
            assert len(said) == 55, what
            assert (said[3:35], said[-1]) == wanted if wanted else said[3:35] != TRACE, what
            for name, value in headers.items():
                if name != "traceparent":
                    assert found[name.replace("_", "-")] == value, what
            assert not any(name.startswith("x-tulle") for name in found), what


async def test_b3_for_applications(folder: Path) -> None:
    """Broken: an application that passes on B3 alone would pass on the ids of its caller, or none."""
    async with traced(folder, B3_ALL) as envoy:
        for headers in (
            {"b3": f"{PARENT}{PARENT}-{PARENT}-0", "x_b3_parentspanid": PARENT},
            {"traceparent": f"00-{TRACE}-{PARENT}-00"},
            {},
        ):
            found = await envoy.get(**headers)
            _, number, span, flag = found["traceparent"].split("-")
            assert (found["x-b3-traceid"], found["x-b3-spanid"], found["x-b3-sampled"]) == (number, span, flag[1])
            assert not {"b3", "x-b3-parentspanid"} & set(found)
    async with traced(folder, Tracing(sampling=100.0, propagated=False, b3=True)) as envoy:
        assert not {"traceparent", "x-b3-traceid"} & set(await envoy.get())
