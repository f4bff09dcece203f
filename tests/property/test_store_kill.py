"""Kill -9 at random moments: what was acknowledged is there, and the file opens. A real process, killed for real."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from tulle.control.store.sqlite import SqliteStore

# For each line of its input: a process of its own with four writers, which print "<key> <n>" after each acknowledged write and
# never stop by themselves; "gone" when it is. The process is a copy of this one, so that nothing is imported again.
WRITERS = """
import asyncio, os, sys
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Cause, Key, Put

async def main(path):
    store = SqliteStore(path, log=200)
    async def writer(name):
        key, pair = Key("x", "", name), Key("y", "", name)
        found = await store.get(key)
        n = found.body["n"] if found else 0
        while True:
            n += 1
            await store.write([Put(key, {"n": n}), Put(pair, {"n": n})], Cause(name, "", float(n)))
            sys.stdout.write(f"{name} {n}\\n"); sys.stdout.flush()
    await asyncio.gather(*(writer(f"w{i}") for i in range(4)))

for line in sys.stdin:
    child = os.fork()
    if not child:
        asyncio.run(main(line.strip()))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("\\ngone", flush=True)
"""


async def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    """After a kill -9 at any moment amid concurrent writers, every acknowledged write is there, whole and with its history, and
    none is there that was not sent.
    """
    path = tmp_path / "s.db"
    dice = random.Random(7)
    acknowledged = dict.fromkeys(("w0", "w1", "w2", "w3"), 0)
    revision = told = 0
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITERS, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    for _ in range(200):
        nursery.stdin.write(f"{path}\n".encode())
        writers = int(await asyncio.wait_for(nursery.stdout.readline(), 30))
        await asyncio.sleep(dice.uniform(0, 0.12))  # the random moment: while it opens, migrates its log, writes, checkpoints
        os.kill(writers, signal.SIGKILL)
        while (line := await asyncio.wait_for(nursery.stdout.readline(), 30)) != b"gone\n":
            if len(words := line.split()) == 2 and line.endswith(b"\n"):  # else it was killed while it was printing
                acknowledged[words[0].decode()] = max(acknowledged[words[0].decode()], int(words[1]))
                told += 1
        store = SqliteStore(path, log=200)
        counts = {one.key.name: one.body["n"] for one in (await store.list("x"))[0]}
        pairs = {one.key.name: one.body["n"] for one in (await store.list("y"))[0]}
        assert counts == pairs
        for name, last in acknowledged.items():
            assert counts.get(name, 0) >= last
        _, now = await store.list()
        assert now == sum(counts.values())  # one revision a write, none skipped and none used twice
        for name, last in counts.items():
            changes = await store.history(resource="x", name=name, limit=3)
            assert [change.body for change in changes] == [{"n": n} for n in range(last, max(last - 3, 0), -1)]
        assert now >= revision
        revision = now
        acknowledged = {name: counts.get(name, 0) for name in acknowledged}
        await store.close()
    nursery.stdin.close()
    assert await nursery.wait() == 0
    assert told > 1000  # the kills hit writers at work
