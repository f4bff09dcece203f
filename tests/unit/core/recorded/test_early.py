"""Who refused a connection before a word was said: the proxy does not tell, the policies do."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.core.compile.mesh import changes, entry, obj, service
from tulle.core.model.recorded import EARLY, Shape
from tulle.core.pipeline import Pipeline
from tulle.core.recorded.early import named

SHAPE = Shape(
    "destination",
    source="default/curl",
    destination="default/web",
    port=8000,
    protocol="tcp",
    details=EARLY,
    principal="spiffe://cluster.local/ns/default/sa/curl",
    mutual=True,
)


def policy(action: str, account: str) -> Pipeline:
    """A mesh with one policy for one caller."""
    rules = [
        {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/nobody"]}}]},
        {"from": [{"source": {"principals": [f"cluster.local/ns/default/sa/{account}"]}}]},
    ]
    spec = {"selector": {"matchLabels": {"app": "web"}}, "action": action, "rules": rules}
    metadata = {"name": "p"}
    made = obj({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})
    pipeline = Pipeline()
    pipeline.commit(changes([entry("web", "10.1.0.1", {"app": "web"}), service("web"), made]))
    return pipeline


@pytest.mark.parametrize(
    ("action", "account", "expected"),
    [("DENY", "curl", "default/p rule 1"), ("DENY", "somebody", ""), ("ALLOW", "somebody", ""), ("ALLOW", "curl", "")],
)
def test_the_policy_that_denies(action: str, account: str, expected: str) -> None:
    """Broken: the record of a refused connection would name no policy, or one that had nothing to do with it."""
    assert named(policy(action, account), SHAPE).policy == expected


@pytest.mark.parametrize(
    "shape",
    [
        msgspec.structs.replace(SHAPE, details="rbac_access_denied"),
        msgspec.structs.replace(SHAPE, policy="default/other rule 0"),
        msgspec.structs.replace(SHAPE, reporter="source"),
        msgspec.structs.replace(SHAPE, destination="default/gone"),
    ],
)
def test_others_stay_as_they_were_told(shape: Shape) -> None:
    """Broken: what a proxy told would be overwritten by a guess."""
    assert named(policy("DENY", "curl"), shape) is shape
