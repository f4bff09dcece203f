"""`tulle check`: is this machine fit, does the mesh run, are certificates good, do the proxies have what was written."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import click

from tulle.cli.connection import connect, mesh_option
from tulle.cli.run import socket_option
from tulle.cli.terminal import plain
from tulle.kit import paths
from tulle.kit.errors import TulleError

_HOUR = 3600.0


class Mark(StrEnum):
    """How a check ended; a warning does not fail the command."""

    GOOD = "ok"
    WARN = "warning"
    BAD = "failed"


class Finding(NamedTuple):
    """One line of the result: `what` was looked at, what was found, and what to do."""

    group: str
    what: str
    mark: Mark
    detail: str = ""
    hint: str = ""


SIGNS = {Mark.GOOD: ("√", "green"), Mark.WARN: ("‼", "yellow"), Mark.BAD: ("×", "red")}  # noqa: RUF001


@click.command()
@click.option("--pre", is_flag=True, help="Only whether this machine is fit, before anything is started.")
@mesh_option
@socket_option
@click.option("-o", "--output", type=click.Choice(["table", "short", "json"]), default="table", show_default=True)
def check(pre: bool, kubeconfig: str | None, socket: Path | None, output: str) -> int:
    """Look for what is wrong with this machine and this mesh. Exit status 1 where something is."""
    found = asyncio.run(_all(pre, kubeconfig, socket))
    if output == "json":
        import json

        click.echo(json.dumps([it._asdict() for it in found], indent=2, ensure_ascii=False))
    elif output == "short":
        for it in found:
            if it.mark is not Mark.GOOD:
                click.echo(_line(it))
    else:
        click.echo(_table(found))
    return int(any(it.mark is Mark.BAD for it in found))


async def _all(pre: bool, kubeconfig: str | None, socket: Path | None) -> list[Finding]:
    found = [it async for it in _machine()]
    if not pre:
        found += [it async for it in _mesh(kubeconfig)]
        found += [it async for it in _node(socket)]
    else:
        found += _ports()
    return found


async def _machine() -> AsyncIterator[Finding]:
    """Envoy and the C library under it, and how traffic can be captured."""
    from tulle.app import preflight
    from tulle.node.capture import choose

    group = "machine"
    yield await _tried(group, "Envoy runs", lambda: f"version {preflight.check_envoy()}")
    for program, package, why in (("nft", "nftables", "netns capture"), ("ip", "iproute2", "netns capture")):
        where = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if where:
            yield Finding(group, f"{program} is installed", Mark.GOOD, where)
        else:
            yield Finding(group, f"{program} is installed", Mark.WARN, f"not found: no {why}", f"apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="tulle-check-") as scratch:
        try:
            _, reason = await choose("auto", instance=f"check-{os.getpid()}", folder=Path(scratch))
        except TulleError as error:
            yield Finding(group, "traffic can be captured", Mark.BAD, error.message, error.hint)
        else:
            mark = Mark.WARN if reason.startswith("proxy") else Mark.GOOD
            yield Finding(group, "traffic can be captured", mark, reason)


def _ports() -> list[Finding]:
    """The ports that the programs take where nothing else is said."""
    from tulle.app import preflight

    found = []
    for port, name in ((15080, "API server"), (15012, "xDS server"), (8080, "ingress of the demo")):
        what = f"port {port} is free"
        try:
            preflight.check_port("127.0.0.1", port, name)
        except TulleError as error:
            found.append(Finding("machine", what, Mark.WARN, error.message, error.hint))
        else:
            found.append(Finding("machine", what, Mark.GOOD, name))
    return found


def _leader(status: Mapping[str, Any]) -> Finding:
    """Whether one of the control planes does what only one does: conditions, garbage collection, Events."""
    names = [one["name"] for one in status["controlPlanes"]]
    what = "one control plane leads" if len(names) > 1 else "it leads"
    if status["leader"] in names:
        return Finding("control plane", what, Mark.GOOD, f"{status['leader']}, of {', '.join(names)}")
    hint = "where that lasts longer than half a minute, its store does not take writes: look at its log"
    return Finding("control plane", what, Mark.WARN, f"nobody does at the moment, of {', '.join(names)}", hint)


async def _mesh(kubeconfig: str | None) -> AsyncIterator[Finding]:
    """The control plane, the certificate that this person has, the objects, the proxies."""
    import tulle

    group = "control plane"
    path = Path(kubeconfig) if kubeconfig else paths.kubeconfig()
    try:
        status = await connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/status"))
    except TulleError as error:
        yield Finding(group, "the control plane answers", Mark.BAD, error.message, error.hint)
        return
    yield Finding(
        group, "the control plane answers", Mark.GOOD, f"revision {status['revision']}, trust domain {status['trustDomain']}"
    )
    same = status["version"] == tulle.__version__
    yield Finding(
        group,
        "it has the version of this command",
        Mark.GOOD if same else Mark.WARN,
        f"{status['version']}" if same else f"control plane {status['version']}, this command {tulle.__version__}",
    )
    yield _leader(status)
    notice = status.get("figures", {}).get("notice", "")  # one of an older version says nothing of it
    yield Finding(group, "figures and records are whole", Mark.WARN if notice else Mark.GOOD, notice)
    yield _own_certificate(path)
    async for it in _objects(kubeconfig):
        yield it
    answer = await connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/synced", query={"timeout": "5"}))
    proxies = (await connect(kubeconfig, lambda api: api.request("GET", "/tulle/v1/proxies")))["proxies"]
    if answer["synced"]:
        yield Finding(
            "proxies", "every proxy has what was written", Mark.GOOD, f"{len(proxies)} connected, revision {answer['revision']}"
        )
    else:
        names = ", ".join(answer["behind"])
        yield Finding("proxies", "every proxy has what was written", Mark.BAD, f"behind: {names}", "tulle proxy status NAME")
    for proxy in proxies:
        for status in proxy["types"]:
            for name, why in status.get("refused", {}).items():
                yield Finding("proxies", f"{proxy['proxy']} takes {name}", Mark.BAD, why)


async def _objects(kubeconfig: str | None) -> AsyncIterator[Finding]:
    """What the analysis says of the mesh: how much, and the errors themselves."""
    from tulle.cli.meaning import standing
    from tulle.core.analyze.finding import counted
    from tulle.kit.problem import Severity

    found = await connect(kubeconfig, standing)
    harmless = all(it.severity is Severity.INFO for it in found)
    hint = "" if harmless else "tulle analyze -A"
    yield Finding("objects", "the analysis finds no mistakes", Mark.GOOD if harmless else Mark.WARN, counted(found), hint)
    for it in found:
        if it.severity is Severity.ERROR:
            place = f"{it.ref}: {it.path}" if it.ref else it.path
            yield Finding("objects", "every object can be acted on", Mark.WARN, f"{place}: {it.message} [{it.code}]", it.hint)


def _own_certificate(path: Path) -> Finding:
    """The kubeconfig's client certificate, and how long it is good."""
    from datetime import UTC, datetime

    from tulle.cli.kubeconfig import certificate_end

    group, what = "certificates", "the kubeconfig's certificate is valid"
    end = certificate_end(path)
    if end is None:
        return Finding(group, what, Mark.WARN, f"{path} has none that can be read")
    left = (end - datetime.now(UTC)).total_seconds()
    if left <= 0:
        return Finding(
            group, what, Mark.BAD, f"it ended {end:%Y-%m-%d %H:%M} UTC", "restart the control plane: it writes a new one"
        )
    return Finding(group, what, Mark.GOOD if left > 24 * _HOUR else Mark.WARN, f"until {end:%Y-%m-%d %H:%M} UTC")


