"""kubectl apply and diff, from the client and on the server: what people and GitOps tools do all day."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import corpora
from tests.support.kubectl import ROUTE, SERVICE, Kubectl, changed, kubectls

pytestmark = pytest.mark.e2e

NETWORKING = "istio/samples/bookinfo/networking"


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
    files = [str(path) for path in (*known, *sorted(corpora("istio/samples/bookinfo/gateway-api").glob("*.yaml")))]
    if kubectl.path != kubectls()[0]:  # all at once, as people do with a folder
        kubectl("apply", *(word for path in files for word in ("-f", path)))
        return
    for path in files:
        done = kubectl.run("apply", "-f", path)
        assert done.returncode == 0, f"{path}: {done.stderr}"
        assert kubectl.run("diff", "-f", path).returncode == 0, path


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


def test_dry_runs(kubectl: Kubectl) -> None:
    """Neither kind of dry run stores anything."""
    for flag in ("--dry-run=server", "--dry-run=client"):
        kubectl("apply", flag, "-f", "-", stdin=SERVICE)
        kubectl("create", flag, "-f", "-", stdin=SERVICE)
    assert kubectl("get", "svc", "-o", "name") == ""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("delete", "svc", "cart", "--dry-run=server")
    assert kubectl("get", "svc", "-o", "name") == "service/cart\n"


def test_a_folder_with_its_sub_folders(kubectl: Kubectl, tmp_path: Path) -> None:
    """A repository of configuration is applied, compared and deleted as a whole."""
    (tmp_path / "mesh" / "deep").mkdir(parents=True)
    (tmp_path / "mesh" / "service.yaml").write_text(SERVICE)
    (tmp_path / "mesh" / "deep" / "route.yaml").write_text(ROUTE)
    folder = str(tmp_path / "mesh")
    assert kubectl("apply", "-R", "-f", folder).count("created") == 2
    assert kubectl.run("diff", "-R", "-f", folder).returncode == 0
    assert kubectl("delete", "-R", "-f", folder).count("deleted") == 2


def test_kustomize(kubectl: Kubectl, tmp_path: Path) -> None:
    """What most GitOps repositories are made of: names, labels and images changed over a base."""
    (tmp_path / "base.yaml").write_text(SERVICE + "---" + ROUTE)
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [base.yaml]\nnamePrefix: eu-\nlabels: [{pairs: {env: eu}, includeSelectors: true}]\n"
        "configMapGenerator: [{name: settings, literals: [a=b]}]\n"
    )
    assert kubectl("apply", "-k", str(tmp_path)).count("created") == 3
    assert kubectl("get", "svc,vs,cm", "-l", "env=eu", "-o", "name").count("eu-") == 3
    assert kubectl("get", "svc", "eu-cart", "-o", "jsonpath={.spec.selector.env}") == "eu"
    assert kubectl.run("diff", "-k", str(tmp_path)).returncode == 0
    assert kubectl("delete", "-k", str(tmp_path)).count("deleted") == 3


def test_prune_by_applyset(kubectl: Kubectl, tmp_path: Path) -> None:
    """What is no longer in the folder goes, and nothing else."""
    (tmp_path / "a.yaml").write_text(SERVICE)
    (tmp_path / "b.yaml").write_text(ROUTE)
    kubectl("create", "configmap", "bystander")
    apply = ("apply", "-n", "default", "--prune", "--applyset=shop", "-f", str(tmp_path))
    kubectl(*apply, KUBECTL_APPLYSET="true")
    (tmp_path / "b.yaml").unlink()
    assert "virtualservice.networking.istio.io/reviews pruned" in kubectl(*apply, KUBECTL_APPLYSET="true")
    assert kubectl("get", "svc,vs,cm", "-o", "name").split() == ["service/cart", "configmap/bystander"]


def test_prune_by_label(kubectl: Kubectl) -> None:
    """The older way, with a list of kinds."""
    labelled = changed(SERVICE, ("{name: cart}", "{name: cart, labels: {set: shop}}"))
    both = labelled + "---" + changed(labelled, ("name: cart,", "name: till,"))
    flags = ("apply", "--prune", "-l", "set=shop", "--prune-allowlist=core/v1/Service", "-f", "-")
    kubectl(*flags, stdin=both)
    assert "service/till pruned" in kubectl(*flags, stdin=labelled)


def test_the_client_s_note_stays_true(kubectl: Kubectl) -> None:
    """From client to server and back again: a field that is dropped later must go, whoever applied it."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    more = changed(SERVICE, ("selector: {app: cart}", "selector: {app: cart, tier: shop}"))
    kubectl("apply", "--server-side", "-f", "-", stdin=more)
    assert "tier" in kubectl("apply", "view-last-applied", "svc", "cart")
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert kubectl("get", "svc", "cart", "-o", "jsonpath={.spec.selector}") == '{"app":"cart"}'


def test_apply_of_a_status(kubectl: Kubectl) -> None:
    """Controllers apply status on the server, through its own path."""
    kubectl("apply", "--server-side", "-f", "-", stdin=ROUTE)
    status = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
status:
  conditions: [{type: Ready, status: "True"}]
"""
    kubectl("apply", "--server-side", "--subresource=status", "--field-manager=controller", "-f", "-", stdin=status)
    shown = kubectl.object("vs", "reviews", "--show-managed-fields")
    assert shown["status"]["conditions"][0]["type"] == "Ready"
    assert shown["spec"]["hosts"] == ["reviews"]
    assert [one["subresource"] for one in shown["metadata"]["managedFields"] if one["manager"] == "controller"] == ["status"]
