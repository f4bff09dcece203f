"""The authority of a control plane, as it is put together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.pki import authority
from tests.unit.ca.test_external import files
from tests.unit.core.compile.mesh import changes, entry
from tulle.app.ca import MeshAuthority
from tulle.app.settings import ControlPlaneSettings
from tulle.control.ca import certificates
from tulle.control.ca.nodes import NodeRecord
from tulle.control.ca.rotation import Step
from tulle.control.metrics import Metric, text
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Refused

KEYS = Keys([b"k" * 32])


async def test_ready_turns_before_what_signs_ends(tmp_path: Path) -> None:
    """Broken: an intermediate ends and with it every certificate of the mesh, and nothing has said so while there was time."""
    now = time.time()
    top = authority("top", length=1, now=now)
    soon = authority("soon", length=0, by=top, now=now - 1e6 + 3 * 3600)
    files(tmp_path / "brought", soon, top[0])
    settings = ControlPlaneSettings(state_dir=tmp_path / "state", ca_dir=tmp_path / "brought", certificate_lifetime=3600.0)
    ca = await MeshAuthority.open(settings, MemoryStore(), KEYS)
    assert ca.signer.bundle == certificates.pem(top[0])
    assert ca.near_end() == ""
    longer = ControlPlaneSettings(state_dir=tmp_path / "state", ca_dir=tmp_path / "brought", certificate_lifetime=2 * 3600.0)
    ca = await MeshAuthority.open(longer, MemoryStore(), KEYS)
    assert "ends in 3.0 hours" in ca.near_end()


async def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    """Broken: a control plane that was to sign elsewhere signs here."""
    for settings in (
        ControlPlaneSettings(state_dir=tmp_path, ca_signer_url="https://pki/v1/pki/sign-verbatim/x"),
        ControlPlaneSettings(
            state_dir=tmp_path,
            ca_signer_url="https://pki/v1/pki/sign-verbatim/x",
            ca_signer_token_file=tmp_path / "t",
            ca_signer_root_file=tmp_path / "r",
            ca_dir=tmp_path,
        ),
        ControlPlaneSettings(state_dir=tmp_path / "s", ca_dir=tmp_path / "nothing"),
    ):
        with pytest.raises(Refused):
            await MeshAuthority.open(settings, MemoryStore(), KEYS)


async def test_a_dead_node_is_left_out(tmp_path: Path) -> None:
    """Broken: a host that burned down stands in the way of every rotation, or others are not waited for because of it."""
    ca = await MeshAuthority.open(ControlPlaneSettings(state_dir=tmp_path), MemoryStore(), KEYS)
    pipeline = Pipeline()
    pipeline.take_roots(ca.signer.bundle)
    entries = [entry(name, f"10.0.0.{at}", {"app": name}, node=f"host-{at}") for at, name in ((7, "dead"), (8, "alive"))]
    pipeline.commit(changes(entries))

    async def proxies() -> Sequence[Mapping[str, Any]]:
        return ()

    async def changed() -> None:
        """Nobody has to hear of it."""

    ca.wire(pipeline, proxies, changed)
    for node in ("host-7", "host-8"):
        await ca.nodes.put(node, NodeRecord(("*/*",), time.time(), time.time() + 600))
    await ca.step(Step.PREPARE, False)
    waits = (await ca.status())["waits"]
    assert len(waits) == 4
    await ca.revocations.revoke("spiffe://cluster.local/node/host-7", "ada", "burned down")
    await ca.revocations.load()
    waits = (await ca.status())["waits"]
    assert waits == ["proxy default/alive is not connected (node host-8)", "node host-8 has not said that it has the bundle"]
    with pytest.raises(Refused, match="2 would be cut off"):
        await ca.step(Step.ACTIVATE, False)
    await ca.tokens.create(["*/*"], 600)
    assert (await ca.status())["tokens"] == {"ending": 1, "void": 0}
    await ca.step(Step.ACTIVATE, True)
    assert (await ca.status())["tokens"] == {"ending": 0, "void": 1}


def test_metrics_are_prometheus_text() -> None:
    """Broken: a label with a quote makes the whole page unreadable."""
    found = text([Metric("a_total", "counter", "What.", [({"x": 'q"\\\n'}, 2.0)]), Metric("b", "gauge", "That.", [({}, 1.5e9)])])
    assert found.splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{x="q\\"\\\\\\n"} 2',
        "# HELP b That.",
        "# TYPE b gauge",
        "b 1500000000",
    ]
