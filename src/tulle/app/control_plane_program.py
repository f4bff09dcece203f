"""`tulle control-plane` as a program: its ports looked at, signals, limits, and what it says to systemd."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator

import structlog

from tulle.app import logs, preflight, rights
from tulle.app.certificate import split_address
from tulle.app.control_plane import ControlPlane
from tulle.app.notify import notify
from tulle.app.settings import ControlPlaneSettings

log = structlog.get_logger("tulle.control-plane")


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def serve(settings: ControlPlaneSettings) -> None:
    """Run until SIGTERM; raises `TulleError` where it cannot start, and what a task died of."""
    for address, name in ((settings.api_address, "API server"), (settings.xds_address, "xDS server")):
        preflight.check_port(*split_address(address), name)
    async with _signals() as asked:
        plane = ControlPlane(settings)
        stop = asyncio.ensure_future(asked.wait())
        starting = asyncio.ensure_future(plane.__aenter__())
        await asyncio.wait((stop, starting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # it waits for a store that is away
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        try:
            starting.result()
            log.info(
                "control plane ready",
                name=plane.member.name,
                api=settings.api_address,
                xds=settings.xds_address,
                revision=plane.pipeline.revision,
            )
            notify("READY=1\nSTATUS=")
            failed = asyncio.ensure_future(plane.failed())
            await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            stop.cancel()
            if failed.done():
                failed.result()
            failed.cancel()
        finally:
            await plane.close()


def run_control_plane(settings: ControlPlaneSettings) -> None:
    """The program; returns after SIGTERM."""
    import uvloop

    logs.configure(settings.log_level)
    rights.of_control_plane()
    # Every client and every node is a descriptor; the soft limit is there for programs that use select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(settings))
