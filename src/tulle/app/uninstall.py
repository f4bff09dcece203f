"""`tulle node uninstall`: nothing of a node agent stays on this host, whether one runs, was stopped, or was killed.

A stopped agent leaves its workloads, their Envoys and the rules that capture their traffic to the next. Here there is no next.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tulle.app.node import NodeSettings, instance_of
from tulle.client.node_api import NodeClient
from tulle.kit.errors import Refused, Unavailable
from tulle.node import process
from tulle.node.network import teardown_instance
from tulle.node.record import FILE

_GRACE = 5.0  # seconds for processes to end by themselves
_AGENT = 30.0  # seconds for the agent, once it has said that its workloads are gone


async def uninstall(settings: NodeSettings) -> list[str]:
    """Take the workloads out of the mesh, end what runs, and remove rules, groups, namespaces, links and folders.

    Returns what a person should know, in sentences. Raises `Refused` where this user may not, `Unavailable` where anything stays.
    """
    said = []
    entries = await asyncio.to_thread(_entries, settings)
    try:
        async with NodeClient(settings.socket) as node:
            agent = process.process((await node.status()).pid)
            await node.shutdown(teardown=True)
        if agent is not None:
            await asyncio.wait_for(agent.ended(), _AGENT)
        said.append("the agent took its workloads out of the mesh and stopped")
    except Unavailable:
        if entries:
            said.append(f"no agent ran: the control plane still has the entries of {', '.join(entries)}, for `tulle delete`")
    instance = instance_of(settings)
    await process.end(await asyncio.to_thread(process.carrying, instance), grace=_GRACE)
    await teardown_instance(instance, settings.runtime_dir / "node")
    await asyncio.to_thread(_remove_folders, settings)
    said.append("no rule, control group, namespace or process of it is left; its identity and its records are removed")
    return said


def _entries(settings: NodeSettings) -> list[str]:
    found = (settings.state_dir / "workloads").glob(f"*/{FILE}")
    return sorted(file.parent.name.replace(".", "/", 1) for file in found)


def _remove_folders(settings: NodeSettings) -> None:
    """What an agent makes in its folders, and the folders where nothing else is in them."""
    try:
        for name in ("workloads", "identity.json", "bundles.json"):
            _remove(settings.state_dir / name)
        for name in ("w", "node", "node.sock", "dns.sock", "dns.log", "names.json"):
            _remove(settings.runtime_dir / name)
        for folder in (settings.state_dir, settings.runtime_dir):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}", hint="run as the user whose agent it is") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
