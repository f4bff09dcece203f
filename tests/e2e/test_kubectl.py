"""The real kubectl against the API server, with validation on: what people do with kubectl works as on Kubernetes.

The API server runs in a thread with a store in SQLite; nothing else of the mesh is needed. Every kubectl of the machine that is
not older than 1.27 is tried: the one that the tests install, and the system's.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.apiserver import running
from tests.support.corpora import corpora
from tulle.control.store.sqlite import SqliteStore

pytestmark = pytest.mark.e2e

_OLDEST = 24  # older ones validate for themselves, with other words


def _kubectls() -> list[str]:
    """Every kubectl that can be tried, the tests' own first."""
    own = Path(sys.executable).with_name("kubectl")
    found = [
        str(path)
        for path in (own, shutil.which("kubectl", path="/usr/bin:/usr/local/bin:/snap/bin"))
        if path and Path(path).exists()
    ]
    usable = []
    for path in dict.fromkeys(found):
        version = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=30)
        minor = re.search(r'"minor": "(\d+)', version.stdout)
        if minor and int(minor[1]) >= _OLDEST:
            usable.append(path)
    return usable


@dataclass
class Kubectl:
    """One kubectl with a home and a kubeconfig of its own."""

    path: str
    kubeconfig: Path
    home: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.Popen(
            [self.path, *arguments], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Standard output; fails the test where kubectl fails."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def object(self, *arguments: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self("get", *arguments, "-o", "json"))
        return found


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig of a served API."""
    folder = tmp_path_factory.mktemp("api")
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running(SqliteStore(folder / "store.db")) as served:
            served.write_kubeconfig(folder / "kubeconfig")
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield folder / "kubeconfig"
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    assert not thread.is_alive()
    loop.close()


@pytest.fixture(params=_kubectls() or [""])
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Iterator[Kubectl]:
    """A kubectl whose default namespace is empty before and after the test."""
    if not request.param:
        pytest.skip("there is no kubectl")
    command = Kubectl(request.param, kubeconfig, tmp_path)
    yield command
    for kinds in ("vs,dr,gw,we,pa", "svc,sa,cm,secret", "httproutes,gtw"):
        command("delete", kinds, "--all", "--wait=false")


NETWORKING = "istio/samples/bookinfo/networking"

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  selector: {app: cart}
  ports:
  - {port: 80, name: http, targetPort: 8080}
  - {port: 81, name: admin}
"""


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def test_apply_get_diff_delete_of_istios_files(kubectl: Kubectl) -> None:
    """Istio's own files, as they are: applied, unchanged when applied again, no difference, gone after delete."""
    rules = str(corpora(f"{NETWORKING}/destination-rule-all.yaml"))
    assert kubectl("apply", "-f", rules).count("created") == 4
    assert kubectl("apply", "-f", rules).count("unchanged") == 4
    assert kubectl.run("diff", "-f", rules).returncode == 0
    assert "reviews" in kubectl("get", "dr", "-A")
    assert kubectl("get", "destinationrules", "-o", "name").count("destinationrule.networking.istio.io/") == 4
    assert kubectl("delete", "-f", rules).count("deleted") == 4
    assert kubectl.run("get", "dr", "reviews").returncode == 1


def test_every_file_of_bookinfo_is_taken(kubectl: Kubectl) -> None:
    """Each of Istio's and the Gateway API's Bookinfo files applies with validation on."""
    folder = corpora(NETWORKING)
    known = [path for path in sorted(folder.glob("*.yaml")) if "egress" not in path.name and "certmanager" not in path.name]
    assert len(known) > 10
    for path in [*known, *sorted(corpora("istio/samples/bookinfo/gateway-api").glob("*.yaml"))]:
        done = kubectl.run("apply", "-f", str(path))
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
        assert kubectl.run("diff", "-f", str(path)).returncode == 0, path.name


def test_diff_shows_the_change_and_exits_1(kubectl: Kubectl) -> None:
    """`kubectl diff` in a pipeline tells by its exit code whether an apply would change anything; it changes nothing itself."""
    kubectl("apply", "-f", str(corpora(f"{NETWORKING}/virtual-service-all-v1.yaml")))
    split = str(corpora(f"{NETWORKING}/virtual-service-reviews-80-20.yaml"))
    before = kubectl.object("vs", "reviews")
    for flags in ((), ("--server-side", "--force-conflicts")):
        done = kubectl.run("diff", *flags, "-f", split)
        assert done.returncode == 1, done.stderr
        assert "+      weight: 80" in done.stdout
    assert kubectl.object("vs", "reviews") == before


def test_server_side_apply(kubectl: Kubectl) -> None:
    """Idempotent; a field of another manager is a conflict with its path; force takes it; what is dropped goes."""
    apply = ("apply", "--server-side", "-f", "-")
    kubectl(*apply, stdin=SERVICE)
    first = kubectl.object("svc", "cart")
    kubectl(*apply, stdin=SERVICE)
    assert kubectl.object("svc", "cart") == first
    other = changed(SERVICE, ("8080", "9090"))
    done = kubectl.run(*apply, "--field-manager=other", stdin=other)
    assert done.returncode == 1
    assert '.spec.ports[port=80,protocol="TCP"].targetPort' in done.stderr
    kubectl(*apply, "--field-manager=other", "--force-conflicts", stdin=other)
    assert "9090" in kubectl("get", "svc", "cart", "-o", "yaml", "--show-managed-fields")
    kubectl(*apply, stdin=changed(SERVICE, ("  - {port: 81, name: admin}\n", ""), ("8080", "9090")))
    kubectl(*apply, "--field-manager=other", stdin=changed(other, ("  - {port: 81, name: admin}\n", "")))
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.ports[*].port}") == "80"


