"""What can be looked for in lines of access logs."""

from __future__ import annotations

import pytest

from tulle.core.model.looks import Look, Wanted, least_status, statuses
from tulle.node.logs.lines import Seen, matches, seen

# As Envoy writes them, with Istio's format.
TEXT = (
    '[2026-11-29T09:41:02.123Z] "GET /reviews/0 HTTP/1.1" 503 UF,URX upstream_reset_before_response_started{connection_failure} '
    '- "delayed connect error: \\"111\\" refused" 12 95 1501 - "10.1.0.9" "curl/8.5 (x; \\"y\\")" "0e1c-1" "reviews:9080" '
    '"10.1.0.7:9080" outbound|9080|v1|reviews.default.svc.cluster.local - 240.240.0.3:9080 10.1.0.5:43210 - default'
)
JSON = (
    '{"response_code":404,"method":"POST","path":"/a","authority":"shop:80","duration":20,'
    '"caller":"spiffe://cluster.local/ns/default/sa/curl","downstream_remote_address":"[fd00::5]:4321"}'
)


def test_a_line_of_text() -> None:
    """Broken: `tulle logs --status 5xx` would show nothing of logs that are written as Istio writes them."""
    assert seen(TEXT) == Seen(503, "GET", "/reviews/0", "reviews:9080", 1.501, "", "10.1.0.5")


def test_a_line_of_json() -> None:
    """Broken: nor of those in JSON, and nobody could look for a caller by his identity."""
    assert seen(JSON) == Seen(404, "POST", "/a", "shop:80", 0.02, "spiffe://cluster.local/ns/default/sa/curl", "fd00::5")


@pytest.mark.parametrize("line", ["", "{", '{"response_code":', "GET / 200", "[x]", '{"response_code":"many","path":7}'])
def test_lines_of_other_forms(line: str) -> None:
    """Broken: a log in a format of one's own, or a line that a full disk has cut, would end the look."""
    assert seen(line) in (None, Seen())


@pytest.mark.parametrize(
    ("wanted", "text", "json"),
    [
        (Wanted(), True, True),
        (Wanted(statuses=((500, 599),)), True, False),
        (Wanted(statuses=((404, 404), (500, 503))), True, True),
        (Wanted(method="GET"), True, False),
        (Wanted(path="/rev"), True, False),
        (Wanted(authority="shop"), False, True),
        (Wanted(slower=1.5), True, False),
        (Wanted(caller="default/curl", addresses=("10.1.0.5",)), True, True),
        (Wanted(caller="default/curl", addresses=("10.1.0.6",)), False, True),
        (Wanted(caller="other/curl", addresses=("fd00::5",)), False, False),
    ],
)
def test_what_is_wanted(wanted: Wanted, text: bool, json: bool) -> None:
    """Broken: people would see other requests than they asked for. An identity that is known counts, not the address."""
    for line, expected in ((TEXT, text), (JSON, json)):
        one = seen(line)
        assert one is not None
        assert matches(wanted, one) is expected


def test_words_for_statuses() -> None:
    """Broken: a mistyped status would be taken for another one, or for all."""
    assert statuses("5xx, 404,400-410") == ((500, 599), (404, 404), (400, 410))
    assert statuses("") == ()
    for wrong in ("5x", "600", "404-400", "ok", "5xx-6xx"):
        with pytest.raises(ValueError, match=f"found '{wrong}'; needed 5xx"):
            statuses(wrong)


def test_the_lowest_status() -> None:
    """Broken: Envoy would be told to leave out what one of two people looks for."""
    errors = Look("a", "d/w", "tap", Wanted(statuses=((500, 599), (404, 404))))
    assert least_status([errors]) == 404
    assert least_status([errors, Look("b", "d/w", "tap")]) == 0
