"""Istio's own Bookinfo files, applied unchanged with the real kubectl and with tulle, seen in real traffic, gone after delete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.corpora import corpora
from tests.support.mesh import ROOT, Mesh, assert_shares, fetch

HOW = ("kubectl", "tulle")
JASON = {"end-user": "jason"}
COLOR_OF = {None: "v1", "black": "v2", "red": "v3"}


def istio(name: str) -> Path:
    """A file of Istio's networking samples."""
    return corpora(f"istio/samples/bookinfo/networking/{name}.yaml")


def gateway_api(name: str) -> Path:
    """A file of the Gateway API samples."""
    return corpora(f"istio/samples/bookinfo/gateway-api/{name}.yaml")


def version_of(reviews: object) -> str:
    """Which version of reviews answered, by the colour of its stars."""
    assert isinstance(reviews, dict), reviews
    rating = reviews["reviews"][0].get("rating")
    if isinstance(rating, dict) and "error" in rating:
        return "error"
    return COLOR_OF[rating["color"] if rating else None]


def through_ingress(mesh: Mesh, count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Versions of reviews that answer through gateway and productpage."""
    replies = fetch(f"{mesh.base}/api/v1/products/0/reviews", count, headers)
    bad = [reply for reply in replies if reply.status != 200]
    assert not bad, f"{len(bad)} of {count} failed: {bad[0].status} {bad[0].body[:200]}"
    return Counter(version_of(reply.json()) for reply in replies)


def from_workload(mesh: Mesh, count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Versions of reviews that answer a call from inside the workload curl."""
    flags = [flag for name, value in (headers or {}).items() for flag in ("-H", f"{name}: {value}")]
    ran = mesh.inside("curl", "-sS", "--fail-with-body", *flags, f"http://reviews:9080/reviews/[1-{count}]", "-w", "\n")
    return Counter(version_of(json.loads(line)) for line in ran.out.splitlines() if line)


def own_gateway() -> str:
    """The demo's own Gateway and HTTPRoute."""
    documents = (ROOT / "samples" / "bookinfo" / "bookinfo.yaml").read_text().split("\n---\n")
    return "\n---\n".join(document for document in documents if "gateway.networking.k8s.io" in document)


def without_own_gateway(mesh: Mesh) -> None:
    """Take the demo's own ingress away."""
    mesh.kubectl("delete", "-f", "-", stdin=own_gateway())
    mesh.synced()


def with_own_gateway(mesh: Mesh) -> None:
    """Put it back."""
    mesh.kubectl("apply", "-f", "-", stdin=own_gateway())
    mesh.synced()


@pytest.fixture(scope="module", autouse=True)
def subsets(mesh: Mesh) -> Iterator[None]:
    """Istio's DestinationRules, which all of its VirtualServices need."""
    mesh.apply("kubectl", istio("destination-rule-all"))
    yield
    mesh.delete("kubectl", istio("destination-rule-all"))


@pytest.fixture
def applied(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[str]:
    """The file of the test's parameters, applied `how` says, and gone afterwards (also where the test failed)."""
    how, file = request.param
    mesh.apply(how, file)
    yield how
    mesh.delete(how, file)
    assert set(through_ingress(mesh, 60)) == {"v1", "v2", "v3"}, "after delete all versions answer again"


@contextmanager
def steered(mesh: Mesh, *files: Path) -> Iterator[None]:
    """Files applied with kubectl, in which tulle then finds nothing to change: what is seen holds for both tools."""
    mesh.apply("kubectl", *files)
    try:
        mesh.tulle("diff", *(flag for file in files for flag in ("-f", str(file))))
        yield
    finally:
        mesh.delete("tulle", *files)


def each(*files: str) -> list[object]:
    """Every file with both tools."""
    return [pytest.param((how, istio(file)), id=f"{file}-{how}") for file in files for how in HOW]


def test_the_page_answers_at_once(mesh: Mesh) -> None:
    """The demo's first promise: the page, whole, with details and reviews."""
    (reply,) = fetch(f"{mesh.base}/productpage")
    assert reply.status == 200
    assert "The Comedy of Errors" in reply.body
    assert "currently unavailable" not in reply.body
    assert fetch(f"{mesh.base}/static/bookinfo.css")[0].status == 200
    assert fetch(f"{mesh.base}/nowhere")[0].status == 404


def test_without_rules_all_versions_answer(mesh: Mesh) -> None:
    """Round-robin over three versions is what Bookinfo shows before any rule."""
    assert set(through_ingress(mesh, 60)) == {"v1", "v2", "v3"}
    assert set(from_workload(mesh, 60)) == {"v1", "v2", "v3"}


@pytest.mark.parametrize("how", HOW)
def test_istio_gateway(mesh: Mesh, how: str) -> None:
    """Istio's Gateway and VirtualService bind to the ingress by its label, without the demo's own Gateway."""
    without_own_gateway(mesh)
    assert fetch(f"{mesh.base}/productpage")[0].status in (0, 404), "no listener, or no route"
    try:
        mesh.apply(how, istio("bookinfo-gateway"))
        assert fetch(f"{mesh.base}/productpage")[0].status == 200
        assert fetch(f"{mesh.base}/static/bookinfo.css")[0].status == 200
        assert fetch(f"{mesh.base}/api/v1/products")[0].status == 200
        assert fetch(f"{mesh.base}/productpage/more")[0].status == 404, "an exact match is not a prefix"
        mesh.delete(how, istio("bookinfo-gateway"))
        assert fetch(f"{mesh.base}/productpage")[0].status in (0, 404), "no listener, or no route"
    finally:
        with_own_gateway(mesh)
    assert fetch(f"{mesh.base}/productpage")[0].status == 200


@pytest.mark.parametrize("applied", each("virtual-service-all-v1"), indirect=True)
def test_all_v1(mesh: Mesh, applied: str) -> None:
    """Everybody gets version 1, from outside and from inside."""
    assert set(through_ingress(mesh, 200)) == {"v1"}
    assert set(from_workload(mesh, 200)) == {"v1"}


@pytest.mark.parametrize("applied", each("virtual-service-reviews-v3"), indirect=True)
def test_reviews_v3(mesh: Mesh, applied: str) -> None:
    """Everybody gets version 3."""
    assert set(through_ingress(mesh, 200)) == {"v3"}
    assert set(from_workload(mesh, 200)) == {"v3"}


SPLITS = {
    "virtual-service-reviews-80-20": {"v1": 0.8, "v2": 0.2},
    "virtual-service-reviews-90-10": {"v1": 0.9, "v2": 0.1},
    "virtual-service-reviews-50-v3": {"v1": 0.5, "v3": 0.5},
    "virtual-service-reviews-v2-v3": {"v2": 0.5, "v3": 0.5},
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits(mesh: Mesh, name: str) -> None:
    """Weights hold, judged by 1,000 requests through the ingress and 1,000 from a workload."""
    with steered(mesh, istio(name)):
        assert_shares(lambda: through_ingress(mesh, 1000), SPLITS[name])
        assert_shares(lambda: from_workload(mesh, 1000), SPLITS[name])
    assert set(through_ingress(mesh, 60)) == {"v1", "v2", "v3"}


@pytest.mark.parametrize("applied", each("virtual-service-reviews-test-v2"), indirect=True)
def test_header_match(mesh: Mesh, applied: str) -> None:
    """jason gets version 2, everybody else version 1; the header passes through productpage."""
    assert set(through_ingress(mesh, 100, JASON)) == {"v2"}
    assert set(through_ingress(mesh, 100, {"end-user": "jasonx"})) == {"v1"}
    assert set(from_workload(mesh, 100, JASON)) == {"v2"}
    assert set(from_workload(mesh, 100)) == {"v1"}


@pytest.mark.parametrize("applied", each("virtual-service-reviews-jason-v2-v3"), indirect=True)
def test_header_match_with_v3(mesh: Mesh, applied: str) -> None:
    """jason gets version 2, everybody else version 3."""
    assert set(through_ingress(mesh, 100, JASON)) == {"v2"}
    assert set(through_ingress(mesh, 100)) == {"v3"}
    assert set(from_workload(mesh, 100, JASON)) == {"v2"}


def test_login_carries_the_user(mesh: Mesh) -> None:
    """A person who signs in on the page is routed by who they are: the session becomes the end-user header."""
    with steered(mesh, istio("virtual-service-reviews-test-v2")):
        page = fetch(f"{mesh.base}/productpage", headers={"cookie": "session-user=jason"})[0].body
        assert "stars black" in page
        assert "jason" in page
        assert "stars" not in fetch(f"{mesh.base}/productpage")[0].body


def test_delay(mesh: Mesh) -> None:
    """jason's ratings come 7 s late: a workload sees that; the page gives up after two tries of 3 s and says so."""
    with steered(mesh, istio("virtual-service-ratings-test-delay"), istio("virtual-service-reviews-test-v2")):
        slow = mesh.inside(
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{time_total}",
            "-H",
            "end-user: jason",
            "http://ratings:9080/ratings/0",
        )
        status, seconds = slow.out.split()
        assert status == "200"
        assert 6.9 < float(seconds) < 9, "7 s, once"
        quick = mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "http://ratings:9080/ratings/0")
        assert float(quick.out.split()[1]) < 2, quick.out
        (page,) = fetch(f"{mesh.base}/productpage", headers=JASON)
        assert page.status == 200, "a slow dependency is never a crash"
        assert "reviews are currently unavailable" in page.body
        assert 5.5 < page.seconds < 9, page.seconds


def test_abort(mesh: Mesh) -> None:
    """jason's ratings answer 500: seen from a workload, and as missing stars in version 2's reply; others see nothing of it."""
    with steered(mesh, istio("virtual-service-ratings-test-abort"), istio("virtual-service-reviews-test-v2")):
        code = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}")
        assert mesh.inside(*code, "-H", "end-user: jason", "http://ratings:9080/ratings/0").out == "500"
        assert mesh.inside(*code, "http://ratings:9080/ratings/0").out == "200"
        assert set(through_ingress(mesh, 30, JASON)) == {"error"}
        assert set(through_ingress(mesh, 30)) == {"v1"}


@pytest.mark.parametrize("how", HOW)
def test_fault_injection_details(mesh: Mesh, how: str) -> None:
    """details answers 555 to everybody, and the page says so. The file brings its own DestinationRule: put the other back."""
    mesh.apply(how, istio("fault-injection-details-v1"))
    try:
        assert mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://details:9080/details/0").out == "555"
        assert fetch(f"{mesh.base}/api/v1/products/0")[0].status == 555
        assert "details are currently unavailable" in fetch(f"{mesh.base}/productpage")[0].body
    finally:
        mesh.delete(how, istio("fault-injection-details-v1"))
        mesh.apply("kubectl", istio("destination-rule-all"))
    assert fetch(f"{mesh.base}/api/v1/products/0")[0].status == 200


@pytest.mark.parametrize("how", HOW)
def test_gateway_api_ingress(mesh: Mesh, how: str) -> None:
    """The Gateway API's form of the ingress, of class istio, port 80, beside the demo's own."""
    without_own_gateway(mesh)
    try:
        mesh.apply(how, gateway_api("bookinfo-gateway"))
        assert fetch(f"{mesh.base}/productpage")[0].status == 200
        assert fetch(f"{mesh.base}/productpage/more")[0].status == 404
        assert fetch(f"{mesh.base}/static/bookinfo.css")[0].status == 200
        mesh.delete(how, gateway_api("bookinfo-gateway"))
        assert fetch(f"{mesh.base}/productpage")[0].status in (0, 404), "no listener, or no route"
    finally:
        with_own_gateway(mesh)


GAMMA = {
    "route-all-v1": {"v1": 1.0},
    "route-reviews-v1": {"v1": 1.0},
    "route-reviews-v3": {"v3": 1.0},
    "route-reviews-50-v3": {"v1": 0.5, "v3": 0.5},
    "route-reviews-90-10": {"v1": 0.9, "v2": 0.1},
}


@pytest.mark.parametrize("name", GAMMA)
def test_gateway_api_in_the_mesh(mesh: Mesh, name: str) -> None:
    """HTTPRoutes with a Service as parent steer calls between services, with the weights they give."""
    with steered(mesh, gateway_api(name)):
        if len(GAMMA[name]) == 1:
            assert set(through_ingress(mesh, 200)) == set(from_workload(mesh, 200)) == set(GAMMA[name])
        else:
            assert_shares(lambda: through_ingress(mesh, 1000), GAMMA[name])
            assert_shares(lambda: from_workload(mesh, 1000), GAMMA[name])
    assert set(through_ingress(mesh, 60)) == {"v1", "v2", "v3"}
