"""What the control plane keeps of recorded calls: for some days, within bounds, through a restart, and of how many."""

from __future__ import annotations

from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.telemetry.test_window import denials
from tulle.control.telemetry.keeping import Keeping, together
from tulle.control.telemetry.recorded import DAY, KEEP, Kept
from tulle.control.telemetry.recorded_api import Asked, add_recorded
from tulle.core.explain import Explanation
from tulle.core.model.calls import Count, Edge
from tulle.core.model.recorded import Coverage, Example, Record, Recorded, RecordedReport, Shape
from tulle.core.recorded.folding import one

NOW = 1_700_000_000.0
HOST = "reviews.default.svc.cluster.local"


def call(number: int, time: float = NOW, **fields: str) -> tuple[Shape, Record]:
    shape = msgspec.structs.replace(Shape("source", source="default/a", service=HOST, code="200"), **fields)
    return shape, one(Example(f"id-{number}", time, 5.0))


def test_days_go() -> None:
    """Broken: the record would grow for ever, or forget what it is to keep."""
    kept = Kept(NOW)
    kept.add(NOW, [call(1)])
    kept.add(NOW + 6 * DAY, [call(2, NOW + 6 * DAY)])
    assert sum(record.count.calls for _shape, record in kept.since(0).rows) == 2
    kept.add(NOW + KEEP + 2 * DAY, [call(3, NOW + KEEP + 2 * DAY)])
    assert sum(record.count.calls for _shape, record in kept.since(0).rows) == 2
    assert kept.begins > NOW
    assert kept.forgotten()
    assert not kept.forgotten()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 12)), max_size=200))
def test_bounded(calls: list[tuple[int, int]]) -> None:
    """Broken: many kinds of calls would fill the memory of a control plane."""
    kept = Kept(NOW, most=20)
    for number, (path, day) in enumerate(sorted(calls, key=lambda one: one[1])):
        kept.add(NOW + day * DAY, [call(number, NOW + day * DAY, path=f"/{path}")])
        assert kept.size <= 2 * 20


def test_how_many_of_how_many() -> None:
    """Broken: a sample would pass for all calls."""
    kept = Kept(NOW)
    kept.add(NOW, [call(1), call(2), call(3, code="503")])
    kept.count(NOW, [(Edge("source", service=HOST, code="200"), Count(50)), (Edge("source", service=HOST, code="503"), Count(2))])
    kept.count(NOW, [(Edge("plaintext", service=HOST), Count(50))])
    assert kept.since(0).coverage == {HOST: Coverage(3, 52, 1, 2)}


def test_failures_of_a_workload() -> None:
    """Broken: `tulle explain --last-error` would find nothing, or another request."""
    kept = Kept(NOW)
    for number in range(100):
        shape, record = call(number, NOW + number, code="503", destination="default/b")
        kept.add(NOW, [(shape, record)], [(shape, record.examples[0])])
    for workload in ("default/a", "default/b"):
        found = kept.failures_of(workload)
        assert found[0][1].id == "id-99"
        assert len(found) == 20
    assert kept.failures_of("default/other") == []
    assert [example.id for _shape, example in kept.calls_of("id-99")] == ["id-99"]


async def test_a_restart(tmp_path: Path) -> None:
    """Broken: what was recorded for days would be gone with the process."""
    file = tmp_path / "calls.db"
    kept = Kept(NOW)
    for number in range(250):
        kept.add(NOW, [call(number, path=f"/{number}", code="503" if number == 7 else "200")])
    kept.count(NOW, [(Edge("source", service=HOST, code="200"), Count(500))])
    keeping = Keeping(file, kept)
    await keeping.write()
    kept.add(NOW + 1, [call(1000, NOW + 1, path="/3")])
    await keeping.write()
    again = Kept(NOW + 100)
    await Keeping(file, again).load()
    assert dict(again.since(0).rows) == dict(kept.since(0).rows)
    assert again.since(0).coverage == kept.since(0).coverage
    assert again.failures_of("default/a")[0][1].id == "id-7"
    assert again.begins == NOW
    assert file.stat().st_mode & 0o777 == 0o600


async def test_days_that_are_over_are_removed_from_disk(tmp_path: Path) -> None:
    """Broken: the disk would fill, and a restart bring back what is to be forgotten."""
    file = tmp_path / "calls.db"
    kept = Kept(NOW)
    keeping = Keeping(file, kept)
    kept.add(NOW, [call(1)])
    await keeping.write()
    kept.add(NOW + KEEP + 2 * DAY, [call(2, NOW + KEEP + 2 * DAY)])
    await keeping.write()
    again = Kept(NOW)
    await Keeping(file, again).load()
    assert [record.examples[0].id for _shape, record in again.since(0).rows] == ["id-2"]


