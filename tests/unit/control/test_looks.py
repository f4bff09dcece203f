"""Between the person who looks and the node that shows."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tulle.control import looks
from tulle.control.looks import Board
from tulle.core.model.looks import Look, Told

LOOK = Look("one", "default/shop", "logs")


async def test_a_look_from_beginning_to_end() -> None:
    """Broken: what a node shows would not come to who asked for it, or a look would go on for ever."""
    board = Board()
    asked = await board.after("n1", "")
    assert asked.looks == ()
    held = asyncio.ensure_future(board.after("n1", asked.tag))
    async with contextlib.aclosing(board.look("n1", LOOK)) as shown:
        first = asyncio.ensure_future(anext(shown))
        found = await held
        assert found.looks == (LOOK,)
        assert await board.take("n1", "one", Told(lines=("a",)))
        assert (await first).lines == ("a",)
        assert await board.take("n1", "one", Told(ended=True))
        assert [told.ended async for told in shown] == [True]
    assert (await board.after("n1", found.tag)).looks == ()
    with pytest.raises(KeyError):
        await board.take("n1", "one", Told())


async def test_nobody_looks_any_more() -> None:
    """Broken: a node would go on reading, and a proxy telling, for a person who has gone."""
    board = Board()
    async with contextlib.aclosing(board.look("n1", LOOK)) as shown:
        first = asyncio.ensure_future(anext(shown))
        await asyncio.sleep(0)
        await board.take("n1", "one", Told())
        await first
    with pytest.raises(KeyError):
        await board.take("n1", "one", Told())


async def test_another_node_shows_nothing() -> None:
    """Broken: a node could write into what somebody sees of another node's workload, and would know what that is."""
    board = Board()
    async with contextlib.aclosing(board.look("n1", LOOK)) as shown:
        first = asyncio.ensure_future(anext(shown))
        await asyncio.sleep(0)
        with pytest.raises(KeyError):
            await board.take("n2", "one", Told(lines=("forged",)))
        assert (await board.after("n2", "")).looks == ()
        await board.take("n1", "one", Told())
        assert (await first).lines == ()


async def test_a_person_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what he does not read would pile up here, or be lost instead of waiting on the node."""
    monkeypatch.setattr(looks, "_ROOM", 0.01)
    board = Board()
    async with contextlib.aclosing(board.look("n1", LOOK)) as shown:
        first = asyncio.ensure_future(anext(shown))
        await asyncio.sleep(0)
        taken = [await board.take("n1", "one", Told(lines=(str(number),))) for number in range(20)]
        count = taken.index(False)
        assert 0 < count < 10
        assert not any(taken[count + 1 :])
        assert (await first).lines == ("0",)
        assert (await anext(shown)).lines == ("1",)
        assert await board.take("n1", "one", Told(lines=("again",)))


async def test_a_node_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: who looks at a workload whose node has died would wait for ever."""
    monkeypatch.setattr(looks, "_SILENCE", 0.01)
    found = [told async for told in Board().look("n1", LOOK)]
    assert [told.ended for told in found] == [True]
    assert found[0].error == "node n1 does not answer any more"


async def test_whether_a_node_is_there() -> None:
    """Broken: with several control planes the one that was asked could not tell that another has the node."""
    board = Board()
    assert not board.has("n1")
    held = asyncio.ensure_future(board.after("n1", (await board.after("n1", "")).tag))
    await asyncio.sleep(0)
    assert board.has("n1")
    held.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await held
    assert board.has("n1")  # it will ask again
    assert not board.has("n2")
