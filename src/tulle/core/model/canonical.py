"""What a workload is an instance of, by its labels: as Istio finds the canonical service and its revision."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Names and values of labels, as Kubernetes has them.
_PEER = re.compile(r"[A-Za-z0-9._-]{1,253}/[A-Za-z0-9._-]{1,253}/[A-Za-z0-9._-]{0,63}/[A-Za-z0-9._-]{0,63}")
_APP = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_VERSION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")


def app_of(labels: Mapping[str, str]) -> str:
    """The application; "" where no label says it."""
    return next((labels[name] for name in _APP if labels.get(name)), "")


def version_of(labels: Mapping[str, str]) -> str:
    """Its version; "" where no label says it."""
    return next((labels[name] for name in _VERSION if labels.get(name)), "")


def peer(workload: str, app: str, version: str) -> str:
    """Who a workload (`namespace/name`) is, for metrics: `namespace/name/app/version`."""
    return f"{workload}/{app}/{version}"


def is_peer(text: str) -> bool:
    """Whether a text from outside may be what `peer` makes."""
    return _PEER.fullmatch(text) is not None
