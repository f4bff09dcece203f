"""Runs a test of the suite on the mesh: applies its manifests, waits for the conditions, sends the rows, takes all away again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance.gateway_api import clients, steps
from tests.conformance.gateway_api.conditions import checks_of, hold
from tests.conformance.gateway_api.judge import Got, Sent, compare
from tests.conformance.gateway_api.mesh import ConformanceMesh
from tests.conformance.gateway_api.rows import Row, rows
from tests.conformance.gateway_api.suite import INFRA, KINDS, Case, documents, listeners
from tulle.api.registry import kind_for
from tulle.kit.errors import TulleError

Raw = dict[str, Any]
Results = dict[str, str]  # check → what is wrong, "" where nothing is

SUCCESSES = 3
_MIRRORED = 200  # requests by which a share of mirrored ones is judged
_TOLERANCE = 0.12  # more than four standard deviations of 200 halves are 0.14; a share of 20% has them within 0.11


async def thrice(attempt: Callable[[], Awaitable[str]], limit: float) -> str:
    """What is wrong, after so long without three successes in a row."""
    deadline = time.monotonic() + limit
    wins = 0
    while True:
        wrong = await attempt()
        wins = 0 if wrong else wins + 1
        if wins == SUCCESSES:
            return ""
        if wrong:
            if time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.05)


class Runner:
    """Of one mesh."""

    def __init__(self, mesh: ConformanceMesh) -> None:
        self.mesh = mesh

    async def run(self, test: Case, limit: Callable[[str], float]) -> Results:
        """The checks of a test; each has so many seconds, all rows at the same time, then the steps in turn."""
        own = [one for path in test.manifests for one in documents(path)]
        try:
            async with self.mesh.alone(_crowded(test, own)):
                return await self._run(test, limit, own)
        except TulleError as error:
            return {"conditions": f"an object is refused: {error}"}

    async def _run(self, test: Case, limit: Callable[[str], float], own: list[Raw]) -> Results:
        try:
            await self.mesh.apply(own)
            wrong = await thrice(lambda: self._conditions(test, own), limit("conditions"))
            # Without its objects accepted no row of a test means anything; those in order are told all the same.
            results = {"conditions": wrong}
            waiting = {row.name: self._row(row, limit(row.name)) for row in rows(test, [*self.mesh.base, *own], own)}
            results |= dict(zip(waiting, await asyncio.gather(*waiting.values()), strict=True))
            for step in steps.of(test.name, self.mesh, own):
                if step.before:
                    await step.before()
                results[step.name] = await thrice(step.attempt, limit(step.name))
            return results
        finally:
            await self.mesh.delete(own)

    async def _conditions(self, test: Case, own: list[Raw]) -> str:
        found: dict[tuple[str, str, str], Raw] = {}
        for name in (*KINDS, "GatewayClass"):
            kind = kind_for("gateway.networking.k8s.io", name)
            assert kind is not None
            for one in (await self.mesh.api.list(kind))["items"]:
                metadata = one["metadata"]
                found[kind.resource, metadata.get("namespace", ""), metadata["name"]] = one.get("status", {})
        return hold(found, checks_of(test, own))

    async def _row(self, row: Row, limit: float) -> str:
        grpc = "EchoRequest" in row.raw or "EchoTwoRequest" in row.raw
        wrong = await thrice((lambda: self._grpc(row)) if grpc else (lambda: self._http(row)), limit)
        for mirror in row.raw.get("MirroredTo", ()) if not wrong else ():
            wrong = wrong or await self._mirrored(row, mirror, limit)
        return wrong

    async def _http(self, row: Row) -> str:
        got, sent = await self._ask(row)
        if row.no_answer:
            return f"status {got.status}, needed no answer" if got.status else ""
        raw = row.raw
        if row.retry:
            raw = {**raw, "Request": {**raw["Request"], "Path": sent.path}}
        return compare(raw, sent, got) or (self._client(raw, got) if got.body else "")

    def _client(self, raw: Raw, got: Got) -> str:
        """The certificate that the gateway is to show to the backend."""
        if not (name := raw.get("Request", {}).get("ClientCert")):
            return ""
        shown = ((got.body or {}).get("tls") or {}).get("peerCertificates", [])
        needed = self.mesh.certificates.secrets[INFRA, name][0].decode().strip()
        return "" if [one.strip() for one in shown] == [needed] else "the gateway shows the backend another certificate, or none"

    async def _ask(self, row: Row) -> tuple[Got, Sent]:
        request = row.raw.get("Request", {})
        number, tls = row.place
        default = clients.HOST if number in (80, 443) else f"{clients.HOST}:{number}"
        host, path = request.get("Host") or default, row.path()
        asked = ",".join(f"{name}:{value}" for name, value in (row.raw.get("BackendSetResponseHeaders") or {}).items())
        headers = {"Host": host, **request.get("Headers", {})} | ({"X-Echo-Set-Header": asked} if asked else {})
        sent = Sent("https" if tls else "http", path)
        port = self.mesh.ports[number]
        if request.get("Protocol"):
            return await clients.http2(port, path, host), sent
        if not tls:
            return await clients.http(port, request.get("Method", "GET"), path, headers), sent
        certificates = self.mesh.certificates
        shown = certificates.authorities[row.client] if row.client else None
        context = clients.trusting(certificates.backend)
        if shown:
            shown.load(context, *shown.issue("client", hosts=("client.example.com",)))
        name = request.get("SNI") or host.partition(":")[0]
        return await clients.http(port, request.get("Method", "GET"), path, headers, context, name), sent

    async def _grpc(self, row: Row) -> str:
        raw = row.raw
        asked = raw.get("RequestMetadata") or {}
        method = "EchoTwo" if "EchoTwoRequest" in raw else "Echo"
        port = self.mesh.ports[row.place.port]
        code, said = await clients.grpc_call(port, method, asked.get("Authority", ""), asked.get("Metadata") or {})
        response = raw.get("Response") or {}
        needed = response.get("Code", "OK")
        if code.replace("_", "").lower() != needed.lower():
            return f"{code}, needed {needed}"
        if said is None:
            return ""
        if not said.context.pod.startswith(raw.get("Backend") or ""):
            return f"pod {said.context.pod}, needed {raw['Backend']}"
        # The headers of a row are not compared, as upstream does not: they contradict the manifest (three rules of one match).
        namespace = raw.get("Namespace") or said.context.namespace
        return "" if said.context.namespace == namespace else f"namespace {said.context.namespace}, needed {namespace}"

    async def _mirrored(self, row: Row, mirror: Raw, limit: float) -> str:
        """The pods of a mirror have seen the request too, or a share of many."""
        reference = mirror["BackendRef"]
        namespace = reference["Namespace"] if isinstance(reference["Namespace"], str) else row.raw["Namespace"]
        path = row.raw["ExpectedRequest"]["Request"]["Path"]

        def seen() -> int:
            return self.mesh.pods.seen(namespace, reference["Name"], path)

        if "Percent" not in mirror:

            async def any_seen() -> str:
                return "" if seen() else f"{reference['Name']} has seen nothing"

            return await thrice(any_seen, limit)
        before = seen()
        for _ in range(_MIRRORED):
            await self._ask(row)
        share, needed = (seen() - before) / _MIRRORED, mirror["Percent"] / 100
        return "" if abs(share - needed) <= _TOLERANCE else f"{share:.0%} mirrored, needed {needed:.0%}"


def _crowded(test: Case, own: list[Raw]) -> Raw | None:
    """A Gateway that takes all of port 443, as one of the base manifests does: upstream's have an address each.

    One with infrastructure is to have something of its own, too.
    """
    asked = test.rows or steps.TLS.get(test.name) or test.name == "GatewayInfrastructure"
    for one, listener in listeners(own) if asked else ():
        crowded = one["kind"] == "Gateway" and listener["port"] == 443 and "hostname" not in listener
        if crowded or "infrastructure" in one["spec"]:
            return one
    return None
