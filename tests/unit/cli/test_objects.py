"""apply, get, delete, diff, wait against a real control plane: kubectl's words, kubectl's exit codes, nothing half applied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Shell

SERVICE = """apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
"""
RULE = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
"""
ROUTE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviews
        subset: v1
"""
ALL = f"{ROUTE}---\n{RULE}---\n{SERVICE}"  # what is needed first stands last


@pytest.fixture
def namespace(shell: Shell, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    done = shell("apply", "-f", "-", stdin=f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
    assert done.returncode == 0, done.stderr
    yield name
    for kind in ("vs", "dr", "svc"):
        shell("delete", kind, "--all", "-n", name)
    shell("delete", "ns", name)


def test_created_unchanged_configured(shell: Shell, namespace: str) -> None:
    """People and scripts read from these words what happened; `unchanged` must not write."""
    first = shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        "service/reviews created",
        "destinationrule.networking.istio.io/reviews created",
        "virtualservice.networking.istio.io/reviews created",
    ]
    shell.judged(namespace, "vs/reviews")
    before = shell.revision("vs", "reviews", "-n", namespace)
    second = shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    assert all(line.endswith(" unchanged") for line in second.stdout.splitlines())
    assert shell.revision("vs", "reviews", "-n", namespace) == before
    third = shell("apply", "-n", namespace, "-f", "-", stdin=RULE.replace("version: v1", "version: v2"))
    assert third.stdout == "destinationrule.networking.istio.io/reviews configured\n"


def test_a_mistake_anywhere_writes_nothing(shell: Shell, namespace: str, tmp_path: Path) -> None:
    """A folder would be half applied: the good file's objects would be there."""
    (tmp_path / "a.yaml").write_text(SERVICE)
    (tmp_path / "b.yaml").write_text(ROUTE)  # no rule defines its subset
    done = shell("apply", "-n", namespace, "-f", str(tmp_path))
    assert done.returncode == 65
    assert done.stdout == ""
    assert (
        f"{tmp_path}/b.yaml:10:9: VirtualService {namespace}/reviews: spec.http[0].route[0].destination.subset: " in done.stderr
    )
    assert shell.revision("svc", "reviews", "-n", namespace) == ""


def test_dry_runs_write_nothing(shell: Shell, namespace: str) -> None:
    """Looking would change what is looked at."""
    for kind in ("client", "server"):
        done = shell("apply", "-n", namespace, f"--dry-run={kind}", "-f", "-", stdin=SERVICE)
        assert done.returncode == 0, done.stderr
        assert "dry run" in done.stdout
        assert shell.revision("svc", "reviews", "-n", namespace) == ""


def test_a_write_that_fails_midway_is_told(shell: Shell, namespace: str) -> None:
    """Nobody would know what of a file is in the mesh."""
    owned_by_somebody(shell, namespace)
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: midway}\n"
    mine = SERVICE.replace("{name: reviews}", "{name: reviews, labels: {tier: two}}")
    done = shell("apply", "-n", namespace, "-f", "-", stdin=f"{account}---\n{mine}")
    shell("delete", "sa", "midway", "-n", namespace)
    assert done.returncode == 1, done.stderr
    assert "applied: serviceaccount/midway" in done.stderr
    assert "not applied: service/reviews" in done.stderr


def owned_by_somebody(shell: Shell, namespace: str) -> None:
    """A Service reviews whose label is another field manager's."""
    import asyncio

    from tulle.client.api import ApiClient

    async def other() -> None:
        async with ApiClient.from_kubeconfig(shell.env["TULLE_STATE_DIR"] + "/kubeconfig") as api:
            raw = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "reviews", "namespace": namespace, "labels": {"tier": "one"}},
                "spec": {"ports": [{"name": "http", "port": 9080}]},
            }
            await api.apply(raw, field_manager="somebody")

    asyncio.run(other())


def test_fields_of_another_are_not_taken_in_silence(shell: Shell, namespace: str) -> None:
    """Two who manage one field would overwrite each other without a word."""
    owned_by_somebody(shell, namespace)
    mine = SERVICE.replace("{name: reviews}", "{name: reviews, labels: {tier: two}}")
    refused = shell("apply", "-n", namespace, "-f", "-", stdin=mine)
    assert refused.returncode == 1
    assert "somebody" in refused.stderr
    assert "--force-conflicts" in refused.stderr
    assert shell("apply", "-n", namespace, "--force-conflicts", "-f", "-", stdin=mine).returncode == 0


def test_diff_exits_as_diff_does(shell: Shell, namespace: str) -> None:
    """CI asks by exit status whether anything would change."""
    new = shell("diff", "-n", namespace, "-f", "-", stdin=SERVICE)
    assert new.returncode == 1, new.stderr
    assert "+kind: Service" in new.stdout
    shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    same = shell("diff", "-n", namespace, "-f", "-", stdin=ALL)
    assert (same.returncode, same.stdout) == (0, "")
    other = shell("diff", "-n", namespace, "-f", "-", stdin=RULE.replace("version: v1", "version: v7"))
    assert other.returncode == 1
    assert "-        version: v1" in other.stdout
    assert "+        version: v7" in other.stdout
    warm = RULE.replace("{name: v1,", "{name: v1, trafficPolicy: {loadBalancer: {warmup: {duration: 1s, aggression: 2}}},")
    assert shell("apply", "-n", namespace, "-f", "-", stdin=warm).returncode == 0
    written = warm.replace("{duration: 1s, aggression: 2}", "{aggression: 2.0, duration: 1s}")
    same = shell("diff", "-n", namespace, "-f", "-", stdin=written)
    assert (same.returncode, same.stdout) == (0, "")
    assert shell("diff", "-n", namespace, "-f", "-", stdin=RULE.replace("host", "hst")).returncode == 65
    assert shell("diff", "-f", "/no/such/file").returncode == 2


