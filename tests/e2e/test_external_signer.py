"""A mesh whose certificates are signed elsewhere, or with an intermediate that is brought."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.support.mesh import Mesh, fetch
from tests.support.pki import Pki, authority, lay_down
from tests.support.waiting import until


def test_a_mesh_over_an_http_pki(tmp_path: Path) -> None:
    """Broken: with a signer elsewhere nodes do not join, workloads get no certificates, or some are signed here."""
    pki = Pki(tmp_path / "pki", time.time())
    with pki.serve():
        settings = {
            "TULLE_CA_SIGNER_URL": pki.url,
            "TULLE_CA_SIGNER_TOKEN_FILE": str(pki.token_file),
            "TULLE_CA_SIGNER_CA_FILE": str(pki.ca_file),
            "TULLE_CA_SIGNER_ROOT_FILE": str(pki.root_file),
        }
        mesh = Mesh(settings=settings)
        try:
            mesh.up()
            assert {one.status for one in fetch(f"{mesh.base}/api/v1/products/0/reviews", 5)} == {200}
            found = json.loads(mesh.tulle("certs", "-o", "json").out)
            assert {one["issuer"] for one in found} == {"CN=pki issuing"}
            assert {one["holder"] for one in found} >= {"node/demo", "default/reviews-v1", "default/curl"}
            assert "elsewhere" in mesh.tulle("ca", "status").out
            refused = mesh.tulle("ca", "rotate", "prepare", check=False)
            assert "what signs is elsewhere" in refused.err
            assert not (mesh.home / "state" / "demo" / "ca").exists(), "no key is made here"
            pki.mode = "down"
            until("the mesh serves without it", lambda: fetch(f"{mesh.base}/productpage")[0].status == 200)
        finally:
            mesh.remove()


def test_a_mesh_with_an_intermediate_that_is_brought(tmp_path: Path) -> None:
    """Broken: with `--ca-dir` the mesh signs with a root of its own, or goes on with the old one when the files change."""
    root = authority("the root", length=1, now=time.time())
    first, second = (authority(name, length=0, by=root, now=time.time()) for name in ("first", "second"))
    lay_down(tmp_path / "ca", first, root[0])
    mesh = Mesh(settings={"TULLE_CA_DIR": str(tmp_path / "ca"), "TULLE_CERTIFICATE_LIFETIME": "20s"})

    def issuers() -> set[str]:
        return {one["issuer"] for one in json.loads(mesh.tulle("certs", "-o", "json").out)}

    def works() -> bool:
        return {one.status for one in fetch(f"{mesh.base}/api/v1/products/0/reviews", 5)} == {200}

    try:
        mesh.up()
        assert works()
        assert issuers() == {"CN=first"}
        assert "CN=first" in mesh.tulle("ca", "status").out
        lay_down(tmp_path / "ca", second, root[0])
        until("all certificates are of the second one", lambda: issuers() == {"CN=second"} and works(), 60)
    finally:
        mesh.remove()