async def _node(socket: Path | None) -> AsyncIterator[Finding]:
    """The node agent of this host: its way to the control plane, its workloads and their certificates."""
    from tulle.client.node_api import NodeClient

    group = "node"
    try:
        async with NodeClient(socket) as node:
            status = await node.status()
    except TulleError as error:
        yield Finding(group, "the node agent answers", Mark.WARN, error.message, error.hint)
        return
    yield Finding(group, "the node agent answers", Mark.GOOD, f"{status.name}, capture {status.capture_reason}")
    if status.connected:
        yield Finding(group, "it reaches the control plane", Mark.GOOD, status.control_plane)
    else:
        hint = "its proxies go on with what they have; look at the agent's log"
        yield Finding(group, "it reaches the control plane", Mark.BAD, f"{status.control_plane} does not answer", hint)
    now = time.time()
    for it in status.workloads:
        if it.error or it.state not in ("ready", "draining"):
            yield Finding(group, f"{it.id} serves", Mark.BAD, it.error or it.state)
        left = it.expires - now
        if it.expires and left <= 0:
            yield Finding("certificates", f"the certificate of {it.id} is valid", Mark.BAD, "it has ended")
        elif it.expires and left < 600:
            yield Finding("certificates", f"the certificate of {it.id} is valid", Mark.WARN, f"it ends in {left:.0f} s")
    good = [it for it in status.workloads if it.state == "ready" and not it.error]
    yield Finding(group, "its workloads serve", Mark.GOOD, f"{len(good)} of {len(status.workloads)}")
    ends = [it.expires for it in status.workloads if it.expires > now]
    if ends:
        yield Finding(
            "certificates", "workloads' certificates are valid", Mark.GOOD, f"the first ends in {(min(ends) - now) / _HOUR:.1f} h"
        )


async def _tried(group: str, what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(group, what, Mark.GOOD, await asyncio.to_thread(look))
    except TulleError as error:
        return Finding(group, what, Mark.BAD, error.message, error.hint)


def _line(it: Finding) -> str:
    sign, colour = SIGNS[it.mark]
    text = it.what if not it.detail else f"{it.what}: {it.detail}"
    return f"{click.style(sign, fg=None if plain() else colour)} {text}"


def _table(found: Sequence[Finding]) -> str:
    """Groups with their heading, and under each finding that is not good what to do."""
    lines: list[str] = []
    for group in dict.fromkeys(it.group for it in found):
        lines += ["", group, "-" * len(group)]
        for it in found:
            if it.group == group:
                lines.append(_line(it))
                if it.hint and it.mark is not Mark.GOOD:
                    lines += [f"    {part}" for part in it.hint.splitlines()]
    counts: dict[Any, int] = {mark: sum(it.mark is mark for it in found) for mark in Mark}
    lines += ["", f"{counts[Mark.GOOD]} good, {counts[Mark.WARN]} warnings, {counts[Mark.BAD]} failed"]
    return "\n".join(lines[1:])