def test_client_side_apply_of_a_service_merges_ports_by_number(kubectl: Kubectl) -> None:
    """kubectl sends a strategic merge patch: a removed port must go, a changed one change, the address stay."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    address = kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.clusterIP}")
    assert address.startswith("240.240.")
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=changed(SERVICE, ("  - {port: 81, name: admin}\n", "  - {port: 82, name: more}\n"), ("8080", "8081")),
    )
    shown = "jsonpath={range .spec.ports[*]}{.port}:{.targetPort} {end}{.spec.clusterIP}"
    assert kubectl("get", "svc", "cart", "-o", shown) == f"80:8081 82:82 {address}"
    assert (
        kubectl("apply", "-f", "-", stdin=changed(SERVICE, ("  - {port: 81, name: admin}\n", ""))).strip().endswith("configured")
    )
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.ports[*].port}") == "80"


def test_from_client_side_to_server_side_apply(kubectl: Kubectl) -> None:
    """People switch: kubectl moves the fields of its client-side manager, and a field that is dropped later goes."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "--server-side", "-f", "-", stdin=SERVICE)
    kubectl("apply", "--server-side", "-f", "-", stdin=changed(SERVICE, ("  - {port: 81, name: admin}\n", "")))
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.ports[*].port}") == "80"


def test_bad_objects_are_refused_with_the_sentence(kubectl: Kubectl) -> None:
    """Found and needed reach the person's terminal; nothing of the object is stored."""
    bad = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subst: v1}
      weight: abc
"""
    for flags in ((), ("--server-side",), ("--dry-run=server",)):
        done = kubectl.run("apply", *flags, "-f", "-", stdin=bad)
        assert done.returncode == 1
        assert "spec.http[0].route[0].destination.subst" in done.stderr
        assert 'found "abc" (a string); needed an integer' in done.stderr
    for command in ("create", "replace"):
        assert kubectl.run(command, "-f", "-", stdin=bad).returncode == 1
    assert "not found" in kubectl.run("get", "vs", "bad").stderr
    unknown = kubectl.run("apply", "-f", "-", stdin=changed(bad, ("VirtualService", "VirtualServise")))
    assert 'no matches for kind "VirtualServise"' in unknown.stderr
    warned = kubectl.run(
        "apply", "--validate=warn", "-f", "-", stdin=changed(bad, (", subst: v1", ""), ("abc", "1\n      wait: 2"))
    )
    assert warned.returncode == 0, warned.stderr
    assert 'unknown field "spec.http[0].route[0].wait"' in warned.stderr


def test_namespaces(kubectl: Kubectl) -> None:
    """An absent namespace is said; deleting one takes its contents."""
    missing = kubectl.run("apply", "-n", "nowhere", "-f", "-", stdin=SERVICE)
    assert 'namespaces "nowhere" not found' in missing.stderr
    kubectl("create", "namespace", "shop")
    kubectl("apply", "-n", "shop", "-f", "-", stdin=SERVICE)
    assert "cart" in kubectl("get", "svc", "-A")
    assert "Active" in kubectl("get", "ns", "shop")
    assert "shop" in kubectl("describe", "ns", "shop")
    kubectl("delete", "ns", "shop")
    assert "shop" not in kubectl("get", "svc,ns", "-A")
    assert "may not be deleted" in kubectl.run("delete", "ns", "default").stderr


def test_imperative_commands(kubectl: Kubectl) -> None:
    """`kubectl create` of the core kinds speaks protobuf."""
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "service", "clusterip", "web", "--tcp=5678:8080", "--tcp=81:http")
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[*].targetPort}") == "8080 http"
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.a}") == "b"
    assert "robot" in kubectl("get", "sa")


def test_get_in_all_forms(kubectl: Kubectl) -> None:
    """Columns, wide, selectors, sorting, names, templates."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "-f", "-", stdin=changed(SERVICE, ("name: cart", "name: till")))
    lines = kubectl("get", "svc").splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "PORT(S)", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == ["cart", "till"]
    assert "SELECTOR" in kubectl("get", "svc", "-o", "wide")
    kubectl("label", "svc", "cart", "tier=shop")
    kubectl("annotate", "svc", "cart", "note=x")
    assert kubectl("get", "svc", "-l", "tier=shop", "-o", "name") == "service/cart\n"
    assert kubectl("get", "svc", "-l", "tier notin (shop)", "-o", "name") == "service/till\n"
    assert kubectl("get", "svc", "--field-selector", "metadata.name=till", "-o", "name") == "service/till\n"
    assert "LABELS" in kubectl("get", "svc", "--show-labels")
    assert kubectl("get", "svc", "--sort-by=.metadata.name", "--no-headers").splitlines()[0].startswith("cart")
    assert "kind: Service" in kubectl("get", "svc", "cart", "-o", "yaml")
    assert "NAMESPACE" in kubectl("get", "all", "-A").splitlines()[0]
    kubectl("label", "svc", "cart", "tier-")
    assert kubectl("get", "svc", "-l", "tier") == ""


