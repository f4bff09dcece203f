"""Deployments of the suite's manifests as echo servers, each pod at an address of its own, and as WorkloadEntries of the mesh."""

from __future__ import annotations

import os
import socket
from typing import Any

from tests.conformance.gateway_api import suite
from tests.conformance.gateway_api.certificates import Certificates
from tests.support import echo_tls
from tests.support.echo import Echo, Pod
from tests.support.mesh import free_port

Raw = dict[str, Any]

_UDP = 5353  # what a pod binds for a Service's UDP port: 53 would need a privilege


class Pods:
    """All pods of one run, by Deployment. Addresses are of 127/8, so that every pod binds the ports that its Service says."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.echoes: dict[tuple[str, str], list[Echo]] = {}
        self._network = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self._next = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the address from which it would
            self._host: str = probe.getsockname()[0]

    async def start(self, deployment: Raw, objects: list[Raw]) -> list[Raw]:
        """Start a Deployment's pods; their WorkloadEntries."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        key = (metadata["namespace"], metadata["name"])
        self.echoes[key] = []
        entries = []
        labels = spec["template"]["metadata"]["labels"]
        udp = {
            port["name"] if "name" in port else f"udp-{port['port']}": _UDP
            for one in objects
            if one["kind"] == "Service" and (one["spec"].get("selector") or {}).items() <= labels.items()
            for port in one["spec"]["ports"]
            if port.get("protocol") == "UDP"
        }
        for number in range(spec.get("replicas", 1)):
            self._next += 1
            address, name = f"{self._network}.{self._next}", f"{metadata['name']}-{number + 1}"
            self.echoes[key].append(
                await self._echo(address, Pod(name, metadata["namespace"], metadata["name"]), spec, bool(udp))
            )
            entry: Raw = {"address": address, "labels": labels}
            entries.append(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "WorkloadEntry",
                    "metadata": {"name": name, "namespace": metadata["namespace"]},
                    "spec": entry | ({"ports": udp} if udp else {}),
                }
            )
        return entries

    async def listed(self, slice_: Raw) -> Raw:
        """A slice with the pod that upstream's code writes into it, where the mesh has addresses of that family.

        An address of 127/8 may not stand in a slice: the pod listens at the host's own too, at a free port.
        """
        if slice_["addressType"] != "IPv4":
            return slice_
        port = free_port()
        await self.echoes[suite.INFRA, "infra-backend-v1"][0].start(self._host, http=port)
        ports = [{**one, "port": port} for one in slice_["ports"]]
        return {**slice_, "endpoints": [{"addresses": [self._host]}], "ports": ports}

    def stop(self, deployment: Raw) -> list[str]:
        """Stop a Deployment's pods; their names."""
        gone = self.echoes.pop((deployment["metadata"]["namespace"], deployment["metadata"]["name"]), [])
        for one in gone:
            one.stop()
        return [one.pod.name for one in gone]

    def seen(self, namespace: str, name: str, path: str) -> int:
        """How many requests for a path reached a Deployment."""
        return sum(request.path == path for one in self.echoes[namespace, name] for request in one.seen)

    async def _echo(self, address: str, pod: Pod, spec: Raw, udp: bool) -> Echo:
        template = spec["template"]["spec"]
        environment = {one["name"]: one.get("value", "") for one in template["containers"][0].get("env", ())}
        tls, clients = None, b""
        for volume in template.get("volumes", ()):
            if "configMap" in volume and "TLS_CLIENT_CACERTS" in environment:
                clients = self.certificates.authorities["tls-checks-ca-certificate"].pem
        for volume in template.get("volumes", ()):
            if "secret" in volume:
                tls = echo_tls.context(*self.certificates.secrets[pod.namespace, volume["secret"]["secretName"]], clients)
        echo = Echo(pod, tls)
        encrypted = 8443 if tls else 0
        if udp:
            await echo.start(address, udp=_UDP)
        elif "TCP_ECHO_SERVER" in environment:
            await echo.start(address, tcp=3000, tcp_tls=encrypted)
        elif "GRPC_ECHO_SERVER" in environment:
            await echo.start(address, h2c=3000, h2=encrypted)
        else:
            await echo.start(address, http=3000, h2c=3001, https=encrypted)
        return echo
