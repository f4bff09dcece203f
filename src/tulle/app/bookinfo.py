"""The demo's cast: Bookinfo's workloads, a `curl` to call from, and the ingress gateway."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tulle
from tulle.client.node_api import Kind, Port, WorkloadSpec
from tulle.kit.errors import Unavailable

SYSTEM_NAMESPACE = "tulle-system"
INGRESS = "ingressgateway"
_APART = 19080  # and following: where workloads listen that share one network


@dataclass(frozen=True, slots=True)
class Part:
    """A workload of the demo and the command that is its application."""

    spec: WorkloadSpec
    argv: tuple[str, ...]


def samples_dir() -> Path:
    """The folder above `bookinfo`: inside an installed tulle, or beside `src` in a checkout. Raises `Unavailable`."""
    package = Path(tulle.__file__).parent
    for candidate in (package / "samples", package.parents[1] / "samples"):
        if (candidate / "bookinfo" / "bookinfo.yaml").exists():
            return candidate
    raise Unavailable("the sample application is not in this installation", hint="install tulle from its wheel or a checkout")


def parts(*, apart: bool = False) -> list[Part]:
    """The workloads, named as Istio's Bookinfo names them. `apart`: each binds another port, for they share the host's."""
    services = (
        ("productpage", "v1"),
        ("details", "v1"),
        ("reviews", "v1"),
        ("reviews", "v2"),
        ("reviews", "v3"),
        ("ratings", "v1"),
    )
    cast = [
        Part(
            spec=WorkloadSpec(
                name=f"{service}-{version}",
                service=service,
                version=version,
                service_account=f"bookinfo-{service}",
                ports=(Port(number=9080, protocol="http", name="http", target=_APART + place if apart else 0),),
            ),
            argv=(sys.executable, "-m", "bookinfo", service, "--version", version),
        )
        for place, (service, version) in enumerate(services)
    ]
    curl = WorkloadSpec(name="curl", service_account="curl", labels={"app": "curl"})
    return [*cast, Part(spec=curl, argv=("sleep", "infinity"))]


def ingress(port: int) -> WorkloadSpec:
    """The ingress gateway, with the label that Istio's Gateway files select, listening on the host's `port`."""
    return WorkloadSpec(
        name=INGRESS,
        namespace=SYSTEM_NAMESPACE,
        service_account=INGRESS,
        ports=(Port(number=port, protocol="http", name="http"),),
        labels={"istio": INGRESS, "app": INGRESS},
        kind=Kind.GATEWAY,
    )


def ingress_service(port: int) -> dict[str, Any]:
    """Both ports that examples use for the ingress, 80 (Gateway API) and 8080 (Istio), lead to the one that it binds."""
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    if port != 80:
        ports.append({"name": "http2", "port": port, "targetPort": port})
    if port != 8080:
        ports.append({"name": "http-istio", "port": 8080, "targetPort": port})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": INGRESS, "namespace": SYSTEM_NAMESPACE, "labels": {"app": INGRESS}},
        "spec": {"selector": {"istio": INGRESS}, "ports": ports},
    }