def test_describe_and_explain(kubectl: Kubectl) -> None:
    """People look things up with these."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "-f", str(corpora(f"{NETWORKING}/virtual-service-all-v1.yaml")))
    assert "240.240." in kubectl("describe", "svc", "cart")
    assert "Subset:  v1" in kubectl("describe", "vs", "reviews")
    assert "route" in kubectl("explain", "virtualservice.spec.http")
    assert "targetPort" in kubectl("explain", "service.spec.ports")
    assert "backendRefs" in kubectl("explain", "httproute.spec.rules", "--recursive")


def test_patch_replace_edit(kubectl: Kubectl) -> None:
    """The three patch languages, replace with its conflict, and an editor."""
    kubectl("apply", "-f", str(corpora(f"{NETWORKING}/virtual-service-reviews-80-20.yaml")))
    kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"gateways":["mesh"]}}')
    kubectl("patch", "vs", "reviews", "--type=json", "-p", '[{"op":"replace","path":"/spec/http/0/route/0/weight","value":70}]')
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.gateways[0]} {.spec.http[0].route[0].weight}") == "mesh 70"
    wrong = kubectl.run("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"htp":[]}}')
    assert "htp" in wrong.stderr
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("patch", "svc", "cart", "-p", '{"spec":{"ports":[{"port":80,"targetPort":1234}]}}')
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.ports[*].targetPort}") == "1234 81"
    read = kubectl("get", "vs", "reviews", "-o", "json")
    kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec":{"gateways":["other"]}}')
    late = kubectl.run("replace", "-f", "-", stdin=read)
    assert "Conflict" in late.stderr
    kubectl("replace", "-f", "-", stdin=kubectl("get", "vs", "reviews", "-o", "json"))
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.gateways[0]}") == "other"


def test_watch_and_wait(kubectl: Kubectl) -> None:
    """`get -w` prints changes as they come; `wait` returns when it is so, and for deletes."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    watch = kubectl.start("get", "svc", "-w", "-o", "name")
    assert watch.stdout is not None
    try:
        assert watch.stdout.readline() == "service/cart\n"
        kubectl("apply", "-f", "-", stdin=changed(SERVICE, ("name: cart", "name: till")))
        assert watch.stdout.readline() == "service/till\n"
    finally:
        watch.kill()
        watch.communicate()
    waiting = kubectl.start("wait", "--for=jsonpath={.metadata.labels.ready}=yes", "svc/cart", "--timeout=30s")
    kubectl("label", "svc", "cart", "ready=yes")
    out, err = waiting.communicate(timeout=60)
    assert "condition met" in out, err
    going = kubectl.start("wait", "--for=delete", "svc/till", "--timeout=30s")
    kubectl("delete", "svc", "till")
    assert going.wait(60) == 0, going.communicate()
    going.communicate()


def test_discovery(kubectl: Kubectl) -> None:
    """Kinds, short names, versions, categories."""
    resources = kubectl("api-resources")
    for word in ("virtualservices", "vs", "httproutes", "peerauthentications", "workloadentries", "svc"):
        assert re.search(rf"\b{word}\b", resources)
    versions = kubectl("api-versions").split()
    assert {"v1", "networking.istio.io/v1alpha3", "gateway.networking.k8s.io/v1"} <= set(versions)
    assert "Server Version" in kubectl("version")
    old = str(corpora(f"{NETWORKING}/virtual-service-all-v1.yaml"))
    kubectl("apply", "-f", old)
    assert kubectl("get", "virtualservices.v1alpha3.networking.istio.io", "reviews", "-o", "jsonpath={.apiVersion}").endswith(
        "v1alpha3"
    )
    assert "virtualservice.networking.istio.io/reviews" in kubectl("get", "istio-io")
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_dry_runs(kubectl: Kubectl) -> None:
    """Neither kind of dry run stores anything."""
    for flag in ("--dry-run=server", "--dry-run=client"):
        kubectl("apply", flag, "-f", "-", stdin=SERVICE)
        kubectl("create", flag, "-f", "-", stdin=SERVICE)
    assert kubectl("get", "svc", "-o", "name") == ""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("delete", "svc", "cart", "--dry-run=server")
    assert kubectl("get", "svc", "-o", "name") == "service/cart\n"
