"""What `/metrics` of a control plane says: of each of its parts, in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tulle.control.ca.http import Counts
from tulle.control.metrics import Metric
from tulle.control.telemetry.traces_api import metrics_of

if TYPE_CHECKING:
    from tulle.app.control_plane import ControlPlane


async def metrics_of_plane(plane: ControlPlane, counts: Counts) -> list[Metric]:
    """All that a control plane measures of itplane."""
    of_clients = "Client certificates that the API server did not accept."
    of_streams = "Streams of proxies that the xDS server refused, or ended."
    counted = (
        ("tulle_handshakes_refused_total", of_clients, plane.api.connections.refused),
        ("tulle_xds_refused_total", of_streams, plane.ads.refused),
    )
    return [
        *plane.health.metrics(plane.ads.waiting, plane.ads.queued),
        plane.store.timings.metric("tulle_store_seconds", "Seconds that the store took, by operation."),
        *_configuration(plane),
        *await plane.ca.metrics(counts),
        *plane.key_sets.metrics(),
        *plane.limits.metrics(),
        *(Metric(name, "counter", what, [({}, float(number))]) for name, what, number in counted),
        *metrics_of(plane.traces),
        *plane.telemetry.metrics(),
        *plane.recording.metrics(),
        *(plane.prometheus.metrics() if plane.prometheus else ()),
        *plane.rollouts.telling.metrics(),
    ]


def _configuration(plane: ControlPlane) -> list[Metric]:
    """How far the mesh's configuration is."""
    return [
        Metric("tulle_revision", "gauge", "The revision that proxies are sent.", [({}, float(plane.pipeline.revision))]),
        Metric("tulle_feed_queue", "gauge", "Events that are not compiled yet.", [({}, float(plane.feed.waiting))]),
        Metric("tulle_leader", "gauge", "Whether this control plane leads.", [({}, float(plane.leader.leads))]),
    ]
