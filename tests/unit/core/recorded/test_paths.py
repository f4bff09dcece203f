"""Paths → templates, whatever clients ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.core.recorded.paths import OTHERS, Templates, template


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/reviews", "/reviews"),
        ("/reviews/", "/reviews/"),
        ("/users/4711/orders/17", "/users/{id}/orders/{id}"),
        ("/users/4711?token=abc#x", "/users/{id}"),
        ("/x/550e8400-e29b-41d4-a716-446655440000", "/x/{uuid}"),
        ("/x/550E8400-E29B-41D4-A716-446655440000.json", "/x/{uuid}.json"),
        ("/commits/7f3a9b2c11d4", "/commits/{hex}"),
        ("/facade/decade", "/facade/decade"),
        ("/days/2024-05-01", "/days/{date}"),
        ("/days/2024-05-01T10:00:00Z", "/days/{date}"),
        ("/hosts/10.0.0.7", "/hosts/{address}"),
        ("/people/a.b@example.com", "/people/{mail}"),
        ("/people/a.b%40example.com", "/people/{mail}"),
        ("/api/v1/things", "/api/v1/things"),
        ("/apis/v1beta1/things", "/apis/v1beta1/things"),
        ("/user-4711/x", "/user-{id}/x"),
        ("/img/logo.png", "/img/logo.png"),
        ("/img/123.png", "/img/{id}.png"),
        ("/reset/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "/reset/{token}"),
        ("/blog/how-we-made-our-mesh-much-faster", "/blog/{text}"),
        ("/pkg.Service/Method", "/pkg.Service/Method"),
        ("/a;jsessionid=1234/b", "/a/b"),
        ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/a/b/c/d/e/f/g/h/i/j/k/l/*"),
        ("*", "*"),
        ("", ""),
        ("no slash", OTHERS),
    ],
)
def test_template(path: str, expected: str) -> None:
    """Broken: calls of one kind would be thousands of shapes, or calls of different kinds one."""
    assert template(path) == expected


_SEGMENT = st.one_of(
    st.text(min_size=0, max_size=60),
    st.integers().map(str),
    st.uuids().map(str),
    st.dates().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.binary(min_size=4, max_size=20).map(lambda data: data.hex()),
)


@given(st.lists(_SEGMENT, max_size=20))
def test_a_template_is_its_own(segments: list[str]) -> None:
    """Broken: what a node folded would be folded again, and be another shape, wherever it comes through this once more."""
    once = template("/" + "/".join(segments))
    assert template(once) == once
    assert "?" not in once


@given(st.uuids(), st.uuids(), st.integers(min_value=0), st.integers(min_value=0))
def test_what_differs_from_call_to_call_is_gone(one: object, other: object, first: int, second: int) -> None:
    """Broken: a shape a user would be made, and the record forget everything else for it."""
    assert template(f"/a/{one}/b/{first}") == template(f"/a/{other}/b/{second}")


@given(st.lists(st.text(alphabet="abcdefghijklmnop", min_size=1, max_size=8), max_size=200))
def test_a_destination_has_few_templates(words: list[str]) -> None:
    """Broken: a crawler that asks for every word there is would fill the memory of a node."""
    templates = Templates(most=10)
    found = {templates.of("web", f"/{word}") for word in words}
    assert len(found) <= 11
    assert found <= {f"/{word}" for word in words} | {OTHERS}


def test_destinations_are_few() -> None:
    """Broken: names that clients make up would be kept for ever."""
    templates = Templates(most=1, destinations=2)
    assert templates.of("a", "/one") == "/one"
    assert templates.of("a", "/two") == OTHERS
    for name in ("b", "c"):
        templates.of(name, "/x")
    assert templates.of("a", "/two") == "/two"  # it was forgotten
