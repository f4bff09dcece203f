"""What a control plane says of its own work."""

from __future__ import annotations

from tulle.control.health import Health
from tulle.control.metrics import Metric, Timings, text
from tulle.core import type_urls
from tulle.xds.status import Nack


def value(found: list[Metric], name: str, **labels: str) -> float:
    (one,) = (sample for metric in found if metric.name == name for said, sample in metric.samples if dict(said) == labels)
    assert isinstance(one, float)
    return one


def test_from_a_change_to_its_acknowledgement() -> None:
    """Broken: a mesh whose changes take minutes to arrive would look well, or a proxy that has just come like a slow one."""
    now, moved = [100.0], []
    health = Health(lambda: moved.append(now[0]), lambda: now[0])
    health.published(1)
    now[0] = 500.0
    health.connected("default/web", 1)
    health.sent("default/web", 1, type_urls.LISTENER, 1)
    now[0] = 500.2
    health.synced("default/web", 1, 1)
    health.published(2)
    now[0] = 502.2
    health.sent("default/web", 1, type_urls.CLUSTER, 2)
    health.synced("default/web", 1, 2)
    health.synced("default/web", 1, 2)  # nothing was sent for this
    health.nacked("default/web", 1, Nack(type_urls.LISTENER, ("a",), "why", 2))
    found = health.metrics(waiting=3, queued=4)
    said = text(found)
    assert 'pilot_proxy_convergence_time_bucket{le="0.25"} 1\n' in said
    assert 'pilot_proxy_convergence_time_bucket{le="3"} 2\n' in said
    assert "pilot_proxy_convergence_time_count 2\n" in said
    assert value(found, "pilot_xds_pushes", type="cds") == 1
    assert value(found, "pilot_total_xds_rejects") == 1
    assert value(found, "tulle_xds_rejects_total", type="lds") == 1
    assert (value(found, "pilot_xds"), value(found, "tulle_xds_waiting"), value(found, "tulle_xds_queue")) == (1, 3, 4)
    assert len(moved) == 5
    health.disconnected("default/web", 1)
    assert value(health.metrics(0, 0), "pilot_xds") == 0


def test_only_so_many_revisions_are_remembered() -> None:
    """Broken: the memory of a control plane would grow with every change."""
    health = Health(lambda: None, lambda: 7.0)
    for revision in range(5000):
        health.published(revision)
    health.connected("a/b", 1)
    health.sent("a/b", 1, type_urls.LISTENER, 3)
    health.synced("a/b", 1, 5000)
    assert len(health._published) == 1000
    assert value(health.metrics(0, 0), "tulle_publications_total") == 5000


def test_a_histogram() -> None:
    """Broken: Prometheus would refuse the page, or compute other times."""
    timings = Timings("operation", (0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        timings.add("get", seconds)
    assert text([timings.metric("t_seconds", "How long.")]) == (
        "# HELP t_seconds How long.\n# TYPE t_seconds histogram\n"
        't_seconds_bucket{operation="get",le="0.1"} 2\nt_seconds_bucket{operation="get",le="1"} 3\n'
        't_seconds_bucket{operation="get",le="+Inf"} 4\nt_seconds_sum{operation="get"} 7.6500000000000004\n'
        't_seconds_count{operation="get"} 4\n'
    )
