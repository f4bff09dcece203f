"""07xx: Services with somebody behind them, whose ports say what they speak."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import Cases, codes, found

SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {clusterIP: "%s", selector: {app: %s}, ports: [{name: %s, port: 80}]}
"""

SLICE = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-elsewhere, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: %s, port: 9080}]
endpoints: [{addresses: [192.0.2.7]}]
"""

CASES: Cases = {
    "TUL0701": (
        SERVICE % ("a", "240.240.9.9", "reviews", "http") + SERVICE % ("b", "240.240.9.9", "reviews", "http"),
        SERVICE % ("a", "240.240.9.9", "reviews", "http") + SERVICE % ("b", "240.240.9.8", "reviews", "http"),
    ),
    "TUL0702": (SERVICE % ("a", "", "nobody", "http"), SERVICE % ("a", "", "reviews", "http")),
    "TUL0703": (SERVICE % ("a", "", "reviews", "web"), SERVICE % ("a", "", "reviews", "http-web")),
    "TUL0704": (SLICE % ("reviewz", "http"), SLICE % ("reviews", "http")),
    "TUL0705": (SLICE % ("reviews", "web"), SLICE % ("reviews", "http")),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_files_alone_say_nothing_of_workloads() -> None:
    """A pipeline that has only files would report every Service."""
    assert found(CASES["TUL0702"][0], live=False, beside=False) == []
    assert [one.code for one in found(CASES["TUL0702"][0], live=True, beside=False)] == ["TUL0702"]
