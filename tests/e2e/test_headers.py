"""What one end says of itself the other end hears: every header of requests and answers, through two sidecars."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.e2e.test_protocols import SPOKEN
from tests.support.mesh import Mesh
from tests.support.serving import serving
from tests.support.spoken import ANSWERED, ASKED

# What Istio documents that its sidecars add; names arrive in small letters there too.
ADDED_TO_REQUESTS = {"x-forwarded-proto", "x-forwarded-client-cert", "x-envoy-attempt-count"}
ADDED_TO_ANSWERS = {"x-envoy-upstream-service-time", "content-length"}


def headers(lines: Iterable[str]) -> dict[str, str]:
    """By name: the values, joined as HTTP joins those of a repeated header."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        name, _colon, value = line.partition(":")
        found[name.lower()].append(value.strip())
    return {name: ",".join(values) for name, values in found.items()}


@pytest.mark.parametrize("port", ["7800:http", "7801"])
def test_headers_are_altered_by_nobody(mesh: Mesh, port: str) -> None:
    """Broken: an application would miss what it was told, or be told what its caller never said."""
    number = port.partition(":")[0]
    service = f"raw{number}"
    argv = [sys.executable, SPOKEN, "serve-raw", number]
    with serving(mesh, service, port, argv, [sys.executable, SPOKEN, "raw", service, number]):
        seen = json.loads(mesh.inside(sys.executable, SPOKEN, "raw", service, number).out)
    first, *arrived = seen["arrived"]
    assert first == "PUT /a%2Fb?q=%20&q=1;x HTTP/1.1"
    asked, heard = headers([f"host: {service}:{number}", *ASKED.split("\n")]), headers(arrived)
    # The demo traces: the proxy's span is in the caller's trace.
    assert heard["traceparent"][:36] == asked["traceparent"][:36]
    heard["traceparent"] = asked["traceparent"]
    assert {name: heard.get(name) for name in asked} == asked
    assert set(heard) - set(asked) == ADDED_TO_REQUESTS | {"tracestate"}
    first, *came = seen["answered"]
    assert first == "HTTP/1.1 200 OK"
    said, got = headers(ANSWERED.split("\n")), headers(came)
    assert {name: got.get(name) for name in said} == said
    assert set(got) - set(said) == ADDED_TO_ANSWERS
