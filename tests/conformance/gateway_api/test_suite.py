"""The Gateway API's conformance suite in real traffic: every test of `cases.json`, on one mesh, one after the other.

All of it runs: it takes a minute or two. The report lies in `build/gateway-api-conformance.yaml` afterwards. What is not passed
yet stands in `not_yet.py`, check by check, with its reason; a check that is there and passes fails its test, so that the list
shrinks. `TULLE_CONFORMANCE=1` prints what the list would be today.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conformance.gateway_api import report
from tests.conformance.gateway_api.mesh import ConformanceMesh
from tests.conformance.gateway_api.not_yet import NOT_YET
from tests.conformance.gateway_api.runner import Results, Runner
from tests.conformance.gateway_api.suite import KINDS, Case, cases
from tests.support.corpora import ROOT
from tests.support.mesh import ROOT as CHECKOUT
from tulle import __version__
from tulle.core.status.features import FEATURES, SUPPORTED

ON_THE_MESH = pytest.mark.asyncio(loop_scope="module")

ALL = cases() if (ROOT / "gateway-api" / "conformance").exists() else []
LIMIT = 30.0  # upstream's time to be consistent
SHORT = 1.0  # for what is known not to pass
REPORT = CHECKOUT / "build" / "gateway-api-conformance.yaml"


class Suite:
    """A runner and what it found so far."""

    def __init__(self, mesh: ConformanceMesh) -> None:
        self.mesh, self.runner = mesh, Runner(mesh)
        self.results: dict[str, Results] = {}

    def write(self, path: Path) -> None:
        """The report of all that was run."""
        failed = {name: wrong for name, found in self.results.items() if (wrong := next(filter(None, found.values()), ""))}
        ran = [one for one in ALL if one.name in self.results]
        reasons = {name: gap[0] for name, gap in NOT_YET.items()}
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        report.write(path, report.report(ran, failed, FEATURES, date=date, version=__version__, reasons=reasons))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Suite]:
    """The mesh of all tests; the report is written when they are done."""
    async with ConformanceMesh() as mesh:
        suite = Suite(mesh)
        yield suite
        if len(suite.results) == len(ALL):
            suite.write(REPORT)
        assert mesh.refused() == []


@ON_THE_MESH
@pytest.mark.parametrize("test", ALL, ids=lambda one: one.name)
async def test_row(test: Case, running: Suite) -> None:
    """What another implementation of the Gateway API does with the same objects, this one would do otherwise."""
    reason, known = NOT_YET.get(test.name, ("", ()))
    found = await running.runner.run(test, lambda check: SHORT if check in known else LIMIT)
    running.results[test.name] = found
    failed = {check: wrong for check, wrong in found.items() if wrong}
    if os.environ.get("TULLE_CONFORMANCE") and failed:
        print(f'    "{test.name}": ("{reason}", {tuple(failed)!r}),')
    assert not {check: wrong for check, wrong in failed.items() if check not in known}
    passing = [check for check in known if check not in failed]
    assert not passing, f"these pass now: take them out of not_yet.py ({reason})"


def test_the_list_names_tests_of_the_suite() -> None:
    """A gap that was renamed would be held for one forever."""
    assert not ALL or NOT_YET.keys() <= {one.name for one in ALL}


@pytest.mark.parametrize("feature", sorted({feature for one in ALL for feature in one.features}))
def test_features_are_what_is_supported(feature: str) -> None:
    """`supportedFeatures` of a GatewayClass would promise what is not kept, or hide what works."""
    needing = [one for one in ALL if feature in one.features]
    if feature in SUPPORTED:
        gaps = [one.name for one in needing if one.name in NOT_YET and set(one.features) <= {*SUPPORTED}]
        assert not gaps, f"{feature} is said to be supported"
    else:
        assert FEATURES[feature]
        # A kind's core is more than these tests; that of a feature of a kind is not.
        assert feature in KINDS or any(one.name in NOT_YET for one in needing), (
            f"{feature} passes and is not said to be supported"
        )


def test_features_of_a_profile_are_in_its_report() -> None:
    """A feature that no test of this run is for would be taken for one that is missing."""
    known = {**FEATURES, "HTTPRouteCORS": "all of it"}
    profiles = report.report(ALL, {"HTTPRouteWeight": "none"}, known, date="", version="", reasons={})["profiles"]
    http, udp = (next(one for one in profiles if one["name"] == f"GATEWAY-{name}") for name in ("HTTP", "UDP"))
    assert http["extended"]["unsupportedFeatures"] == ["HTTPRouteCORS"]
    assert "HTTPRoute303RedirectStatusCode" in http["extended"]["supportedFeatures"]
    assert not [one for one in udp["extended"]["supportedFeatures"] if one.startswith("HTTPRoute")]
    assert (http["core"]["result"], http["core"]["failedTests"], udp["core"]["result"]) == (
        "failure",
        ["HTTPRouteWeight"],
        "success",
    )


@ON_THE_MESH
async def test_report(running: Suite, tmp_path: Path) -> None:
    """The report could not be read by those who compare implementations."""
    running.write(tmp_path / "report.yaml")
    text = (tmp_path / "report.yaml").read_text()
    assert "kind: ConformanceReport" in text
    assert "GATEWAY-HTTP" in text