def test_get_in_every_form(shell: Shell, namespace: str) -> None:
    """What kubectl shows in a form, this shows in the same form."""
    shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    header, row = shell("get", "vs", "-n", namespace).stdout.splitlines()
    assert header.split() == ["NAME", "GATEWAYS", "HOSTS", "AGE"]
    assert row.split()[:2] == ["reviews", '["reviews"]']
    assert shell("get", "vs/reviews", "-n", namespace, "-o", "name").stdout == "virtualservice.networking.istio.io/reviews\n"
    one = json.loads(shell("get", "vs", "reviews", "-n", namespace, "-o", "json").stdout)
    assert (one["kind"], one["metadata"]["name"]) == ("VirtualService", "reviews")
    many = json.loads(shell("get", "vs,dr", "-n", namespace, "-o", "json").stdout)
    assert [item["kind"] for item in many["items"]] == ["VirtualService", "DestinationRule"]
    everywhere = shell("get", "svc", "-A").stdout.splitlines()
    assert everywhere[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert any(line.split()[:2] == [namespace, "reviews"] for line in everywhere)
    assert shell("get", "svc", "-n", namespace, "-l", "app=none").stderr == f"No resources found in namespace {namespace}.\n"
    absent = shell("get", "vs", "nope", "-n", namespace)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert '"nope" not found' in absent.stderr


def test_what_get_prints_apply_takes(shell: Shell, namespace: str) -> None:
    """Edit and put back, the oldest habit, would be refused."""
    shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    shell.judged(namespace, "dr/reviews", "vs/reviews")
    for form in ("yaml", "json"):
        shown = shell("get", "vs,dr,svc", "-n", namespace, "-o", form).stdout
        done = shell("apply", "-f", "-", stdin=shown)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" unchanged") == 3


def test_watch_shows_what_happens(shell: Shell, namespace: str) -> None:
    """`get -w` would show the start and nothing after it."""
    import subprocess
    import sys

    argv = [sys.executable, "-u", "-m", "tulle", "get", "svc", "-n", namespace, "-w", "-o", "name"]
    shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE)
    with subprocess.Popen(argv, env=shell.env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "service/reviews\n"
        shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE.replace("name: reviews}", "name: ratings}"))
        assert watching.stdout.readline() == "service/ratings\n"
        watching.terminate()


def test_delete_by_name_file_and_label(shell: Shell, namespace: str) -> None:
    """An object that should be gone would stay, or its absence would look like success."""
    shell("apply", "-n", namespace, "-f", "-", stdin=ALL)
    named = shell("delete", "vs", "reviews", "-n", namespace)
    assert named.stdout == 'virtualservice.networking.istio.io "reviews" deleted\n'
    by_file = shell("delete", "-n", namespace, "-f", "-", stdin=ALL)
    assert by_file.returncode == 1, "the VirtualService was gone already"
    assert by_file.stdout.splitlines() == [
        'destinationrule.networking.istio.io "reviews" deleted',
        'service "reviews" deleted',
    ]
    assert shell("delete", "-n", namespace, "--ignore-not-found", "-f", "-", stdin=ALL).returncode == 0
    shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE.replace("{name: reviews}", "{name: reviews, labels: {gone: soon}}"))
    assert shell("delete", "svc", "-l", "gone=soon", "-n", namespace).stdout == 'service "reviews" deleted\n'


def test_wait_and_status_without_proxies(shell: Shell) -> None:
    """A mesh without proxies is synced, not an error."""
    done = shell("wait", "--for=synced")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("synced to revision ")
    assert shell("proxy", "status").stdout == "no proxy is connected\n"
    missing = shell("proxy", "status", "reviews-v1")
    assert missing.returncode == 1
    assert "default/reviews-v1 is not connected" in missing.stderr


def test_check_tells_what_is_good_and_what_is_not(shell: Shell) -> None:
    """`tulle check` would miss that no node runs here, or fail where all that is needed is there."""
    done = shell("check", "-o", "json")
    found = {it["what"]: it["mark"] for it in json.loads(done.stdout)}
    assert found["Envoy runs"] == "ok"
    assert found["the control plane answers"] == "ok"
    assert found["the kubeconfig's certificate is valid"] == "ok"
    assert found["every proxy has what was written"] == "ok"
    assert found["the analysis finds no mistakes"] in ("ok", "warning")
    assert found["the node agent answers"] == "warning"
    assert done.returncode == 0


def test_tokens_and_kubeconfig(shell: Shell) -> None:
    """A token on standard output alone, so that `$(tulle token create)` is the token; the path alone for kubectl."""
    long = shell("token", "create", "--ttl", "400d")
    assert long.returncode == 1  # what was asked for reached the server
    assert "needed more than 0 and at most a year" in long.stderr
    done = shell("token", "create", "--allow", "shop/*", "--ttl", "10m")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
    assert len(done.stdout) > 20
    assert shell("kubeconfig").stdout == shell.env["TULLE_STATE_DIR"] + "/kubeconfig\n"
    assert "control plane" in shell("version", "--server").stdout
