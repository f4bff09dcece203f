"""`tulle describe` against a real control plane: of a Service, of a host, of one request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Shell

SPACE = "described"
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: described}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: described}
spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1, namespace: described, annotations: {tulle.dev/node: host, tulle.dev/capture: netns}}
spec: {address: 10.9.0.1, labels: {app: reviews, version: v1}, serviceAccount: reviews}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: described}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {regex: "/r.*"}, headers: {end-user: {exact: jason}}}]
    rewrite: {uri: /new}
    timeout: 3s
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /stop}}]
    directResponse: {status: 503}
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new, redirectCode: 302}
  - match: [{uri: {prefix: /r}}]
    route: [{destination: {host: reviews}}]
"""


@pytest.fixture(scope="module")
def mesh(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    file: Path = tmp_path_factory.mktemp("describe") / "objects.yaml"
    file.write_text(OBJECTS)
    done = shell("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr
    return shell


def asked(mesh: Shell, url: str, *more: str) -> list[str]:
    done = mesh("describe", "request", "get", url, "--from", "reviews-v1", "-n", SPACE, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_service_is_described(mesh: Shell) -> None:
    """Broken: who speaks of a Service, and what comes of it, could be put together only by reading every object."""
    done = mesh("describe", "service", "reviews", "-n", SPACE)
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "reviews.described.svc.cluster.local"
    assert "1 VirtualService described/reviews routes" in lines
    assert "path prefix /stop answered 503 VirtualService described/reviews spec.http[1]" in lines
    assert "reviews.described.svc.cluster.local:9080 10.9.0.1:9080 described/reviews-v1 healthy, mTLS" in lines
    told = json.loads(mesh("describe", "host", "reviews.described", "-o", "json").stdout)
    assert [one["object"] for one in told["objects"]] == ["VirtualService described/reviews"]


def test_a_request_is_followed(mesh: Shell) -> None:
    """Broken: one could only guess, or try in traffic, which rule a request meets."""
    lines = asked(mesh, "http://reviews:9080/r/1?a=b", "-H", "End-User: jason")
    assert "Route         described/reviews.http[0], VirtualService described/reviews spec.http[0]" in lines
    assert "Outcome       100% to reviews.described.svc.cluster.local:9080" in lines
    assert "As            /new?a=b of reviews:9080" in lines
    assert "Besides       path: prefix becomes /new; timeout 3 s" in lines
    lines = asked(mesh, "http://reviews:9080/r/1")
    assert "Not           described/reviews.http[0]: header end-user is absent" in lines
    assert "Outcome       answered 503 by the proxy itself" in asked(mesh, "http://reviews:9080/stop")
    assert "Outcome       redirected (302) to http://reviews:9080/new" in asked(mesh, "http://reviews:9080/old")
    assert "Outcome       no route holds: answered 404" in asked(mesh, "http://reviews:9080/x")
    assert "Outcome       to where it was going: the mesh does not know the host" in asked(mesh, "http://a.b:9080/")
    assert asked(mesh, "http://reviews:1/")[0].startswith("Port 1 has no routes in this proxy")
    told = json.loads("\n".join(asked(mesh, "http://reviews:9080/stop", "-o", "json")))
    assert told["decision"]["status"] == 503


def test_what_is_not_there_is_said(mesh: Shell) -> None:
    """Broken: a wrong name would be answered with an empty table, or a stack trace."""
    done = mesh("describe", "service", "nobody", "-n", SPACE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing in the mesh speaks of nobody.described.svc.cluster.local" in done.stderr
    done = mesh("describe", "request", "GET", "http://reviews:9080/", "--from", "nobody", "-n", SPACE)
    assert done.returncode == 1
    assert "no workload described/nobody with a proxy" in done.stderr
    assert mesh("describe", "request", "GET", "reviews:9080", "--from", "a").returncode == 64
