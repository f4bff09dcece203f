"""Conditions that wait for proxies: when they hold, when they wait, and whose refusal turns them off."""

from __future__ import annotations

from tulle.core.status.progress import Asked, decided
from tulle.core.status.rows import Condition, Status, false, true
from tulle.xds.status import Progress

GATEWAY = Status((true("Programmed", message="has it", waits=("a/gw", "b/gw")),))
MESH = Status((Condition("Reconciled", "True", "Reconciled", waits=(), kept=True),))


def said(status: Status, *proxies: Progress, since: int = 5, blame: tuple[str, str] | None = None) -> tuple[str, str, str]:
    asked = Asked({one.proxy: one for one in proxies}, lambda _proxy: since, blame)
    (one,) = decided(status, asked).conditions
    assert one.waits is None
    return one.status, one.reason, one.message


def test_a_gateway_is_programmed_when_its_proxy_has_acknowledged() -> None:
    """`kubectl wait` would return before the first request can succeed."""
    assert said(GATEWAY, Progress("x/other", 9)) == ("Unknown", "Pending", "the proxy of a/gw, b/gw is not connected")
    assert said(GATEWAY, Progress("a/gw", 4), Progress("b/gw", 5)) == ("False", "Pending", "waiting for a/gw to acknowledge it")
    assert said(GATEWAY, Progress("a/gw", 5), Progress("b/gw", 9)) == ("True", "Programmed", "has it")
    assert said(GATEWAY, Progress("a/gw", 5)) == ("True", "Programmed", "has it"), "a second workload may be down"


def test_a_refusal_is_said_with_the_proxys_own_words() -> None:
    """What Envoy has against a configuration would be found in a log only."""
    refusal = ("a/gw", "duplicate domain")
    assert said(GATEWAY, Progress("a/gw", 9), blame=refusal) == ("False", "Invalid", "a/gw refuses it: duplicate domain")
    assert said(MESH, Progress("a/gw", 9), blame=refusal)[:2] == ("False", "Refused")


def test_reconciled_counts_every_connected_proxy() -> None:
    """An object would be called reconciled while a proxy still does as it said before."""
    assert said(MESH) == ("Unknown", "Pending", "no proxy is connected")
    one, two = Progress("a/one", 5), Progress("a/two", 4)
    assert said(MESH, one, two) == ("False", "Pending", "1/2 proxies up to date to latest generation")
    assert said(MESH, one) == ("True", "Reconciled", "1/1 proxies up to date to latest generation")


def test_what_does_not_wait_stays_as_it_is() -> None:
    """A Gateway that is invalid would become programmed because its proxy is up to date."""
    status = Status((false("Programmed", "Invalid", "no"),))
    assert decided(status, Asked({}, lambda _proxy: 0, ("a", "b"))) == status
