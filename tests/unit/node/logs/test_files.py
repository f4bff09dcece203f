"""Access logs on disk: rotated, bounded, and read over their rotations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tulle.kit.errors import Unavailable
from tulle.node.envoy import Admin
from tulle.node.logs.files import KEPT, LogFiles, generations
from tulle.node.logs.follow import Follower


class Writer(Admin):
    """Writes as Envoy does: into the file that it opened, until it is told to open it again. It can be deaf."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "admin.sock")
        self._log = folder / "access.log"
        self.deaf = False
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, text: str) -> None:
        os.write(self._file, text.encode())

    async def post(self, path: str) -> bytes:
        assert path == "/reopen_logs"
        if self.deaf:
            raise Unavailable("deaf")
        os.close(self._file)
        self._open()
        return b""


async def turned(files: LogFiles, admin: Admin) -> None:
    if files.turn():
        await files.reopened(admin)


async def test_a_follower_loses_nothing(tmp_path: Path) -> None:
    """Broken: `tulle logs -f` would miss or repeat lines whenever a file is full, or show halves of them."""
    writer, files = Writer(tmp_path), LogFiles("d/w", tmp_path, 5 * 2000)
    seen: list[str] = []
    with Follower(tmp_path, "access.log") as reader:
        for number in range(1000):
            line = f"{number:06} {'x' * (number % 90)}\n"
            writer.write(line[: number % 7])  # Envoy's writes end anywhere
            if number % 3 == 0:
                seen += reader.lines()
            writer.write(line[number % 7 :])
            await turned(files, writer)
            if number % 2 == 0:
                seen += reader.lines()
        while lines := reader.lines():
            seen += lines
    assert [int(line[:6]) for line in seen] == list(range(1000))
    assert all(len(line) == 7 + int(line[:6]) % 90 for line in seen)
    assert reader.lost == 0


async def test_it_is_bounded(tmp_path: Path) -> None:
    """Broken: the log of a busy workload would fill the disk."""
    writer, files = Writer(tmp_path), LogFiles("d/w", tmp_path, 5 * 1000)
    (tmp_path / "envoy.log").write_text("x" * 9000)  # another's to bound
    for number in range(1000):
        writer.write(f"{number}\n" + "y" * 50 + "\n")
        await turned(files, writer)
    there = generations(tmp_path, "access.log")
    assert len(there) == KEPT
    assert sum(path.stat().st_size for path in there) <= 5 * 1000 + 60 * KEPT
    assert (tmp_path / "envoy.log").stat().st_size == 9000
    assert all(path.stat().st_mode & 0o077 == 0 for path in there)


async def test_an_envoy_that_does_not_answer(tmp_path: Path) -> None:
    """Broken: what it writes meanwhile would be renamed away from under it, again and again, and lost."""
    writer, files = Writer(tmp_path), LogFiles("d/w", tmp_path, 5 * 100)
    writer.deaf = True
    for number in range(100):
        writer.write(f"{number:09}\n")
        await turned(files, writer)
    assert [path.name for path in generations(tmp_path, "access.log")] == ["access.log.1"]
    writer.deaf = False
    await turned(files, writer)
    writer.write("100000000\n")
    with Follower(tmp_path, "access.log") as reader:
        assert [int(line) for line in reader.last(1000)] == [*range(100), 100000000]


async def test_who_reads_too_slowly_is_told(tmp_path: Path) -> None:
    """Broken: gaps in what somebody follows would look like a quiet service."""
    writer, files = Writer(tmp_path), LogFiles("d/w", tmp_path, 5 * 100)
    with Follower(tmp_path, "access.log") as reader:
        writer.write("first\n")
        assert reader.lines() == ["first"]
        for number in range(100):
            writer.write(f"{number:09}\n")
            await turned(files, writer)
        seen = [line for _ in range(10) for line in reader.lines()]
        assert reader.lost == 1
        assert seen[-1] == f"{99:09}"


@pytest.mark.parametrize("count", [0, 1, 25, 95, 1000])
async def test_the_last_lines(tmp_path: Path, count: int) -> None:
    """Broken: `--tail` would show others than the last lines, or what comes next twice."""
    writer, files = Writer(tmp_path), LogFiles("d/w", tmp_path, 5 * 200)
    for number in range(95):
        writer.write(f"{number:09}\n")
        await turned(files, writer)
    with Follower(tmp_path, "access.log") as reader:
        shown = [int(line) for line in reader.last(count)]
        kept = sum(path.read_text().count("\n") for path in generations(tmp_path, "access.log"))
        assert shown == list(range(95))[95 - min(count, kept) :]
        writer.write("100000000\n")
        assert reader.lines() == ["100000000"]


def test_no_log_at_all(tmp_path: Path) -> None:
    """Broken: following a log that is turned on later would fail, or never show it."""
    with Follower(tmp_path, "access.log") as reader:
        assert reader.last(10) == []
        assert reader.lines() == []
        (tmp_path / "access.log").write_text("now\n")
        assert reader.lines() == ["now"]
