"""Certificates rotate under load, and nobody notices."""

from __future__ import annotations

import asyncio
import time

from tests.e2e.test_outages import load, until
from tests.support.mesh import Mesh
from tulle.client.node_api import NodeClient

LIFETIME = 16  # seconds


def serial(mesh: Mesh, workload: str) -> str:
    """The serial number of the certificate that a workload's Envoy uses now."""

    async def ask() -> str:
        async with NodeClient(mesh.home / "run" / "demo" / "node.sock") as node:
            certificates = (await node.certs(f"default/{workload}"))["certificates"]
        return str(next(chain["cert_chain"][0]["serial_number"] for chain in certificates if chain.get("cert_chain")))

    return asyncio.run(ask())


def test_leaves_rotate_three_times_without_a_failed_request() -> None:
    """A certificate that is renewed in place must not cost a request, nor one that runs out a connection."""
    mesh = Mesh(settings={"TULLE_CERTIFICATE_LIFETIME": f"{LIFETIME}s"})
    try:
        mesh.up()
        with load(mesh) as running:
            seen: set[str] = set()
            began = time.monotonic()

            def rotated() -> bool:
                seen.add(serial(mesh, "reviews-v1"))
                return len(seen) > 3 and time.monotonic() - began > 2 * LIFETIME

            until("three rotations, and the first certificates have run out", rotated, 90)
        assert sum(running.seen.values()) > 200, running.seen
        assert running.failures == 0, running.seen
    finally:
        mesh.remove()
