"""Service accounts of a Kubernetes cluster as proof of who asks; a server answers TokenReviews as kube-apiserver does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import test_utils, web

from tests.support.pki import Pki
from tests.unit.ca.test_join import Site
from tulle.control.ca.http import COUNTS, identity_app
from tulle.control.ca.kubernetes import TokenReviewer, node_accounts
from tulle.control.ca.signer import OwnSigner
from tulle.kit.errors import Refused

REVIEWER = "reviewer.own.token"
REVIEWS = "spiffe://cluster.local/ns/default/sa/reviews"


class Cluster:
    """kube-apiserver's TokenReview: tokens by text, with whom they are of, for whom, and on which node."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, str, str]] = {}
        self.mode = ""
        self.asked = 0

    async def review(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.json()
        assert body["kind"] == "TokenReview"
        if request.headers.get("Authorization") != f"Bearer {REVIEWER}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if self.mode == "nonsense":
            return web.Response(text="[1]", content_type="application/json")
        if self.mode == "down":
            return web.json_response({}, status=500)
        user, audience, node = self.tokens.get(body["spec"]["token"], ("", "", ""))
        if not user or audience not in body["spec"]["audiences"]:
            status: dict[str, Any] = {"authenticated": False, "error": "[invalid bearer token, unknown]"}
        else:
            extra = {"authentication.kubernetes.io/node-name": [node]} if node else {}
            status = {"authenticated": True, "audiences": [audience], "user": {"username": user, "extra": extra}}
        if self.mode == "other audience":
            status["audiences"] = ["vault"]
        return web.json_response({**body, "status": status}, status=201)


class Both(Site):
    """An identity API that believes a cluster."""

    def __init__(self, folder: Path, cluster: Cluster, reviewer: TokenReviewer) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.app = identity_app(OwnSigner(self.authority), self.tokens, self.store, clock=self.clock, kubernetes=reviewer)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Both]:
    cluster, pki = Cluster(), Pki(tmp_path / "pki", 1.8e9)
    app = web.Application()
    app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", cluster.review)
    server = test_utils.TestServer(app, scheme="https")
    await server.start_server(ssl=pki.tls)
    token = tmp_path / "token"
    token.write_text(REVIEWER)
    nodes = node_accounts(["tulle-system/tulle-node=default/*,shop/web"])
    reviewer = TokenReviewer(f"https://localhost:{server.port}", token, pki.ca_file, "tulle", nodes)
    running = Both(tmp_path / "ca", cluster, reviewer)
    async with running:
        yield running
    await server.close()


async def test_a_workload_gets_its_own_identity(site: Both) -> None:
    """Broken: a pod cannot prove who it is, or gets the identity of another service account."""
    site.cluster.tokens["a.b.c"] = ("system:serviceaccount:default:reviews", "tulle", "host-1")

    async def sign(identity: str, token: str) -> tuple[int, Any]:
        from tests.unit.ca.test_join import csr

        return await site.post("/sign", {"csr": csr(), "identity": identity, "token": token})

    assert (await sign(REVIEWS, "a.b.c"))[0] == 200
    status, body = await sign("spiffe://cluster.local/ns/default/sa/admin", "a.b.c")
    assert (status, "the token is of default/reviews" in body["message"]) == (403, True)
    assert (await sign("spiffe://cluster.local/node/host-1", "a.b.c"))[0] == 403


async def test_a_node_agent_joins_by_its_account(site: Both) -> None:
    """Broken: any pod of the cluster is a node of the mesh, or one node takes the place of another."""
    site.cluster.tokens["n.o.de"] = ("system:serviceaccount:tulle-system:tulle-node", "tulle", "host-1")
    site.cluster.tokens["p.o.d"] = ("system:serviceaccount:default:reviews", "tulle", "host-1")
    assert (await site.join("n.o.de", "host-1"))[0] == 200
    assert (await site.sign(REVIEWS, "spiffe://cluster.local/node/host-1"))[0] == 200
    assert (await site.sign("spiffe://cluster.local/ns/shop/sa/db", "spiffe://cluster.local/node/host-1"))[0] == 403
    status, body = await site.join("n.o.de", "host-2")
    assert (status, body["message"]) == (403, "kubernetes token: its pod runs on node 'host-1', not on 'host-2'")
    assert (await site.join("p.o.d", "host-1"))[0] == 403
    assert (await site.join(await site.tokens.create(["*/*"], 60), "host-3"))[0] == 200, "join tokens go on"


async def test_bad_tokens(site: Both) -> None:
    """Broken: a token that the cluster does not stand for is believed or shown, or an outage is a refusal."""
    site.cluster.tokens["g.o.od"] = ("system:serviceaccount:tulle-system:tulle-node", "tulle", "")
    site.cluster.tokens["h.u.man"] = ("ada", "tulle", "")
    site.cluster.tokens["o.th.er"] = ("system:serviceaccount:tulle-system:tulle-node", "vault", "")
    with structlog.testing.capture_logs() as logs:
        for token in ("h.u.man", "o.th.er", "un.known.t0ken", "", "no-dots", "a.b." + "x" * 20000, "ü.b.c"):
            status, body = await site.join(token, "host-1")
            assert status == 403, token[:20]
            assert "t0ken" not in str(body)
        assert site.app[COUNTS].refused["join"] == 7
        site.cluster.mode = "other audience"
        assert (await site.join("g.o.od", "host-1"))[0] == 403
        for mode in ("down", "nonsense"):
            site.cluster.mode = mode
            assert (await site.join("g.o.od", "host-1"))[0] == 503
        site.cluster.mode = ""
        assert (await site.join("g.o.od", "host-1"))[0] == 200
    assert "t0ken" not in repr(logs)
    assert REVIEWER not in repr(logs)


def test_settings(tmp_path: Path) -> None:
    """Broken: a mistyped rule makes nobody, or everybody, a node."""
    assert node_accounts(["a/b=*/*"]) == {"a/b": ["*/*"]}
    for said in ("a/b", "a=*/*", "a/b=", "a/b=x"):
        with pytest.raises(Refused, match="--kubernetes-node"):
            node_accounts([said])
    with pytest.raises(Refused, match="needed https"):
        TokenReviewer("http://k", tmp_path, None, "tulle", {})
