"""kubectl get -w and wait."""

from __future__ import annotations

import pytest

from tests.support.kubectl import ROUTE, SERVICE, Kubectl, changed

pytestmark = pytest.mark.e2e

NETWORKING = "istio/samples/bookinfo/networking"


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


def test_waiting_for_conditions(kubectl: Kubectl) -> None:
    """`kubectl wait` returns when the condition is so, at once when it is so already, and says when its time is up."""
    kubectl("apply", "-f", "-", stdin=ROUTE)
    late = kubectl.run("wait", "--for=condition=Reconciled", "vs/reviews", "--timeout=1s")
    assert late.returncode == 1
    assert "timed out" in late.stderr
    waiting = kubectl.start("wait", "--for=condition=Reconciled", "vs/reviews", "--timeout=30s")
    status = '{"status":{"conditions":[{"type":"Reconciled","status":"True"}]}}'
    kubectl("patch", "vs", "reviews", "--subresource=status", "--type=merge", "-p", status)
    out, err = waiting.communicate(timeout=60)
    assert "condition met" in out, err
    kubectl("wait", "--for=condition=Reconciled=true", "vs", "--all", "--timeout=5s")
    kubectl("wait", "--for=jsonpath={.status.conditions[0].type}=Reconciled", "vs/reviews", "--timeout=5s")
    making = kubectl.start("wait", "--for=create", "svc/cart", "--timeout=30s")
    kubectl("apply", "-f", "-", stdin=SERVICE)
    out, err = making.communicate(timeout=60)
    assert making.returncode == 0, err


def test_a_watch_shows_each_change_in_columns(kubectl: Kubectl) -> None:
    """`get -w` prints a table that grows: one header, a line for each change, also for what goes."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    watch = kubectl.start("get", "svc", "-w", "--output-watch-events")
    assert watch.stdout is not None
    try:
        assert watch.stdout.readline().split() == ["EVENT", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
        assert watch.stdout.readline().split()[:3] == ["ADDED", "cart", "ClusterIP"]
        kubectl("label", "svc", "cart", "a=b")
        assert watch.stdout.readline().split()[:2] == ["MODIFIED", "cart"]
        kubectl("delete", "svc", "cart")
        assert watch.stdout.readline().split()[:2] == ["DELETED", "cart"]
    finally:
        watch.kill()
        watch.communicate()
