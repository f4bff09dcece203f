"""`tulle analyze` and `apply --wait` over a running mesh: what is found is what happens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import corpora
from tests.support.mesh import Mesh, envoy_of

pytestmark = pytest.mark.e2e

PLAINTEXT = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings-plaintext}
spec: {host: ratings, trafficPolicy: {tls: {mode: DISABLE}}}
"""
SHADOWED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - route: [{destination: {host: ratings}}]
  - match: [{headers: {end-user: {exact: jason}}}]
    directResponse: {status: 418}
"""
FIRST = "  - route: [{destination: {host: ratings}}]\n"
TURNED = SHADOWED.replace(FIRST, "") + FIRST


def rows(mesh: Mesh, *arguments: str, stdin: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(mesh.tulle("analyze", "-o", "json", *arguments, stdin=stdin, check=False).out)
    return found


def ratings(mesh: Mesh, *headers: str) -> str:
    """The status of a call from one workload to another."""
    flags = [flag for header in headers for flag in ("-H", header)]
    url = "http://ratings:9080/ratings/0"
    return mesh.inside("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *flags, url, check=False).out


@pytest.fixture
def clean(mesh: Mesh) -> Iterator[Mesh]:
    """The mesh, without what a test applied."""
    yield mesh
    mesh.kubectl("delete", "dr", "productpage", "details", "reviews", "ratings", "ratings-plaintext", "--ignore-not-found")
    mesh.kubectl("delete", "vs", "ratings", "--ignore-not-found")
    mesh.synced()


def test_the_demo_has_no_mistakes(mesh: Mesh) -> None:
    """People would see our own sample complained of."""
    ran = mesh.tulle("analyze", "-A", "--failure-threshold", "Warning", check=False)
    assert ran.code == 0, ran.text
    check = mesh.tulle("check", "-o", "json").out
    (found,) = [one for one in json.loads(check) if one["what"] == "the analysis finds no mistakes"]
    assert found["mark"] == "ok", found


def test_istios_files_beside_the_demo(clean: Mesh) -> None:
    """A file that works would be called wrong, whichever of the two applies it."""
    mesh, folder = clean, corpora("istio/samples/bookinfo/networking")
    mesh.apply("kubectl", folder / "destination-rule-all.yaml")
    for name in (
        "virtual-service-all-v1",
        "virtual-service-reviews-80-20",
        "virtual-service-ratings-test-delay",
        "bookinfo-gateway",
    ):
        ran = mesh.tulle("analyze", str(folder / f"{name}.yaml"), "--failure-threshold", "Warning", check=False)
        assert ran.code == 0, ran.text
    (shadowed,) = rows(mesh, str(folder / "fault-injection-details-v1.yaml"), "-S", "TUL0501", "-S", "TUL0215")
    assert (shadowed["code"], shadowed["path"]) == ("TUL0203", "spec.http[1]")


def test_tls_that_contradicts_is_found_and_fails(clean: Mesh) -> None:
    """The finding would be a theory: the calls must really fail, and only with it."""
    mesh = clean
    assert ratings(mesh) == "200"
    (row,) = [row for row in rows(mesh, "-", stdin=PLAINTEXT) if row["severity"] == "error"]
    assert (row["code"], row["path"], row["line"]) == ("TUL0301", "spec.trafficPolicy.tls.mode", 5)
    refused = mesh.tulle("apply", "-f", "-", stdin=PLAINTEXT, check=False)
    assert refused.code == 65
    assert "TUL0301" in refused.err
    warned = mesh.kubectl("apply", "-f", "-", stdin=PLAINTEXT)
    assert "Warning: [TUL0301] spec.trafficPolicy.tls.mode: found DISABLE" in warned.err
    mesh.synced()
    assert ratings(mesh) == "503"
    assert "TUL0301" in mesh.tulle("analyze", check=False).out
    mesh.kubectl("delete", "dr", "ratings-plaintext")
    mesh.synced()
    assert ratings(mesh) == "200"
    assert mesh.tulle("analyze").code == 0


def test_a_rule_that_nothing_reaches_is_never_reached(clean: Mesh) -> None:
    """A rule would be called dead that answers."""
    mesh = clean
    (row,) = [row for row in rows(mesh, "-", stdin=SHADOWED) if row["code"] == "TUL0203"]
    assert row["path"] == "spec.http[1]"
    mesh.tulle("apply", "--wait", "-f", "-", stdin=SHADOWED)
    assert ratings(mesh, "end-user: jason") == "200"
    assert not [row for row in rows(mesh, "-", stdin=TURNED) if row["code"] == "TUL0203"]
    mesh.tulle("apply", "--wait", "-f", "-", stdin=TURNED)
    assert ratings(mesh, "end-user: jason") == "418"


def test_apply_waits_for_every_proxy_and_names_who_is_behind(clean: Mesh, tmp_path: Path) -> None:
    """A script would go on while a proxy still has the old routes, or wait for ever for one that hangs."""
    mesh = clean
    file = tmp_path / "vs.yaml"
    file.write_text(TURNED)
    done = mesh.tulle("apply", "--wait", "-f", str(file))
    assert "proxies have revision" in done.err
    pid = envoy_of(mesh, "default/curl")
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        file.write_text(TURNED.replace("418", "419"))
        ran = mesh.tulle("apply", "--wait", "--timeout", "3s", "-f", str(file), check=False)
        assert ran.code == 1, ran.text
        assert "default/curl" in ran.err
        assert "configured" in ran.out, "what was written stays"
        ends = [line for line in ran.err.splitlines() if line.endswith(" proxies")]
        have, _slash, all_ = ends[-1].removesuffix(" proxies").partition("/")
        assert int(have) == int(all_) - 1, ran.err
    finally:
        os.kill(pid, signal.SIGCONT)
    mesh.synced()
