"""RateLimit: where its rules stand, who shares them, and what a change of them costs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import bookinfo, changes, obj
from tulle.core import type_urls
from tulle.core.encoded import Published
from tulle.core.model.rate_limit import ONE, Counter, Limit, Override, price, unit
from tulle.core.pipeline import Pipeline

ROOT = "tulle-system"
REVIEWS = ("default/reviews-v1", "default/reviews-v2", "default/reviews-v3")


def limit(spec: dict[str, Any], name: str = "l", namespace: str = "default") -> Any:
    metadata = {"name": name, "namespace": namespace}
    return obj({"apiVersion": "tulle.dev/v1alpha1", "kind": "RateLimit", "metadata": metadata, "spec": spec})


def of_reviews(**rule: Any) -> Any:
    return limit({"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": [{"limit": 100, **rule}]})


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline()
    made.commit(changes(bookinfo()))
    return made


def sent(published: Published) -> dict[str, set[str]]:
    """What was sent, by layer: the names of resources."""
    return {layer: {name for names in types.values() for name in names} for layer, types in published.changed.items()}


def counters(pipeline: Pipeline, proxy: str) -> tuple[Counter, ...]:
    found = pipeline.workload(proxy)
    assert found is not None
    return found.counters


def test_a_service_is_limited_where_it_is_called(pipeline: Pipeline) -> None:
    """Broken: a limit would stand nowhere, or at services that nobody named."""
    pipeline.commit(changes([of_reviews()]))
    assert [counters(pipeline, one) for one in REVIEWS] == [(Counter("9080"),)] * 3
    assert counters(pipeline, "default/ratings-v1") == ()


def test_a_selector_is_for_its_own_namespace(pipeline: Pipeline) -> None:
    """Broken: a team could limit the workloads of another."""
    spec = {"selector": {"matchLabels": {"app": "ratings"}}, "rules": [{"limit": 1}]}
    pipeline.commit(changes([limit(spec, namespace="other")]))
    assert counters(pipeline, "default/ratings-v1") == ()
    pipeline.commit(changes([limit(spec)]))
    assert counters(pipeline, "default/ratings-v1") == (Counter("9080"),)


def test_a_changed_limit_reaches_no_listener(pipeline: Pipeline) -> None:
    """Broken: who changes a limit would drain the connections of a service under load."""
    pipeline.commit(changes([of_reviews()]))
    published = pipeline.commit(changes([of_reviews(burst=7, match=[{"methods": ["GET"]}])]))
    assert sent(published) == {f"workload/{one}": {"limits~9080"} for one in REVIEWS}


def test_shares_are_even_until_others_are_given(pipeline: Pipeline) -> None:
    """Broken: before its first share a proxy would let everything through, or nothing."""
    pipeline.commit(changes([of_reviews(scope="global")]))
    (shared,) = pipeline.shared_limits
    assert (shared.limit.id, shared.members) == ("default/l/0", REVIEWS)
    before = pipeline.model(f"workload/{REVIEWS[0]}")[f"costs {(('default', 'reviews-v1'), '9080')}"]
    assert before.costs == {"default/l/0": 3 * ONE}
    published = pipeline.take_shares({("default/l/0", REVIEWS[0]): 0.5, ("default/l/0", REVIEWS[1]): 1 / 3})
    assert sent(published) == {f"workload/{REVIEWS[0]}": {"limit-costs~9080"}}
    (changed,) = published.changed[f"workload/{REVIEWS[0]}"][type_urls.EXTENSION].values()
    assert changed is not None
    assert len(changed.any) < 300
    published = pipeline.take_shares({("default/l/0", REVIEWS[0]): None})
    assert pipeline.model(f"workload/{REVIEWS[0]}")[f"costs {(('default', 'reviews-v1'), '9080')}"] == before


def test_a_proxy_that_joins_takes_its_share_from_the_others(pipeline: Pipeline) -> None:
    """Broken: each replica that is added would add to what is let through; or full buckets would be there again for all."""
    pipeline.commit(changes([of_reviews(scope="global")]))
    gone = changes([one for one in bookinfo() if one.kind == "WorkloadEntry" and one.metadata.name == "reviews-v3"])
    published = pipeline.commit(dict.fromkeys(gone))
    assert {layer: names for layer, names in sent(published).items() if "limit" in str(names)} == {
        f"workload/{one}": {"limit-costs~9080"} for one in REVIEWS[:2]
    } | {f"workload/{REVIEWS[2]}": sent(published)[f"workload/{REVIEWS[2]}"]}


def route(weight: int) -> Any:
    backends = [{"name": name, "port": 9080, "weight": one} for name, one in (("reviews", weight), ("ratings", 50))]
    spec = {"parentRefs": [{"name": "web"}], "rules": [{"name": "all", "backendRefs": backends}]}
    metadata = {"name": "web", "namespace": "default"}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec})


def test_a_route_changes_and_its_buckets_stay(pipeline: Pipeline) -> None:
    """Broken: each step of a roll-out would fill the buckets of the route's clients again."""
    gateway = {"gatewayClassName": "tulle", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    metadata = {"name": "web", "namespace": "default"}
    web = obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": gateway})
    pipeline.commit(changes([web, route(10)]))
    at = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}
    rules = [{"limit": 100, "scope": "global"}]
    published = pipeline.commit(changes([limit({"targetRefs": [at, {**at, "sectionName": "all"}], "rules": rules})]))
    assert {"limits~routes", "limits~rules", "limit-costs~routes"} < sent(published)[f"workload/{ROOT}/ingress"]
    assert [one.members for one in pipeline.shared_limits] == [(f"{ROOT}/ingress",)]
    published = pipeline.commit(changes([route(20)]))
    assert [set(types) for types in published.changed.values()] == [{type_urls.VIRTUAL_HOST}]


@pytest.mark.parametrize("members", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("most", [1, 2, 100, 1_000_000, 2**32 - 1])
def test_shares_let_through_what_the_limit_says(members: int, most: int) -> None:
    """Broken: shares that are one limit together would let more or less through than that; or a small share nothing, ever."""
    one = Limit("a/b/0", most, overrides=(Override(("x",), max(1, most // 10)),))
    paid = [price(one, members).at(1 / members)] * members
    rates = [most * unit(one, members) / each for each in paid]
    if most < 2**32 // ONE:
        assert sum(rates) == pytest.approx(most, rel=0.01)
    assert sum(rates) <= most * 1.01 or most * ONE > 2**32
    assert max(paid) <= unit(one, members) * max(members, max(1, most // 10))