async def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    """Broken: a control plane would not start for the sake of what is only remembered."""
    file = tmp_path / "calls.db"
    file.write_bytes(b"garbage" * 1000)
    kept = Kept(NOW)
    keeping = Keeping(file, kept)
    await keeping.load()
    kept.add(NOW, [call(1)])
    await keeping.write()
    again = Kept(NOW)
    await Keeping(file, again).load()
    assert len(again.since(0).rows) == 1


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Broken: a full disk would lose for good what fits in memory."""
    kept = Kept(NOW)
    folder = tmp_path / "there"
    keeping = Keeping(folder / "calls.db", kept)
    kept.add(NOW, [call(1)])
    await keeping.write()
    assert (keeping.failed, str(folder / "calls.db") in keeping.notice) == (1, True), "said where people look, and counted"
    folder.mkdir()
    await keeping.write()
    assert (keeping.failed, keeping.notice) == (1, "")
    again = Kept(NOW)
    await Keeping(folder / "calls.db", again).load()
    assert len(again.since(0).rows) == 1


def test_several_control_planes() -> None:
    """Broken: calls would be seen only where their nodes report."""
    first, other = Kept(NOW), Kept(NOW - 5)
    first.add(NOW, [call(1)])
    other.add(NOW, [call(2), call(3, path="/x")])
    found = together([first.since(0), other.since(0)])
    assert sorted(record.count.calls for _shape, record in found.rows) == [1, 2]
    assert found.coverage == {HOST: Coverage(3, 0, 0, 0)}
    assert found.begins == NOW - 5


def test_what_was_never_seen_is_told_of() -> None:
    """Broken: a service of which no call was recorded would not be in what people are told of how much was seen."""
    kept = Kept(NOW - DAY)
    kept.add(NOW, [call(1)])
    other = "ratings.shop.svc.cluster.local"
    kept.count(NOW, [(Edge("source", service=HOST, code="200"), Count(5)), (Edge("source", service=other, code="200"), Count(9))])
    for asked, services in (
        (Asked(), (other, HOST)),
        (Asked(namespace="shop"), (other,)),
        (Asked(destination="shop/ratings"), (other,)),
        (Asked(source="shop/x"), ()),
    ):
        assert kept.since(NOW - 60, asked.wanted, asked.meant).services == tuple(sorted(services)), asked
    assert kept.since(NOW - 60).covers == NOW - NOW % DAY, "counted by day"


async def test_what_nodes_tell() -> None:
    """Broken: a node whose clock is wrong would lose its calls, or one that tells nonsense spoil those of others."""
    kept, app = Kept(NOW), web.Application(middlewares=[denials])

    async def nobody(_path: str, _query: object) -> tuple[()]:
        return ()

    async def unexplained(_failures: object) -> Explanation:
        raise AssertionError

    add_recorded(app, kept, lambda request: request.headers.get("node", ""), unexplained, nobody, lambda: NOW, lambda: "a word")
    ahead = NOW + 900.0
    shape, record = call(1, ahead - 2, code="503", flags="UH")
    garbage = [call(2, NOW + 1e6), (shape, msgspec.structs.replace(record, count=Count(-1)))]
    report = RecordedReport("here", ((shape, record), *garbage), ((shape, record.examples[0]),), 3, ahead)
    async with TestClient(TestServer(app)) as client:
        for node, body, status in (
            ("here", msgspec.json.encode(report), 200),
            ("there", msgspec.json.encode(report), 403),
            ("here", b"{", 400),
            ("here", b'{"node": "here", "rows": [[1, 2]]}', 400),
        ):
            assert (await client.post("/telemetry/recorded", data=body, headers={"node": node})).status == status
        found = msgspec.json.decode(await (await client.get("/telemetry/recorded?seconds=60")).read(), type=Recorded)
    ((_shape, kept_one),) = found.rows
    assert (kept_one.first, kept_one.last, kept_one.examples[0].time) == (NOW - 2, NOW - 2, NOW - 2)
    assert (found.dropped, found.notice, kept.left_out) == (3, "a word", 2)


def test_filters() -> None:
    """Broken: people would be shown other calls than they asked for."""
    shape, record = call(1, code="503", method="GET", path="/a/b", destination="default/reviews-v1")
    for asked in (
        Asked(),
        Asked(source="default/a"),
        Asked(destination="default/reviews-v1"),
        Asked(destination="default/reviews"),
        Asked(destination=HOST),
        Asked(namespace="default"),
        Asked(code="5xx", failed=True),
        Asked(method="get", path="/a"),
    ):
        assert asked.wanted(shape, record)
    for asked in (Asked(source="default/b"), Asked(destination="default/b"), Asked(namespace="x"), Asked(code="4xx")):
        assert not asked.wanted(shape, record)
    assert not Asked(failed=True).wanted(*call(1))
