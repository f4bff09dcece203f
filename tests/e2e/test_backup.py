"""Backup under load and restore on another machine's folder, with real control planes and the real command."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, free_port
from tulle.api.registry import kind_of_resource
from tulle.client.api import ApiClient
from tulle.client.errors import Expired
from tulle.control.ca import files
from tulle.control.store.sealed import Keys

pytestmark = pytest.mark.e2e

CONFIG_MAP, SECRET = kind_of_resource("configmaps"), kind_of_resource("secrets")
CANARY = base64.b64encode(b"canary-that-sings-when-it-is-seen").decode()


class Machine:
    """A machine with a state folder, on which a control plane may run."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TULLE_")}
        self.env = {**kept, "TULLE_STATE_DIR": str(self.state), "TULLE_RUNTIME_DIR": f"{folder}/run", "NO_COLOR": "1"}

    async def tulle(self, *argv: str, code: int = 0) -> str:
        """A command's output on both streams."""
        process = await asyncio.create_subprocess_exec(
            *TULLE, *argv, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == code, out.decode()
        return out.decode()

    @contextlib.asynccontextmanager
    async def control_plane(self) -> AsyncIterator[ApiClient]:
        """A running control plane, and its administrator."""
        argv = ["control-plane", f"--api-address=127.0.0.1:{free_port()}", f"--xds-address=127.0.0.1:{free_port()}"]
        process = await asyncio.create_subprocess_exec(*TULLE, *argv, env=self.env, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        log = []
        try:
            while b"control plane ready" not in (line := await asyncio.wait_for(process.stderr.readline(), 60)):
                log.append(line)
                assert line, b"".join(log).decode()
            drain = asyncio.create_task(process.stderr.read())
            async with ApiClient.from_kubeconfig(self.state / "kubeconfig") as api:
                yield api
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0, (await drain).decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def write_pairs(api: ApiClient, name: str, enough: asyncio.Event) -> None:
    """Count in two objects, always first in the one, then in the other."""
    n = 0
    while not enough.is_set():
        n += 1
        for side in ("first", "second"):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-{side}"}, "data": {"n": str(n)}}
            await api.apply(body)


def read(path: Path) -> Mapping[str, Any]:
    """The ConfigMaps' counts in a backup, by name, with nothing but Python."""
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return {line[2]: int(line[3]["data"]["n"]) for line in lines if isinstance(line, list) and line[0] == "configmaps"}


async def everything(api: ApiClient) -> Mapping[str, Any]:
    """All ConfigMaps and Secrets, without their resource versions."""
    found = {}
    for kind in (CONFIG_MAP, SECRET):
        assert kind is not None
        for item in (await api.list(kind, "default"))["items"]:
            item["metadata"].pop("resourceVersion")
            found[f"{kind.kind}/{item['metadata']['name']}"] = item
    return found


def roots(state: Path) -> files.StoredRoots:
    """What signs, as the encryption key opens it."""
    found = files.load(state / "ca", Keys.of_folder(state))
    assert found is not None
    return found


async def test_backup_under_load_and_restore(tmp_path: Path) -> None:
    """The mesh that is restored would be one that never was: an object newer than another, a secret lost, or nodes locked out."""
    assert CONFIG_MAP is not None
    first, second = Machine(tmp_path / "first"), Machine(tmp_path / "second")
    async with first.control_plane() as api:
        await api.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": CANARY}})
        enough = asyncio.Event()
        writers = [asyncio.create_task(write_pairs(api, f"w{n}", enough)) for n in range(4)]
        counted = [0]
        for n in range(4):
            path = tmp_path / f"backup-{n}"
            assert "objects of revision" in await first.tulle("backup", str(path), "--with-authority")
            counts = read(path)
            for writer in range(4):
                ahead = counts.get(f"w{writer}-first", 0) - counts.get(f"w{writer}-second", 0)
                assert ahead in (0, 1), counts  # a moment: never the second count without the first
            counted.append(sum(counts.values()))
        assert counted == sorted(set(counted))  # the writers went on all the time
        enough.set()
        await asyncio.gather(*writers)
        path = tmp_path / "backup"
        await first.tulle("backup", str(path), "--with-authority")
        before = await everything(api)
        seen = int((await api.list(CONFIG_MAP, "default"))["metadata"]["resourceVersion"])
    assert "already" in await first.tulle("backup", str(path), "--offline", code=1)
    await first.tulle("backup", str(tmp_path / "offline"), "--offline", "--with-authority")
    assert read(tmp_path / "offline") == read(path)
    for one in (path, tmp_path / "offline"):
        assert CANARY.encode() not in gzip.decompress(one.read_bytes())
        assert one.stat().st_mode & 0o777 == 0o600

    assert "encryption key" in await second.tulle("restore", str(path), code=1)  # which is not in the backup
    second.state.mkdir(parents=True, exist_ok=True)
    shutil.copy(first.state / "encryption.key", second.state)
    said = await second.tulle("restore", str(path))
    assert "objects restored, at revision" in said
    assert roots(second.state) == roots(first.state)
    async with second.control_plane() as api:
        assert await everything(api) == before
        found = await api.list(CONFIG_MAP, "default")
        assert min(int(item["metadata"]["resourceVersion"]) for item in found["items"]) > seen
        with pytest.raises(Expired):
            await anext(api.watch(CONFIG_MAP, "default", since=str(seen)))
        refused = await second.tulle("rollback", "--to-revision", str(seen), "--yes", code=1)
        assert "older than the history that is kept" in refused
        assert "in use by another process" in await second.tulle("restore", str(path), "--force", code=1)


async def test_a_running_program_writes_no_plaintext(tmp_path: Path) -> None:
    """A Secret that was applied, changed, deleted and rolled back must not be readable in any file, log or event of the mesh."""
    assert SECRET is not None
    machine = Machine(tmp_path)
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": CANARY}}
    async with machine.control_plane() as api:
        made = await api.apply(body)
        await api.apply({**body, "data": {"password": base64.b64encode(b"other").decode()}})
        await api.delete(SECRET, "s")
        await machine.tulle("rollback", "secret", "s", "--to", str(made["metadata"]["resourceVersion"]))
        assert (await api.get(SECRET, "s"))["data"] == {"password": CANARY}
        await machine.tulle("backup", str(tmp_path / "backup"), "--with-authority")
        said = await machine.tulle("history", "--diff") + json.dumps(await api.request("GET", "/api/v1/events"))
        running = {path.name: path.read_bytes() for path in machine.state.rglob("*") if path.is_file()}
    stopped = {path.name: path.read_bytes() for path in machine.state.rglob("*") if path.is_file()}
    assert running.get("store.db-wal")
    for content in (*running.values(), *stopped.values(), gzip.decompress((tmp_path / "backup").read_bytes()), said.encode()):
        for form in (CANARY.encode(), base64.b64decode(CANARY)):
            assert form not in content
