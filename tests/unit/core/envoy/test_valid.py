"""Whatever the model can say, a real Envoy takes: one bootstrap with every combination, judged by `envoy --mode validate`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from tests.support.certificates import Roots
from tests.support.envoy import validate
from tulle.core.compile.istio_tls import CIPHERS, CURVES
from tulle.core.encoded import Encoded
from tulle.core.envoy.clusters import encode_cluster, encode_workload_clusters
from tulle.core.envoy.endpoints import encode_endpoints
from tulle.core.envoy.listeners import encode_outbound, encode_outbound_six, encode_workload
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.model.destination import Destination, DestinationKey, Endpoint, EndpointSet, Locality, Transport
from tulle.core.model.gateway import GatewayChain, GatewayListener, SecretRef, ServerTls
from tulle.core.model.route import (
    MOST_BODY,
    Abort,
    Cors,
    Delay,
    HeaderEdit,
    Headers,
    MatchKind,
    Mirror,
    NamedMatch,
    Origin,
    PathEdit,
    PathKind,
    Redirect,
    Retry,
    Rewrite,
    Route,
    RouteMatch,
    RouteTableKey,
    Session,
    TextMatch,
    VirtualHost,
    WeightedDestination,
)
from tulle.core.model.service import Protocol, Resolution
from tulle.core.model.tcp_route import Carriage, TcpMatch, TcpRoute, Tunnel
from tulle.core.model.traffic import (
    Connections,
    Cookie,
    Hash,
    Keepalive,
    LoadBalancer,
    Outlier,
    ProxyProtocol,
    Requests,
    Tls,
    Upgrade,
    Warmup,
)
from tulle.core.model.workload import Capture, InboundPort, MtlsMode, Outbound, OutboundTcp, Workload
from tulle.kit.problem import Ref

REVIEWS = DestinationKey("reviews.default.svc.cluster.local", 9080)
TABLE = RouteTableKey(9080, "default")
FORWARD = RouteTableKey(0, "default")
GATEWAY = RouteTableKey(8080, "tulle-system", "tulle-system/ingressgateway")
SECTION = RouteTableKey(8443, "tulle-system", "tulle-system/ingressgateway", section="https~shop~default")
PAIR, OTHER = SecretRef((("Secret", "default", "shop"),)), SecretRef((("Secret", "default", "other"),))
ROOTS = SecretRef((("ConfigMap", "default", "roots"), ("Secret", "default", "roots")), authorities=True)
FILES = SecretRef((("File", "", "/a/chain.pem"), ("File", "", "/a/key.pem")))
SPKI = "NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="
TLS = (
    ServerTls((PAIR,)),
    ServerTls((FILES,), SecretRef((("File", "", "/a/ca.pem"), ("File", "", "/a/crl.pem")), authorities=True), require=True),
    ServerTls((PAIR, OTHER), ROOTS, require=True),
    ServerTls((PAIR,), ROOTS, fallback=True),
    ServerTls((PAIR,), ROOTS, names=("spiffe://a/b", "a.example"), spki=(SPKI,), hashes=("ab" * 32, ":".join(["AB"] * 32))),
    ServerTls(mesh=True, require=True, alpn=("h2", "http/1.1", "istio")),
    *(ServerTls((PAIR,), minimum=low) for low in ("TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")),
    ServerTls((PAIR,), minimum="TLSv1_1", maximum="TLSv1_1"),
    *(ServerTls((PAIR,), ciphers=(cipher,)) for cipher in CIPHERS),
    *(ServerTls((PAIR,), curves=(curve,), alpn=()) for curve in CURVES),
)
SHARES = (WeightedDestination(REVIEWS, 80), WeightedDestination(DestinationKey("b", 1), 20), WeightedDestination(REVIEWS, 0))
GATEWAY_LISTENERS = (
    GatewayListener(8080, (GatewayChain(table=GATEWAY),)),
    GatewayListener(
        8443,
        (
            GatewayChain(table=GATEWAY),
            *(GatewayChain((f"{n}.example",), True, one, SECTION) for n, one in enumerate(TLS)),
            GatewayChain(("*.example", "a.example"), True, destinations=SHARES),
            GatewayChain(("b.example",), True, TLS[0], destinations=SHARES[:1]),
            GatewayChain(encrypted=True),
        ),
    ),
    GatewayListener(3306, (GatewayChain(destinations=SHARES),), "127.0.0.1"),
    GatewayListener(3307, (GatewayChain(destinations=SHARES[:1]),)),
    GatewayListener(3308, (GatewayChain(),)),
)


def workload(capture: Capture, mode: MtlsMode, others: MtlsMode) -> Workload:
    ports = [InboundPort(80 + n, 1080 + n, protocol, mode) for n, protocol in enumerate(Protocol)]
    return Workload(
        id="default/a",
        namespace="default",
        name="a",
        identity="spiffe://cluster.local/ns/default/sa/a",
        address="10.0.0.1",
        capture=capture,
        mtls=others,
        inbound=(*ports, InboundPort(99, 99, Protocol.HTTP, MtlsMode.STRICT)),
        listeners=GATEWAY_LISTENERS if capture is Capture.NONE else (),
    )


def destinations() -> list[Encoded]:
    clusters = [
        encode_cluster(
            Destination(
                DestinationKey(f"{transport}-{http}-{http2}-{auto}-{balancer}".lower(), 80),
                http=http,
                http2=http2,
                auto=auto,
                load_balancer=balancer,
                transport=transport,
                identities=("spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/b"),
            )
        )
        for transport, (http, http2, auto), balancer in product(
            Transport, ((False, False, False), (True, False, False), (True, True, False), (False, False, True)), LoadBalancer
        )
    ]
    clusters += [encode_cluster(one) for one in (*policies(), *resolved())]
    near, far = Locality("r1", "z1"), Locality("r2")
    endpoints = (
        Endpoint("10.0.0.1", 80, "default/a", mtls=True),
        Endpoint("10.0.0.2", 80, "default/b", weight=3, locality=near, healthy=False),
        Endpoint("fd00::3", 80, locality=far),
        Endpoint("unix:///run/app.sock", 0, locality=far),
    )
    ranked = tuple(msgspec.structs.replace(one, priority=number) for number, one in enumerate(endpoints))
    sets = (
        EndpointSet(REVIEWS, endpoints),
        EndpointSet(DestinationKey("ranked", 80), ranked),
        EndpointSet(DestinationKey("shared", 80), endpoints[1:], ((near, 70_000), (far, 1))),
    )
    return [*clusters, *map(encode_endpoints, sets)]


def resolved() -> Iterator[Destination]:
    """Every way to find endpoints with every balancer and transport."""
    for way, balancer, transport in product(Resolution, LoadBalancer, Transport):
        if way not in (Resolution.KNOWN, Resolution.ORIGINAL):
            some = (Endpoint("a.example", 80, mtls=True), Endpoint("10.0.0.1", 81, weight=2, locality=Locality("r", "z")))
            for number in range(3):
                key = DestinationKey(f"{way}-{balancer}-{transport}-{number}".lower(), 80)
                yield Destination(key, True, False, False, balancer, transport, resolution=way, endpoints=some[:number])
    key = DestinationKey("*.example", 443)
    yield Destination(key, load_balancer=LoadBalancer.PASSTHROUGH, resolution=Resolution.ORIGINAL)


def policies() -> list[Destination]:
    """Every part of a traffic policy, for every balancer, over every transport, for HTTP and for bytes."""
    cookies = (Cookie("a"), Cookie("a", "/", 0.0), Cookie("a", "/", 3600.0, (("SameSite", "Strict"),)))
    hashes = (
        *(Hash(cookie=cookie) for cookie in cookies),
        *(Hash(header="x-user", size=size) for size in (0, 1, 4096, 2**40)),
        Hash(query="q"),
        Hash(source_address=True, size=4),
    )
    authorities = Roots().pem.decode()
    tls = (
        Tls(),
        Tls(verify=False),
        Tls(nobody=True, sni="a.example"),
        Tls("a.example", ("b.example", "*.c.example"), ("spiffe://a/b",), authorities),
        Tls(ca_file="/no/such/ca.pem", crl_file="/no/such/crl.pem", certificate_file="/no/cert", key_file="/no/key"),
    )
    everything = {
        "warmup": Warmup(30.0, 10.0, 1.5),
        "connections": Connections(3, Keepalive(3, 60, 5), 60.0, 0.0, 5.0, 0.5),
        "outlier": Outlier(3, 2, 5, True, 1.0, 600.0, 100, 50, (429, 500)),
        "shared_out": True,
    }
    parts: list[dict[str, Any]] = [
        *({"hash": one} for one in hashes),
        *({"requests": Requests(upgrade=upgrade)} for upgrade in Upgrade),
        *({"proxy_protocol": version} for version in ProxyProtocol),
        {"requests": Requests(1, 2, 3, 4, 5, budget=12.5, budget_minimum=2, budget_interval=0.5)},
        {"requests": Requests(budget=0.0), "outlier": Outlier(0, 0), "warmup": Warmup(1.0)},
        {"outlier": Outlier(split_local=True, codes=(429,)), "connections": Connections(ping_timeout=1.0), "sni": "a.example"},
        everything,
        {**everything, "hash": hashes[3]},
        *({"tls": one} for one in tls),
    ]
    return [
        Destination(
            DestinationKey(f"{transport}-{http}-{balancer}-{number}".lower(), 81),
            http=http,
            load_balancer=balancer,
            transport=transport,
            identities=("spiffe://cluster.local/ns/default/sa/a",),
            **part,
        )
        for transport, http, balancer, (number, part) in product(Transport, (False, True), LoadBalancer, enumerate(parts))
    ]


def routes() -> list[Encoded]:
    texts = [TextMatch(kind, value, case) for kind, value, case in product(MatchKind, ("/a", "/a/"), (False, True))]
    texts += [TextMatch(MatchKind.SEGMENTS, "/"), TextMatch(MatchKind.PREFIX, "")]
    matches = [RouteMatch(), *(RouteMatch(path=text) for text in texts)]
    matches += [
        RouteMatch(headers=(NamedMatch("x", text, invert),), query=(NamedMatch("q", text),))
        for text, invert in product(texts, (False, True))
    ]
    one = (WeightedDestination(REVIEWS),)
    many = (WeightedDestination(REVIEWS, 80), WeightedDestination(DestinationKey("b", 1), 20), WeightedDestination(REVIEWS, 0))
    origin = Origin(Ref("VirtualService", "default", "reviews"), "spec.http[0]")
    actions = [
        Route(destinations=one, timeout=0.5, retry=None, origin=origin),
        Route(destinations=many, retry=Retry(3, ("5xx",), (429,), 0.25)),
        Route(destinations=many, delay=Delay(7.0, 12.5), abort=Abort(555, 0.0001)),
        Route(status=500, abort=Abort(400)),
        Route(),
    ]
    hosts = [
        VirtualHost("a", ("a", "a:9080"), tuple(Route(match=match, destinations=one) for match in matches)),
        VirtualHost("b", ("b", "*.b.example"), tuple(actions)),
        VirtualHost("c", ("c",), tuple(changes(one, many))),
        VirtualHost("*", ("*",), passthrough=True),
        VirtualHost("d", ("d",), require_tls=True),
    ]
    return [
        item
        for key in (TABLE, FORWARD, GATEWAY, SECTION)
        for item in (encode_table(key), *(encode_host(key, host) for host in hosts))
    ]


def changes(one: tuple[WeightedDestination, ...], many: tuple[WeightedDestination, ...]) -> Iterator[Route]:
    """Routes that change what passes: each kind of path edit for each kind of match, and everything at once."""
    edit = HeaderEdit(set=(("x-a", "100%%"), ("x-e", "")), add=(("x-b", "%REQ(x-c)%"),), remove=("x-d",))
    headers = Headers(edit, edit)
    edits = [PathEdit(PathKind.REGEX, r"/\1", "^/(a+)"), PathEdit(PathKind.FULL, "/\\\\x"), PathEdit(PathKind.FULL, "")]
    edits += [PathEdit(PathKind.PREFIX, value) for value in ("", "/", "/b", "/b/")]
    paths = [None, *(TextMatch(kind, value, case) for kind, value, case in product(MatchKind, ("/", "/a"), (False, True)))]
    for path, change in product(paths, edits):
        yield Route(match=RouteMatch(path=path), destinations=one, rewrite=Rewrite("b.example", change))
        yield Route(match=RouteMatch(path=path), redirect=Redirect("https", "b.example", 8443, path=change, status=308))
    yield from (Route(redirect=Redirect(status=status)) for status in (301, 302, 303, 307, 308))
    shares = tuple(WeightedDestination(share.destination, share.weight, headers, "c.example") for share in many)
    yield Route(destinations=shares[:1])
    yield Route(destinations=shares, rewrite=Rewrite("b.example"), headers=headers, idle_timeout=3.0)
    origins = (TextMatch(MatchKind.EXACT, "https://a"), TextMatch(MatchKind.REGEX, ".*"), TextMatch(MatchKind.PREFIX, "http"))
    yield Route(
        destinations=one, cors=Cors(origins, ("GET", "PUT"), ("x-a",), ("x-b",), 86400.5, True, False, True), headers=headers
    )
    yield Route(destinations=one, cors=Cors(), mirrors=(Mirror(REVIEWS, 0.5), Mirror(DestinationKey("none", 1))))
    yield Route(destinations=one, session=Session(cookie="s", path="/a", lifetime=60.0))
    yield Route(destinations=one, session=Session(cookie="s"))
    yield Route(destinations=one, session=Session(header="x-s"))
    yield Route(destinations=one, abort=Abort(0, 50.0, grpc=14))
    yield Route(destinations=one, retry=Retry(1, ("5xx",), backoff=0.0001, longest=0.00001, elsewhere=False))
    yield Route(destinations=one, retry=Retry(1, ("5xx",), backoff=1.0, other_localities=True))
    yield Route(status=200, body=b"a" * MOST_BODY, headers=headers)
    yield Route(match=RouteMatch(percent=12.5), destinations=one)
    yield Route(status=503, body=bytes(range(256)))
    yield Route(destinations=(WeightedDestination(REVIEWS, named_at=8443), *many))


def test_envoy_takes_whatever_the_model_can_say(tmp_path: Path) -> None:
    """Broken: some rows of the model would become resources that Envoy refuses, and the proxy would stay on its old ones."""
    tables = routes()
    matches = (TcpMatch(names=("a.example", "*.example")), TcpMatch(sources=("10.0.0.0/8",)), TcpMatch(names=("*",)))
    half = tuple(
        TcpRoute(
            match=match,
            destinations=(WeightedDestination(REVIEWS),),
            carriage=Carriage(told=True, idle_timeout=0.0, max_duration=5.0, tunnel=Tunnel("a.example", 443)),
        )
        for match in matches
    )
    services = tuple(
        OutboundTcp("240.240.0.7", 3306 + at, REVIEWS, sniffed, routes)
        for at, (sniffed, routes) in enumerate(product((False, True), ((), half, (*half, TcpRoute()))))
    )
    services += tuple(OutboundTcp("2001:db8::7", one.port, REVIEWS, one.sniffed, one.routes) for one in services)
    unaddressed = (
        OutboundTcp("", 443, REVIEWS, names=("*.example", "a.example")),
        OutboundTcp("", 443, REVIEWS, names=("b.example",)),
        OutboundTcp("", 443, REVIEWS, names=("*.named.example",), named_at=443),
        OutboundTcp("", 443, REVIEWS),
        OutboundTcp("10.0.0.0/8", 443, REVIEWS, names=("c.example",)),
        OutboundTcp("fd00::/64", 443, REVIEWS),
        OutboundTcp("10.1.0.0/16", 443, REVIEWS, routes=(*half, TcpRoute())),
        *(OutboundTcp("", port, REVIEWS, names=("a.example",), routes=half) for port in (9080, 9081)),
        *(OutboundTcp("", port, REVIEWS, routes=half) for port in (444, 9080, 9081)),
        *(OutboundTcp("10.0.0.0/8", port, REVIEWS) for port in (9080, 9081)),
    )
    outbound = [
        resource
        for registry_only, tcp in ((False, services), (True, unaddressed), (False, unaddressed))
        for encode in (encode_outbound, encode_outbound_six)
        for resource in encode(Outbound("default", (TABLE,), tcp, (RouteTableKey(9081, "default"),), registry_only=registry_only))
    ]
    tables.append(encode_table(RouteTableKey(9081, "default")))
    tables += [encode_table(RouteTableKey(port, "default", service=REVIEWS.hostname)) for port in range(3306, 3312)]
    groups: list[list[Encoded]] = [[*destinations(), *tables, *outbound]]
    for capture, mode, others in product(Capture, MtlsMode, MtlsMode):
        one = workload(capture, mode, others)
        groups.append([*tables, *encode_workload_clusters(one), *encode_workload(one)])
        if capture in (Capture.CGROUP, Capture.NETNS):
            groups.append([*tables, *encode_workload_clusters(one), *encode_workload(msgspec.structs.replace(one, ipv6=True))])
    assert validate(groups, tmp_path) == ""


def test_the_judge_refuses_what_is_wrong(tmp_path: Path) -> None:
    """Broken: the validation that all goldens stand on would let anything through."""
    broken = VirtualHost("a", ("a",), (Route(match=RouteMatch(path=TextMatch(MatchKind.REGEX, "("))),))
    group = [encode_table(TABLE), encode_host(TABLE, broken), *encode_outbound(Outbound("default", (TABLE,)))]
    assert "missing )" in validate([group], tmp_path)
    assert "malformed IP" in validate([[encode_endpoints(EndpointSet(REVIEWS, (Endpoint("not-an-address", 1),)))]], tmp_path)
