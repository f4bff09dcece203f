"""09xx: a limit stands somewhere, or it is said that it does not."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import Cases, codes

LIMIT = """---
apiVersion: tulle.dev/v1alpha1
kind: RateLimit
metadata: {name: l}
spec: {targetRefs: [{kind: Service, name: reviews%s}], rules: [{limit: 5%s}]}
"""
ALONE = """---
apiVersion: v1
kind: Service
metadata: {name: alone}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
"""

CASES: Cases = {
    "TUL0901": (LIMIT % (", sectionName: htp", ""), LIMIT % (", sectionName: http", "")),
    "TUL0902": (ALONE + LIMIT.replace("name: reviews", "name: alone") % ("", ""), ALONE + LIMIT % ("", "")),
    "TUL0903": (LIMIT.replace("limit: 5", "limit: 1") % ("", ", scope: global"), LIMIT % ("", ", scope: global")),
    "TUL0904": (LIMIT % ("", ", key: {type: Route}"), LIMIT % ("", ", key: {type: Identity}")),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """Broken: the code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


@pytest.mark.parametrize("kind", ["Service", "HTTPRoute", "GRPCRoute", "Gateway"])
def test_a_target_that_is_not_there(kind: str) -> None:
    """Broken: a limit for a name that was misspelt would look like one that holds."""
    group = "" if kind == "Service" else "gateway.networking.k8s.io"
    text = LIMIT.replace("kind: Service, name: reviews", f"group: '{group}', kind: {kind}, name: none") % ("", "")
    assert "TUL0113" in codes(text)
