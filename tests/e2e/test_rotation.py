"""Certificates rotate under load, and nobody notices."""

from __future__ import annotations

import time

from tests.e2e.test_outages import load, until
from tests.support.mesh import Mesh


def expiry(mesh: Mesh, workload: str) -> str:
    """The serial number of the certificate that a workload's Envoy uses now."""
    return mesh.tulle("proxy", "config", "secret", workload).out


def test_leaves_rotate_three_times_without_a_failed_request() -> None:
    """A certificate that is renewed in place must not cost a request, nor one that runs out a connection."""
    mesh = Mesh(settings={"TULLE_CERTIFICATE_LIFETIME": "16s"})
    try:
        mesh.up()
        with load(mesh) as running:
            seen = {expiry(mesh, "reviews-v1")}
            began = time.monotonic()

            def rotated() -> bool:
                seen.add(expiry(mesh, "reviews-v1"))
                return len(seen) > 3

            until("three rotations", rotated, 90)
            assert time.monotonic() - began > 16, "long enough for the first certificate to have run out"
        assert sum(running.seen.values()) > 200, running.seen
        assert running.failures == 0, running.seen
    finally:
        mesh.remove()
