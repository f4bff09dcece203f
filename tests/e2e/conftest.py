"""One demo for the tests that only use it; tests that break things start their own."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.gateways import Gateways
from tests.support.mesh import Mesh
from tests.support.world import World, outer_world

# The files that take longest, which come first: at the end only short ones are left, so that no worker waits for the other.
LONGEST = (
    "test_etcd",
    "test_outages",
    "test_page",
    "test_protocols",
    "test_rollout",
    "test_resilience",
    "test_draining",
    "test_samples",
    "test_node_agent",
    "test_prometheus",
    "test_entries",
    "test_outbound",
    "test_rotation",
    "test_access_logs",
    "test_global_rate_limits",
    "test_federation",
    "test_workload_api",
    "test_external_signer",
    "test_capture_kinds",
    "test_cgroup_mesh",
    "test_uninstall",
    "test_bookinfo",
    "test_metrics",
    "test_real_clients",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--no-loadscope-reorder` the workers take the files in this order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure: what the programs of each mesh said last. Such a test may fail where nobody can look at the machine."""
    report = yield
    if report.failed:
        said = {**Mesh.last_words, **{one.home: one.logs() for one in Mesh.running}}
        report.sections += [(f"logs of the mesh in {home}", words) for home, words in said.items() if words]
    Mesh.last_words.clear()
    return report


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """A running demo. Whoever changes its objects puts them back."""
    running = Mesh()
    started = running.up()
    assert started.code == 0
    yield running
    running.remove()


@pytest.fixture(autouse=True)
def nothing_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test in which an Envoy refuses its configuration fails, though it may take the next one."""
    yield
    if "mesh" in request.fixturenames:
        mesh = request.getfixturevalue("mesh")
        assert mesh.refused() == []


@pytest.fixture
def gateways(mesh: Mesh) -> Iterator[Gateways]:
    """The demo's ingress, for objects of this test's own."""
    objects = Gateways(mesh)
    yield objects
    objects.remove()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A demo whose machine asks the tests' own resolver. Whoever changes its objects puts them back."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o755)
    with outer_world(folder) as made:
        yield made
