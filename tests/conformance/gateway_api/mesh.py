"""One real mesh for all tests of the suite: a control plane, a node, an ingress gateway, and the pods of the base manifests.

Nothing here needs a privilege: the gateway listens on the host's loopback (`proxy` capture) at free ports, and the Service in
front of it maps the ports that Gateways say to those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from tests.conformance.gateway_api import suite
from tests.conformance.gateway_api.certificates import Certificates
from tests.conformance.gateway_api.pods import Pods
from tests.support.mesh import TULLE, free_port, refusals
from tulle.api.object import Kind as ObjectKind
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.client.errors import NotFound
from tulle.client.node_api import Kind, NodeClient, Port, WorkloadSpec
from tulle.kit.errors import TulleError
from tulle.node import process
from tulle.node.network import teardown_instance

Raw = dict[str, Any]

GATEWAY, SYSTEM = "ingressgateway", "tulle-system"
_CLASS: Raw = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "tulle"},
    "spec": {"controllerName": suite.PLACEHOLDERS["{GATEWAY_CONTROLLER_NAME}"]},
}


async def until(what: str, holds: Callable[[], Awaitable[Any]], limit: float = 30.0) -> Any:
    """Ask until it is so; what it was then."""
    deadline = time.monotonic() + limit
    while not (found := await holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.03)
    return found


def resource(raw: Raw) -> ObjectKind | None:
    """The kind of an object, None where the API server has none (a Deployment)."""
    return kind_for(raw["apiVersion"].rpartition("/")[0], raw["kind"])


class ConformanceMesh:
    """Use with `async with`. `ports` are the real ports by the number that Gateways say."""

    api: ApiClient
    node: NodeClient

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tc-"))
        self.instance = f"test-{self.home.name}"
        self.certificates = Certificates()
        self.pods = Pods(self.certificates)
        self.base = suite.documents("base/manifests.yaml")
        self.protocols = suite.ports(suite.all_documents())  # reading them takes seconds: once, and before anything is connected
        self.ports = {number: free_port() for number in self.protocols}
        self.warnings: list[str] = []
        self._programs: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> ConformanceMesh:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in (getattr(self, "node", None), getattr(self, "api", None)):
            if client is not None:
                await client.__aexit__(None, None, None)
        for program in reversed(self._programs):
            program.terminate()
            await asyncio.to_thread(program.wait, 30)
        await process.end(process.carrying(self.instance), grace=2)
        await teardown_instance(self.instance, self.home / "run")
        shutil.rmtree(self.home, ignore_errors=True)

    async def _start(self) -> None:
        api, xds = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._run("control-plane", f"--state-dir={self.home}", f"--api-address={api}", f"--xds-address={xds}")
        config = self.home / "kubeconfig"
        await until("the control plane answers", lambda: self._answers(config))
        self.api = await ApiClient.from_kubeconfig(config, warn=self.warnings.append).__aenter__()
        token = await self.api.request("POST", "/tulle/v1/tokens", body={"allow": ["*/*"], "lifetime": 600})
        places = [f"--state-dir={self.home / 'node'}", f"--runtime-dir={self.home / 'run'}"]
        flags = ["--name=conformance", f"--instance={self.instance}", "--capture=proxy", f"--token={token['token']}", *places]
        self._run("node", *flags, f"--api-address={api}", f"--xds-address={xds}")
        self.node = await NodeClient(self.home / "run" / "node.sock").__aenter__()
        await until("the node is connected", self._connected)
        await self.apply([_CLASS, *self.base, *self.certificates.objects()])
        await self._gateway(GATEWAY, SYSTEM, {"istio": GATEWAY, "app": GATEWAY})

    def _run(self, *words: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("TULLE_")} | {"NO_COLOR": "1"}
        with (self.home / f"{words[0]}.log").open("ab") as log:
            self._programs.append(subprocess.Popen([*TULLE, *words], env=env, stdout=log, stderr=log))

    async def _gateway(self, name: str, namespace: str, labels: dict[str, str]) -> Raw:
        """A gateway workload that binds `ports`; the Service in front of it."""
        ports = [
            {"name": f"p{number}", "port": number, "targetPort": port, "protocol": self.protocols[number]}
            for number, port in self.ports.items()
        ]
        metadata = {"name": name, "namespace": namespace}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}}
        await self.api.apply(service)
        bound = tuple(Port(number=number, protocol="http", target=port) for number, port in self.ports.items())
        account = name[:63].rstrip("-")
        await self.node.add(WorkloadSpec(name, namespace, service_account=account, ports=bound, labels=labels, kind=Kind.GATEWAY))
        return service

    @contextlib.asynccontextmanager
    async def alone(self, gateway: Raw | None) -> AsyncIterator[None]:
        """While it lasts, a Gateway has a gateway workload of its own, and `ports` are those."""
        if gateway is None:
            yield
            return
        name, shared = gateway["metadata"]["name"], self.ports
        self.ports = {number: free_port() for number in shared}
        service = await self._gateway("alone", suite.INFRA, {"gateway.networking.k8s.io/gateway-name": name})
        try:
            yield
        finally:
            self.ports = shared
            await self.node.remove(f"{suite.INFRA}/alone", drain=False)
            await self.delete([service])

    async def _answers(self, config: Path) -> bool:
        assert self._programs[0].poll() is None, self.logs()
        if not config.exists():
            return False
        try:
            async with ApiClient.from_kubeconfig(config) as api:
                await api.request("GET", "/tulle/v1/status")
        except TulleError:
            return False
        return True

    async def _connected(self) -> bool:
        assert self._programs[1].poll() is None, self.logs()
        try:
            return (await self.node.status()).connected
        except TulleError:
            return False

    def logs(self) -> str:
        """The ends of the programs' logs, for a run that failed."""
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in self.home.glob("*.log"))

    async def apply(self, objects: Iterable[Raw]) -> None:
        """Apply objects; the pods of Deployments are started."""
        objects = list(objects)
        for one in objects:
            if one["kind"] == "Deployment":
                for entry in await self.pods.start(one, objects):
                    await self.api.apply(entry)
            elif one["kind"] == "EndpointSlice":
                await self.api.apply(await self.pods.listed(one))
            elif resource(one) is not None:
                await self.api.apply(one)

    async def delete(self, objects: Iterable[Raw]) -> None:
        """Delete them, as far as they are there; namespaces last."""
        for one in sorted(objects, key=lambda one: bool(one["kind"] == "Namespace")):
            namespace = one["metadata"].get("namespace")
            names = self.pods.stop(one) if one["kind"] == "Deployment" else [one["metadata"]["name"]]
            kind = kind_for("networking.istio.io", "WorkloadEntry") if one["kind"] == "Deployment" else resource(one)
            for name in names if kind else ():
                assert kind is not None
                try:
                    await self.api.delete(kind, name, namespace)
                except NotFound:
                    continue

    async def get(self, kind: str, namespace: str, name: str) -> Raw:
        """An object of the Gateway API."""
        known = kind_for("gateway.networking.k8s.io", kind)
        assert known is not None
        return await self.api.get(known, name, namespace)

    def refused(self) -> list[str]:
        """What proxies have refused: no configuration of any test may be."""
        return refusals(self.home)
