"""Which proxies may ask for which exact limits, and what people are told of, from objects on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import bookinfo, changes, obj
from tests.unit.core.compile.test_rate_limits import ROOT, limit, route
from tulle.app.rate_limits import RateLimits
from tulle.core.pipeline import Pipeline

EXACT = {"limit": 100, "scope": "global", "precision": "exact"}
REVIEWS, RATINGS, INGRESS = "default/reviews-v1", "default/ratings-v1", f"{ROOT}/ingress"


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline()
    made.commit(changes(bookinfo()))
    return made


def limits_of(pipeline: Pipeline) -> RateLimits:
    def publish(_published: Any) -> None: ...

    made = RateLimits(pipeline, "", None, publish, lambda: True, lambda _peer, _proxy: None, lambda _peer, _serial: False)
    made.published()
    return made


def test_a_proxy_asks_for_what_it_has(pipeline: Pipeline) -> None:
    """Broken: a proxy would not be answered for its own limit, or use up another's."""
    pipeline.commit(changes([limit({"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [EXACT]})]))
    found = limits_of(pipeline)
    assert found._rule("default/l/0") is not None
    assert found._counts(REVIEWS, "default/l/0")
    assert not found._counts(RATINGS, "default/l/0")
    assert not found._counts("default/nobody", "default/l/0")


def test_limits_of_routes_are_asked_for_where_these_are_followed(pipeline: Pipeline) -> None:
    """Broken: an exact limit of a route would never be counted, and its onFailure hold for ever."""
    gateway = {"gatewayClassName": "tulle", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    metadata = {"name": "web", "namespace": "default"}
    web = obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": gateway})
    at = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}
    pipeline.commit(changes([web, route(10), limit({"targetRefs": [at], "rules": [EXACT]})]))
    found = limits_of(pipeline)
    assert found._counts(INGRESS, "default/l/0")
    assert not found._counts(REVIEWS, "default/l/0")
    spec = {"parentRefs": [{"group": "", "kind": "Service", "name": "reviews"}], "rules": [{}]}
    there = obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec})
    pipeline.commit(changes([there]))
    found.published()
    assert found._counts(RATINGS, "default/l/0"), "any sidecar may call"


def test_a_rule_that_stays_keeps_its_counts(pipeline: Pipeline) -> None:
    """Broken: every change of any limit would look like another rule of that name."""
    pipeline.commit(changes([limit({"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [EXACT]})]))
    found = limits_of(pipeline)
    before = found._rule("default/l/0")
    pipeline.commit(changes([limit({"targetRefs": [{"kind": "Service", "name": "ratings"}], "rules": [EXACT]}, name="m")]))
    found.published()
    assert found._rule("default/l/0") is before
    assert found._rule("default/m/0") is not None
