"""One paragraph: what happened, who decided, what to do."""

from __future__ import annotations

from tulle.core.describe import Place
from tulle.core.explain import deciding, explain
from tulle.core.explain.known import Known
from tulle.core.explain.paragraph import value_at
from tulle.core.model.recorded import Example, Shape

HOST = "reviews.default.svc.cluster.local"
CLUSTER = f"outbound|9080||{HOST}"


def source(code: str, flags: str, details: str, **more: str) -> tuple[Shape, Example]:
    shape = Shape(
        "source",
        source="default/productpage-v1",
        service=HOST,
        port=9080,
        method="GET",
        path="/reviews/{id}",
        code=code,
        flags=flags,
        details=details,
        origin=more.get("origin", ""),
        field=more.get("field", ""),
    )
    example = Example(
        "id-1",
        1000.0,
        1003.0,
        "default/productpage-v1",
        "reviews:9080",
        "/reviews/7",
        cluster=CLUSTER,
        details=details,
        attempts=3,
    )
    return shape, example


def destination(code: str, details: str, policy: str = "") -> tuple[Shape, Example]:
    shape = Shape(
        "destination",
        source="default/productpage-v1",
        destination="default/reviews-v1",
        service=HOST,
        port=9080,
        method="GET",
        path="/reviews/{id}",
        code=code,
        details=details,
        policy=policy,
        principal="spiffe://cluster.local/ns/default/sa/productpage",
        mutual=True,
    )
    return shape, Example("id-1", 1000.1, 1.0, "default/reviews-v1", "reviews:9080", "/reviews/7", details=details)


def test_the_hop_that_decided() -> None:
    """Broken: the caller's proxy, which only passed the answer on, or the called one's, which was left, would be blamed."""
    passed, denied = source("403", "", "via_upstream"), destination("403", "rbac_access_denied_matched_policy[none]")
    assert deciding([passed, denied]) is denied
    late, left = source("504", "UT", "response_timeout"), destination("0", "downstream_remote_disconnect")
    assert deciding([late, left]) is late
    twice, answered = source("503", "URX", "via_upstream"), destination("503", "via_upstream")
    assert deciding([twice, answered]) is twice


def test_denied_by_a_rule() -> None:
    """Broken: people would look for the rule that denied in every policy."""
    details = "rbac_access_denied_matched_policy[ns[default]-policy[no-one]-rule[2]]"
    found = explain([destination("403", details, "default/no-one rule 2")], Known())
    assert (found.object, found.field) == ("AuthorizationPolicy default/no-one", "spec.rules[2]")
    assert "the policy denies it" in found.text


def test_allowed_by_nobody() -> None:
    """Broken: of a call that no rule allows nobody would learn which policies there are."""
    found = explain([destination("403", "rbac_access_denied_matched_policy[none]")], Known(allows=("default/some",)))
    assert (found.object, found.field) == ("AuthorizationPolicy default/some", "spec.rules")
    assert "spiffe://cluster.local/ns/default/sa/productpage to GET /reviews/7" in found.text


def test_a_timeout() -> None:
    """Broken: nobody would learn which route is out of time."""
    late = source("504", "UT", "response_timeout", origin="VirtualService default/reviews", field="spec.http[0]")
    found = explain([late], Known(goal=f"{HOST}:9080"))
    assert (found.object, found.field) == ("VirtualService default/reviews", "spec.http[0].timeout")
    gateway = source("504", "UT", "response_timeout", origin="HTTPRoute default/reviews", field="spec.rules[0]")
    assert explain([gateway], Known()).field == "spec.rules[0].timeouts.request"


def test_no_endpoint() -> None:
    """Broken: of a service that has nobody it would not be said who is missing."""
    known = Known(goal=f"{HOST}:9080", endpoints=(Place("10.0.0.1:9080", "default/reviews-v1", False, True),))
    known = Known(goal=known.goal, endpoints=known.endpoints, service="Service default/reviews")
    found = explain([source("503", "UH", "no_healthy_upstream")], known)
    assert (found.object, found.field) == ("Service default/reviews", "spec.selector")
    assert "it has 1 (default/reviews-v1), and none is ready" in found.text


def test_retries() -> None:
    """Broken: it would not be said how often it was tried, nor what the last try came to."""
    hops = [source("503", "URX", "via_upstream", origin="VirtualService default/reviews", field="spec.http[0]")]
    hops.append(destination("503", "via_upstream"))
    found = explain(hops, Known(goal=f"{HOST}:9080"))
    assert found.field == "spec.http[0].retries.attempts"
    assert "tried 3 times" in found.text
    assert "default/reviews-v1 answered 503" in found.text


def test_nothing_went_wrong() -> None:
    """Broken: a call that went well would be explained as a failure."""
    assert "nothing went wrong" in explain([source("200", "", "via_upstream")], Known()).text


def test_values() -> None:
    """Broken: the paragraph would not say what the object says."""
    body = {"spec": {"http": [{"timeout": "1s", "fault": {"abort": {"httpStatus": 418}}}]}}
    assert value_at(body, "spec.http[0].timeout") == "1s"
    assert value_at(body, "spec.http[0].fault.abort") == '{"httpStatus":418}'
    assert value_at(body, "spec.http[1].timeout") == ""
    assert value_at(body, "spec.other") == ""
