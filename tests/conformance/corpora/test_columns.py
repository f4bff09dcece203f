"""Our columns of `kubectl get` against the printer columns of the CRDs: ours have all of theirs, with the same values."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.corpora import corpora
from tests.support.crds import Json, channels, crds
from tulle.api.object import Kind
from tulle.api.registry import KINDS

CASES = [pytest.param(kind, channel, id=f"{kind.kind}-{channel}") for kind in KINDS for channel in channels(kind)]
_CONDITION = re.compile(r'\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.status')


def printed(kind: Kind, channel: str) -> list[Json]:
    """Upstream's columns of every version that is served."""
    versions = crds(channel)[kind.group, kind.kind]["versions"]
    return [one for version in versions if version["served"] for one in version.get("additionalPrinterColumns", ())]


def shown_by(path: str) -> tuple[dict[str, Any], str]:
    """An object that has something at the path, and what kubectl prints of it."""
    body: dict[str, Any] = {"metadata": {"name": "a"}}
    if found := _CONDITION.fullmatch(path):
        return {**body, "status": {"conditions": [{"type": "Other", "status": "no"}, {"type": found[1], "status": "yes"}]}}, "yes"
    *way, last = path.strip(".").split(".")
    at = body
    for step in way:
        if step.endswith("[*]"):
            here: dict[str, Any] = {}
            at[step.removesuffix("[*]")] = [here]
            at = here
        else:
            at = at.setdefault(step, {})
    at[last] = "2026-01-31T23:59:59Z"
    return body, at[last]


@pytest.mark.parametrize(("kind", "channel"), CASES)
def test_columns_have_upstreams(kind: Kind, channel: str) -> None:
    """`kubectl get` would show less than people are used to, or something else under the same name."""
    corpora("gateway-api/crd" if channel != "istio" else "istio/crds.yaml")
    ours = {column.name: column for column in kind.table}
    for theirs in printed(kind, channel):
        assert theirs["name"] in ours
        column = ours[theirs["name"]]
        assert column.wide == bool(theirs.get("priority"))
        assert column.age == (theirs["type"] == "date")
        body, value = shown_by(theirs["jsonPath"])
        assert column.value(body) == value


def test_there_are_columns() -> None:
    """The test above would pass if no CRD had a column."""
    corpora("gateway-api/crd")
    assert sum(len(printed(kind, channel)) for kind in KINDS for channel in channels(kind)) > 60
