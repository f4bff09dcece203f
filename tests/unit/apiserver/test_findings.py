"""`/tulle/v1/findings`: who hears what of the mesh's mistakes, and what a question costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import web

from tests.support.apiserver import Running, running
from tests.support.asking import Person, binding, grant, role, rule
from tests.unit.core.analyze.cases import VIRTUAL_SERVICE
from tests.unit.core.compile.mesh import bookinfo, changes, key_of, read
from tulle.api.object import Object
from tulle.control.findings_api import MOST, add_findings
from tulle.core.analyze.finding import Finding, finding
from tulle.core.analyze.inputs import Scope
from tulle.core.pipeline import Pipeline

PATH = "/tulle/v1/findings"
TO = "[{route: [{destination: {host: %s}}]}]"


class Mesh:
    """Bookinfo with a broken VirtualService, judged as the control plane judges it."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        self.pipeline.commit(changes([*bookinfo(), *read(VIRTUAL_SERVICE % ("broken", TO % "reviewz"))]))
        self.pipeline.analysis.at(Scope(live=True))

    async def findings(self) -> list[Finding]:
        return [finding(one) for problems in self.pipeline.analysis.found().values() for one in problems]

    async def findings_with(self, objects: Sequence[Object]) -> list[Finding]:
        keys = [key_of(one) for one in objects]
        wished = {(key[0], (key[1], key[2])): one for key, one in zip(keys, objects, strict=True)}
        return [finding(one) for one in self.pipeline.analysis.trial(wished)]


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    app = web.Application()
    add_findings(app, Mesh())
    async with running(extra_apps={"/tulle/v1": app}) as up:
        yield up


def wish(name: str, host: str, namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": ["ratings"], "http": [{"route": [{"destination": {"host": host}}]}]},
    }


def told(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["ref"]["name"], one["code"]) for one in body["findings"]]


async def test_the_mesh_and_a_wish(served: Running) -> None:
    """An administrator would not hear what is wrong, or of what he asked."""
    async with Person(served, "admin", "system:masters") as admin:
        status, body = await admin.ask("GET", PATH)
        assert (status, told(body)) == (200, [("broken", "TUL0101")])
        status, body = await admin.ask("POST", PATH, {"objects": [wish("new", "ratingz"), {"kind": "Nonsense"}]})
        assert (status, told(body)) == (200, [("new", "TUL0101")])
        assert "did you mean ratings" in body["findings"][0]["message"]
        assert told((await admin.ask("GET", PATH))[1]) == [("broken", "TUL0101")], "nothing was written"


async def test_who_may_ask_and_hears_what(served: Running) -> None:
    """Findings name objects: who may not read those would learn of them here."""
    await grant(
        served,
        binding("v", "viewer", "User/vera"),
        role("asks", rule("get post", paths=PATH)),
        binding("a", "asks", "User/anna"),
    )
    async with Person(served, "vera") as vera, Person(served, "anna") as anna, Person(served, "otto") as otto:
        assert told((await vera.ask("GET", PATH))[1]) == [("broken", "TUL0101")]
        assert told((await anna.ask("GET", PATH))[1]) == [], "she may read nothing"
        mine = await anna.ask("POST", PATH, {"objects": [wish("new", "ratingz")]})
        assert told(mine[1]) == [("new", "TUL0101")], "of her own object she hears"
        assert await otto.status("GET", PATH) == 403
        assert await otto.status("POST", PATH, {"objects": []}) == 403


async def test_questions_that_are_none(served: Running) -> None:
    """A mistake in a client would be a mistake of the server, or one question keep everybody else waiting."""
    async with Person(served, "admin", "system:masters") as admin:
        wrong: list[Any] = [{}, [], {"objects": {}}, {"objects": None}]
        for body in wrong:
            status, answer = await admin.ask("POST", PATH, body)
            assert (status, answer["reason"]) == (400, "BadRequest"), body
        status, answer = await admin.ask("POST", PATH, {"objects": [{}] * (MOST + 1)})
        assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")
        assert await admin.status("POST", PATH, {"objects": [None, 1, "x", {}]}) == 200
    async with served.raw() as raw:
        assert (await raw("POST", PATH, b"{")).status == 400
