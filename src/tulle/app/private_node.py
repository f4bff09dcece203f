"""A node agent for `tulle run` where the machine has none: started for it, and gone with the last workload that needs it.

It takes a control plane that this person may administer: the join token is made with the person's own credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tulle.client.node_api import NodeClient
from tulle.kit import paths
from tulle.kit.errors import TulleError, Unavailable

_LIMIT = 30.0


@contextlib.asynccontextmanager
async def node_agent(path: Path | None) -> AsyncIterator[Path]:
    """The socket of this machine's agent, or (where no `path` was asked for) of one that is started now.

    Raises `Unavailable` where there is none and none can be started, with what to do.
    """
    where = path or paths.node_socket()
    if await _answers(where):
        yield where
        return
    if path is not None:
        raise Unavailable(f"no node agent answers at {path}", hint="start one with `tulle node`")
    where = paths.runtime_dir() / "node.sock"
    child = await _start()
    try:
        await _until_ready(where, child)
        yield where
    finally:
        with contextlib.suppress(TulleError):
            async with NodeClient(where) as node:
                if not (await node.status()).workloads:  # others may have come to rely on it meanwhile
                    await node.shutdown(teardown=True)


async def _answers(path: Path) -> bool:
    try:
        async with NodeClient(path) as node:
            await node.status()
    except Unavailable:
        return False
    return True


async def _start() -> subprocess.Popen[bytes]:
    from tulle.client.api import ApiClient

    nothing = "neither a node agent nor a control plane runs on this machine"
    config = paths.kubeconfig()
    if not config.exists():
        raise Unavailable(nothing, hint="start both with `tulle demo up`, or `tulle control-plane` and `tulle node`")
    try:
        async with ApiClient.from_kubeconfig(config) as api:
            status = await api.request("GET", "/tulle/v1/status", timeout=5)
            token = (await api.request("POST", "/tulle/v1/tokens", body={"allow": ["*/*"], "lifetime": 120}))["token"]
            address = api.server.removeprefix("https://")
    except Unavailable as error:
        raise Unavailable(f"{nothing}: {error.message}", hint="start it with `tulle control-plane`") from error
    xds_host, _, xds_port = str(status["xdsAddress"]).rpartition(":")
    if xds_host in ("", "0.0.0.0", "[::]"):  # noqa: S104 - compared, not bound
        xds_host = address.rpartition(":")[0]
    others = [one for one in status["controlPlanes"] if one["name"] != status["name"]]
    folder = paths.state_dir() / "node"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {
        "TULLE_NODE_NAME": socket.gethostname().partition(".")[0].lower(),
        "TULLE_API_ADDRESS": ",".join([address, *(one["api"] for one in others)]),
        "TULLE_XDS_ADDRESS": ",".join([f"{xds_host}:{xds_port}", *(one["xds"] for one in others)]),
        "TULLE_TOKEN": token,  # in the environment, where other users cannot see it
    }
    with (folder / "node.log").open("ab") as log:
        return await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "tulle", "node"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **settings},
            start_new_session=True,
        )


async def _until_ready(where: Path, child: subprocess.Popen[bytes]) -> None:
    log = paths.state_dir() / "node" / "node.log"
    try:
        async with asyncio.timeout(_LIMIT):
            while not await _answers(where):
                if child.poll() is not None:
                    lines = (await asyncio.to_thread(log.read_text, errors="replace")).splitlines()
                    raise Unavailable("the node agent did not start", hint="\n".join(lines[-4:]))
                await asyncio.sleep(0.05)
    except TimeoutError:
        child.terminate()
        raise Unavailable(f"the node agent did not start within {_LIMIT:g} s", hint=f"see {log}") from None
