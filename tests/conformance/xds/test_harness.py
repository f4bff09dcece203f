"""The scenarios of the xDS test harness against our server, over real gRPC, in both variants of ADS."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.playbook.dialogue import LONG, SECRET, Book, labelled
from tests.support.corpora import ROOT
from tests.support.gherkin import Scenario, scenarios
from tests.support.xds import Watch, listening
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.xds.server import SERVICE, AdsServer

FOLDER = ROOT / "xds-test-harness"
FENCES = 20


def _collected() -> list[Any]:
    return [
        pytest.param(scenario, variant, id=f"{file.stem}-{number}-{variant}")
        for file in sorted(FOLDER.glob("*.feature"))
        for number, scenario in enumerate(scenarios(file))
        for variant in sorted(scenario.tags & {"sotw", "incremental"})
        if "aggregated" in scenario.tags
    ]


class Answer:
    """A response: what is in it, name → version, and what it says is gone."""

    def __init__(self, kind: str, nonce: str, resources: dict[str, str], removed: list[str]) -> None:
        self.kind, self.nonce, self.resources, self.removed = kind, nonce, resources, removed


class Client:
    """A raw client of one variant, which acknowledges everything at once."""

    def __init__(self, channel: grpc.aio.Channel, delta: bool) -> None:
        method = "Delta" if delta else "Stream"
        self.delta = delta
        self.call = channel.stream_stream(f"/{SERVICE}/{method}AggregatedResources")()
        self.answers: list[Answer] = []
        self.watch = Watch()
        self.names: dict[str, list[str]] = {}
        self.last: dict[str, tuple[str, str]] = {}  # kind → version, nonce
        self.fences = 0

    async def ask(self, kind: str, more: list[str], less: list[str] | None = None) -> None:
        """Subscribe and unsubscribe; nothing at all at first is a wildcard."""
        names = self.names.setdefault(kind, [])
        self.names[kind] = [name for name in names if name not in (less or [])] + more
        if self.delta:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=LONG[kind], resource_names_subscribe=more, resource_names_unsubscribe=less or []
            )
            request.node.id = "default/x"
            await self.call.write(request.SerializeToString())
        else:
            await self._state(kind)

    async def _state(self, kind: str) -> None:
        version, nonce = self.last.get(kind, ("", ""))
        request = discovery_pb2.DiscoveryRequest(
            type_url=LONG[kind], resource_names=self.names.get(kind, []), version_info=version, response_nonce=nonce
        )
        request.node.id = "default/x"
        await self.call.write(request.SerializeToString())

    async def listen(self) -> None:
        while (data := await self.call.read()) is not grpc.aio.EOF:
            if self.delta:
                response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
                kind = next(short for short, url in LONG.items() if url == response.type_url)
                resources = {resource.name: resource.version for resource in response.resources}
                self.answers.append(Answer(kind, response.nonce, resources, list(response.removed_resources)))
                ack = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
                await self.call.write(ack.SerializeToString())
            else:
                whole = discovery_pb2.DiscoveryResponse.FromString(data)
                kind = next(short for short, url in LONG.items() if url == whole.type_url)
                # The resources of these tests have their name as content.
                resources = {one.value.decode(): whole.version_info for one in whole.resources}
                self.answers.append(Answer(kind, whole.nonce, resources, []))
                self.last[kind] = (whole.version_info, whole.nonce)
                await self._state(kind)
            self.watch.changed()

    async def fence(self) -> None:
        """Everything that the server had to say before this call has been heard after it."""
        name = f"fence{self.fences}"
        self.fences += 1
        assert self.fences <= FENCES
        await self.ask("SDS", [name])
        await self.watch.until(lambda: any(name in answer.resources for answer in self.answers))

    def of(self, kind: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.kind == kind]


class Play:
    """One scenario being played."""

    def __init__(self, client: Client, server: AdsServer, book: Book) -> None:
        self.client, self.server, self.book = client, server, book
        self.mark = 0  # answers before this one were before the last change of the source or of the subscriptions

    async def step(self, text: str) -> None:
        for pattern, action in STEPS:
            if match := re.fullmatch(pattern, text):
                arguments = [value.strip('"') for value in match.groups()]
                await action(self, *arguments)
                return
        raise AssertionError(f"no such step: {text}")

    def _publish(self, kind: str, names: str, version: str = "") -> None:
        self.mark = len(self.client.answers)
        if version:
            resources = [labelled(LONG[kind], name, version) for name in names.split(",")]
            self.server.publish(self.book.tell(*resources))
        else:
            self.server.publish(self.book.tell(gone=[(LONG[kind], name) for name in names.split(",")]))

    async def _many(self, kinds: str, names: str, version: str) -> None:
        resources = [labelled(LONG[kind], name, version) for kind in kinds.split(",") for name in names.split(",")]
        fences = [labelled(SECRET, f"fence{number}", "1") for number in range(FENCES)]
        self.server.publish(self.book.tell(*resources, *fences))

    async def _wildcard(self, kind: str) -> None:
        await self.client.ask(kind, [])

    async def _subscribe(self, names: str, kind: str) -> None:
        self.mark = len(self.client.answers)
        await self.client.ask(kind, names.split(","))

    async def _unsubscribe(self, names: str, kind: str) -> None:
        await self.client.ask(kind, [], names.split(","))
        await self.client.fence()
        self.mark = len(self.client.answers)

    async def _only(self, name: str, kind: str, _version: str) -> None:
        await self._unsubscribe(",".join(one for one in self.client.names[kind] if one != name), kind)

    async def _unsubscribe_all(self, kind: str) -> None:
        await self._unsubscribe(",".join(self.client.names[kind]), kind)

    async def _change(self, name: str, kind: str, version: str) -> None:
        self._publish(kind, name, version)

    async def _remove(self, name: str, kind: str) -> None:
        self._publish(kind, name)

    async def _receives(self, names: str, version: str, kind: str) -> None:
        wanted = set(names.split(","))
        await self.client.watch.until(
            lambda: (
                {name for answer in self.client.of(kind) for name, has in answer.resources.items() if has == version} >= wanted
            )
        )

    async def _receives_only(self, name: str, version: str, kind: str) -> None:
        await self._receives(name, version, kind)
        await self.client.fence()
        assert [answer.resources for answer in self.client.answers[self.mark :] if answer.kind == kind] == [{name: version}]

    async def _single(self, names: str, version: str, kind: str) -> None:
        wanted = dict.fromkeys(names.split(","), version)
        assert any(wanted.items() <= answer.resources.items() for answer in self.client.of(kind))

    async def _no_other(self, kind: str, names: str) -> None:
        for answer in self.client.answers[self.mark :]:
            if answer.kind == kind:
                assert set(answer.resources) <= set(names.split(","))

    async def _told_removed(self, name: str, kind: str) -> None:
        await self.client.watch.until(lambda: any(name in answer.removed for answer in self.client.of(kind)))

    async def _does_not_receive(self, name: str, kind: str, version: str) -> None:
        await self.client.fence()
        assert not any(answer.resources.get(name) == version for answer in self.client.of(kind))

    async def _silent(self, kind: str) -> None:
        await self.client.fence()
        assert [answer for answer in self.client.answers[self.mark :] if answer.kind == kind] == []

    async def _no_more_than_necessary(self) -> None:
        await self.client.fence()
        for kind in LONG:
            seen: dict[str, str] = {}
            for answer in self.client.of(kind):
                news = any(seen.get(name) != version for name, version in answer.resources.items()) or answer.removed
                assert news, f"{kind}: {answer.resources} was known"
                seen.update(answer.resources)
                for name in answer.removed:
                    seen.pop(name, None)


_V = r'("[^"]*")'
STEPS: list[tuple[str, Any]] = [
    (rf"a target setup with service {_V}, resources {_V}, and starting version {_V}", Play._many),
    (rf"a target setup with multiple services {_V}, each with resources {_V}, and starting version {_V}", Play._many),
    (rf"the Client does a wildcard subscription to {_V}", Play._wildcard),
    (rf"the Client subscribes to resources {_V} for {_V}", Play._subscribe),
    (rf"the Client unsubscribes from resource {_V} for service {_V}", Play._unsubscribe),
    (rf"the Client unsubscribes from all resources for {_V}", Play._unsubscribe_all),
    (rf"the Client updates subscription to a resource\({_V}\) of {_V} with version {_V}", Play._only),
    (rf"the resource {_V} of service {_V} is updated to version {_V}", Play._change),
    (rf"the resource {_V} is added to the {_V} with version {_V}", Play._change),
    (rf"the resource {_V} is removed from the {_V}", Play._remove),
    (rf"the Client receives the resources {_V} and version {_V} for {_V}", Play._receives),
    (rf"the Client receives only the resource {_V} and version {_V} for the service {_V}", Play._receives_only),
    (rf"the resources {_V} and version {_V} for {_V} came in a single response", Play._single),
    (rf"for service {_V}, no resource other than {_V} has same (?:version or )?nonce", Play._no_other),
    (rf"the Client receives notice that resource {_V} was removed for service {_V}", Play._told_removed),
    (rf"the client does not receive resource {_V} of service {_V} at version {_V}", Play._does_not_receive),
    (rf"the Client does not receive any message from {_V}", Play._silent),
    (r"the service never responds more than necessary", Play._no_more_than_necessary),
]


@asynccontextmanager
async def playing(scratch: Path, delta: bool) -> AsyncIterator[Play]:
    book = Book()
    server = AdsServer(book)
    async with listening(server, str(scratch / "s")) as target, grpc.aio.insecure_channel(target) as channel:
        client = Client(channel, delta)
        hearing = asyncio.create_task(client.listen())
        try:
            yield Play(client, server, book)
        finally:
            client.call.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


@pytest.mark.skipif(not FOLDER.exists(), reason="the corpora are not beside this checkout")
@pytest.mark.parametrize(("scenario", "variant"), _collected())
async def test_scenario(scenario: Scenario, variant: str, tmp_path: Path) -> None:
    """Would fail if the server broke a rule of the protocol that other servers keep."""
    async with playing(tmp_path, variant == "incremental") as play:
        for step in scenario.steps:
            try:
                await play.step(step)
            except TimeoutError as error:
                raise AssertionError(f"{scenario.title}: {step}: heard {[vars(a) for a in play.client.answers]}") from error
