"""Pure: what a WorkloadGroup's entries have in common, put into what is asked for one of them. What that says itself wins."""

from __future__ import annotations

from typing import Any

import msgspec

from tulle.client.node_api import Probe, WorkloadSpec

_NETWORK = "topology.istio.io/network"
GROUP = "tulle.dev/group"  # the WorkloadGroup that an entry was made from


def in_group(spec: WorkloadSpec, group: dict[str, Any]) -> WorkloadSpec:
    """The spec with what the group's template and metadata say."""
    whole = group.get("spec", {})
    metadata, template = whole.get("metadata") or {}, whole.get("template") or {}
    network = {_NETWORK: template["network"]} if template.get("network") else {}
    account = spec.service_account if spec.service_account != "default" else template.get("serviceAccount") or "default"
    return msgspec.structs.replace(
        spec,
        labels={**(template.get("labels") or {}), **(metadata.get("labels") or {}), **network, **spec.labels},
        annotations={**(metadata.get("annotations") or {}), **spec.annotations},
        service_account=account,
        locality=spec.locality or template.get("locality") or "",
        weight=spec.weight or template.get("weight") or 0,
        named_ports={**(template.get("ports") or {}), **spec.named_ports},
        probe=spec.probe or _probe(whole.get("probe"), spec.ports[0].bound if spec.ports else 0),
    )


def _probe(said: dict[str, Any] | None, first: int) -> Probe | None:
    """The probe, with Kubernetes' defaults where it says nothing; a gRPC probe without a port is of the `first` one."""
    if not said or not any(said.get(kind) is not None for kind in ("httpGet", "tcpSocket", "exec", "grpc")):
        return None
    http, tcp, grpc = said.get("httpGet") or {}, said.get("tcpSocket") or {}, said.get("grpc")
    headers = [(one.get("name") or "", one.get("value") or "") for one in http.get("httpHeaders") or ()]
    return Probe(
        port=int(http.get("port") or tcp.get("port") or (grpc or {}).get("port") or (first if grpc is not None else 0)),
        grpc=None if grpc is None else grpc.get("service") or "",
        host=http.get("host") or tcp.get("host") or "",
        path=http.get("path") or "/" if http else "",
        tls=http.get("scheme") == "HTTPS",
        headers=tuple(pair for pair in headers if pair[0]),
        command=tuple((said.get("exec") or {}).get("command") or ()),
        delay=said.get("initialDelaySeconds") or 0,
        timeout=said.get("timeoutSeconds") or 1,
        period=said.get("periodSeconds") or 10,
        successes=said.get("successThreshold") or 1,
        failures=said.get("failureThreshold") or 3,
    )
