"""history and rollback against a real control plane: what a person sees, and what a script relies on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.unit.cli.conftest import Done, Shell

CANARY = base64.b64encode(b"canary-that-nobody-may-see").decode()


@pytest.fixture
def namespace(shell: Shell, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    name = f"h{abs(hash(request.node.name)) % 10**8}"
    apply(shell, "", f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
    yield name
    shell("delete", "ns", name, "--ignore-not-found")


def apply(shell: Shell, namespace: str, text: str) -> None:
    done = shell("apply", *(("-n", namespace) if namespace else ()), "-f", "-", stdin=text)
    assert done.returncode == 0, done.stderr


def route(shell: Shell, namespace: str, name: str, subset: str) -> int:
    apply(
        shell,
        namespace,
        f"""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http:
  - route:
    - destination: {{host: {name}, subset: {subset}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  subsets:
  - {{name: {subset}, labels: {{version: {subset}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 9080}}]}}
""",
    )
    return newest(shell)


def newest(shell: Shell) -> int:
    return int(json.loads(shell("history", "--limit", "1", "-o", "json").stdout)["changes"][0]["revision"])


def fine(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


def subset(shell: Shell, namespace: str, name: str) -> str:
    found = json.loads(fine(shell("get", "vs", name, "-n", namespace, "-o", "json")).stdout)
    return str(found["spec"]["http"][0]["route"][0]["destination"]["subset"])


def test_history_in_every_form(shell: Shell, namespace: str) -> None:
    """The table for a person, JSON for a script, the diff for whoever wants to know what it was."""
    first = route(shell, namespace, "reviews", "v1")
    route(shell, namespace, "reviews", "v2")
    shell("delete", "vs", "reviews", "-n", namespace)
    table = fine(shell("history", "vs", "reviews", "-n", namespace)).stdout.splitlines()
    assert table[0].split() == ["REVISION", "TIME", "AUTHOR", "ADDRESS", "VERB", "OBJECT"]
    assert [line.split()[2:] for line in table[1:]] == [
        ["tulle-admin", "127.0.0.1", verb, "virtualservices.networking.istio.io/reviews"] for verb in ("delete", "apply", "apply")
    ]
    everything = json.loads(fine(shell("history", "-n", namespace, "-o", "json")).stdout)["changes"]
    assert {change["kind"] for change in everything} == {"VirtualService", "DestinationRule", "Service"}
    assert everything[-1]["revision"] <= first
    diff = fine(shell("history", "vs", "reviews", "-n", namespace, "--diff", "--limit", "2")).stdout
    assert "delete by tulle-admin from 127.0.0.1" in diff
    assert "-            subset: v1\n+            subset: v2" in diff
    assert fine(shell("history", "cm", "-n", namespace)).stdout == ""
    assert "NAMESPACE" in fine(shell("history", "--limit", "3")).stdout
    assert shell("history", "vs,dr").returncode == 64


def test_one_object_back(shell: Shell, namespace: str) -> None:
    """The everyday case: the last change was wrong."""
    first = route(shell, namespace, "reviews", "v1")
    route(shell, namespace, "reviews", "v2")
    tried = fine(shell("rollback", "vs", "reviews", "-n", namespace, "--to", str(first), "--dry-run"))
    assert "-            subset: v2\n+            subset: v1" in tried.stdout
    assert subset(shell, namespace, "reviews") == "v2"
    done = fine(shell("rollback", "vs", "reviews", "-n", namespace, "--to", str(first)))
    assert f"rolled back to revision {first}; this is revision {newest(shell)}" in done.stdout
    assert subset(shell, namespace, "reviews") == "v1"
    again = fine(shell("rollback", "vs", "reviews", "-n", namespace, "--to", str(first)))
    assert again.stdout == ""
    assert "nothing to do" in again.stderr
    assert (
        fine(shell("history", "vs", "reviews", "-n", namespace, "--limit", "1")).stdout.splitlines()[1].split()[4] == "rollback"
    )


def test_the_whole_mesh_back(shell: Shell, namespace: str) -> None:
    """After a bad deployment: all of it at once, shown first, and not without a yes."""
    at = route(shell, namespace, "reviews", "v1")
    route(shell, namespace, "reviews", "v2")
    route(shell, namespace, "ratings", "v1")
    fine(shell("delete", "svc", "reviews", "-n", namespace))
    unsure = shell("rollback", "--to-revision", str(at))
    assert unsure.returncode == 64
    assert "needed --yes" in unsure.stderr
    assert "+++ rollback/services/" in unsure.stdout
    assert subset(shell, namespace, "reviews") == "v2"
    done = fine(shell("rollback", "--to-revision", str(at), "--yes"))
    assert f"rolled back to revision {at}" in done.stdout
    assert subset(shell, namespace, "reviews") == "v1"
    assert fine(shell("get", "vs", "-n", namespace, "-o", "name")).stdout.splitlines() == [
        "virtualservice.networking.istio.io/reviews"
    ]
    assert "reviews" in fine(shell("get", "svc", "-n", namespace)).stdout


def test_secrets_are_never_shown(shell: Shell, namespace: str) -> None:
    """A diff ends up in terminals, logs and merge requests."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: %s}\n"
    apply(shell, namespace, text % CANARY)
    at = newest(shell)
    said = shell("diff", "-n", namespace, "-f", "-", stdin=text % base64.b64encode(b"other").decode()).stdout
    assert "[redacted, changed]" in said
    apply(shell, namespace, text % base64.b64encode(b"other").decode())
    for argv in (
        ["history", "secret", "s", "-n", namespace, "--diff"],
        ["history", "secret", "s", "-n", namespace, "-o", "yaml"],
        ["history", "-o", "json", "--limit", "5"],
        ["rollback", "secret", "s", "-n", namespace, "--to", str(at)],
    ):
        said += fine(shell(*argv)).stdout
    assert "[redacted, changed]" in said
    assert CANARY not in said
    assert json.loads(fine(shell("get", "secret", "s", "-n", namespace, "-o", "json")).stdout)["data"] == {"password": CANARY}


def test_what_cannot_be(shell: Shell, namespace: str) -> None:
    """Typed wrong is 64; a revision that is not there is said in a sentence."""
    for argv in (
        [],
        ["--to", "3"],
        ["vs", "reviews"],
        ["vs", "--to", "3"],
        ["vs", "a", "b", "--to", "3"],
        ["vs", "reviews", "--to-revision", "3"],
        ["--to-revision", "0"],
    ):
        assert shell("rollback", *argv).returncode == 64, argv
    future = shell("rollback", "--to-revision", "99999999", "--yes")
    assert future.returncode == 65
    assert "needed one of the past: the newest is" in future.stderr
