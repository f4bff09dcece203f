"""`tulle authz check` against a real control plane: allowed or denied, by which rule, and with which exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Shell
from tests.unit.core.envoy.test_tokens import FOREIGN, ISSUER, OURS

SPACE = "guarded"
OBJECTS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: guarded}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: guarded}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, name: http}}, {{port: 81, name: tcp, appProtocol: tcp}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web, namespace: guarded, annotations: {{tulle.dev/node: host, tulle.dev/capture: netns}}}}
spec: {{address: 10.9.1.1, labels: {{app: web}}, serviceAccount: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: free, namespace: guarded, annotations: {{tulle.dev/node: host, tulle.dev/capture: netns}}}}
spec: {{address: 10.9.1.2, labels: {{app: free}}, serviceAccount: free}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: guarded}}
spec: {{selector: {{matchLabels: {{app: web}}}}, jwtRules: [{{issuer: "{ISSUER}", jwks: {json.dumps(OURS.keys)}}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: read, namespace: guarded}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  rules:
  - from: [{{source: {{serviceAccounts: [ada]}}}}]
    to: [{{operation: {{methods: [GET]}}}}]
  - from: [{{source: {{requestPrincipals: ["{ISSUER}/ada"]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: secret, namespace: guarded}}
spec: {{selector: {{matchLabels: {{app: web}}}}, action: DENY, rules: [{{to: [{{operation: {{paths: ["/secret*"]}}}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: asked, namespace: guarded}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: CUSTOM
  provider: {{name: gate}}
  rules: [{{to: [{{operation: {{paths: ["/asked*"], ports: ["80"]}}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: gate, namespace: guarded}}
spec: {{selector: {{app: gate}}, ports: [{{port: 8000, name: http}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {{name: mesh}}
spec: {{extensionProviders: [{{name: gate, envoyExtAuthzHttp: {{service: gate.guarded, port: 8000}}}}]}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("authz") / "objects.yaml"
    made.write_text(OBJECTS)
    return made


@pytest.fixture(scope="module")
def mesh(shell: Shell, file: Path) -> Iterator[Shell]:
    done = shell("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr
    yield shell
    assert shell("delete", "meshconfig", "mesh").returncode == 0


def test_who_may(mesh: Shell, tmp_path: Path) -> None:
    """Broken: a person would be told the opposite of what the proxy does, or a script go on after a denial."""
    good, bad = tmp_path / "good.jwt", tmp_path / "bad.jwt"
    good.write_text(OURS.token())
    bad.write_text(FOREIGN.token())
    read, secret = "AuthorizationPolicy guarded/read", "AuthorizationPolicy guarded/secret spec.rules[0] (DENY)"
    for words, status, said in (
        (["web", "--from", "ada"], 0, f"allowed: {read} spec.rules[0] (ALLOW)"),
        (["web", "--from", "ada", "--method", "POST"], 1, f"denied: no rule holds of {read} (ALLOW)"),
        (["web", "--from", "ada", "--path", "//secret"], 1, f"denied: {secret}"),
        (["web", "--from", "other/ada"], 1, f"denied: no rule holds of {read} (ALLOW)"),
        (["web", "--from", "spiffe://cluster.local/ns/guarded/sa/ada"], 0, f"allowed: {read} spec.rules[0] (ALLOW)"),
        (
            ["web", "--from", "spiffe://west.example/ns/guarded/sa/ada"],
            1,
            "denied: guarded/web believes nobody of that trust domain",
        ),
        (["web"], 1, f"denied: no rule holds of {read} (ALLOW)"),
        (["web", "--jwt", str(good)], 0, f"allowed: {read} spec.rules[1] (ALLOW)"),
        (["web", "--jwt", str(bad), "--from", "ada"], 1, "denied: answered 401: no key of the issuer has signed the token"),
        (["web", "--from", "ada", "--port", "81"], 1, f"denied: {secret}"),
        (["free", "--from", "ada", "--port", "81"], 0, "allowed: no policy guards port 81 of guarded/free"),
    ):
        done = mesh("authz", "check", *words, "-n", SPACE)
        assert (done.returncode, done.stdout.partition("\n")[0]) == (status, said), done.stderr
    done = mesh("authz", "check", "nobody", "--from", "ada", "-n", SPACE)
    assert done.returncode == 2
    assert "no workload guarded/nobody" in done.stderr


def test_at_which_line(mesh: Shell, file: Path) -> None:
    """Broken: who looks for the rule that shut somebody out would look at another line."""
    written = OBJECTS.splitlines()
    done = mesh("authz", "check", "web", "--from", "ada", "-n", SPACE, "-f", str(file))
    place = done.stdout.splitlines()[1].strip()
    assert place.startswith(f"{file}:")
    assert "serviceAccounts: [ada]" in written[int(place.rpartition(":")[2]) - 1]
    done = mesh("authz", "check", "web", "--from", "ada", "--path", "/secret", "-n", SPACE)
    number, command = done.stdout.splitlines()[1].strip().removeprefix("line ").split(" of ")
    shown = mesh(*command.strip("`").split()[1:]).stdout.splitlines()
    assert "/secret*" in "".join(shown[int(number) - 1 : int(number) + 5])
    done = mesh("authz", "check", "web", "-n", SPACE, "-f", str(file))
    (line,) = done.stdout.splitlines()[1:]
    assert written[int(line.rpartition(":")[2]) - 1] == "spec:", "no rule holds of this one"


def test_somebody_else_decides(mesh: Shell, file: Path) -> None:
    """Broken: a person would be told that somebody gets in whom an authorizer may refuse."""
    words = ["authz", "check", "web", "-n", SPACE, "-f", str(file), "--path", "/asked", "--from", "ada"]
    done = mesh(*words)
    assert done.returncode == 2
    said = "undecided: gate is asked (AuthorizationPolicy guarded/asked spec.rules[0]); who agrees lets it in: "
    assert done.stdout.startswith(f"{said}AuthorizationPolicy guarded/read spec.rules[0] (ALLOW)")
    assert len(done.stdout.splitlines()) == 3
    done = mesh(*words, "--method", "POST")
    assert done.returncode == 1, "whatever he says"
