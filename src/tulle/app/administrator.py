"""The kubeconfig of the administrator on a control plane's own machine: written at every start, kept valid while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from tulle.app.certificate import is_any, split_address
from tulle.app.settings import ControlPlaneSettings
from tulle.client import kubeconfig
from tulle.control.members import Member
from tulle.kit.errors import TulleError
from tulle.ports import Signer

log = structlog.get_logger("tulle.control-plane")

_LIFETIME = 365 * 24 * 3600.0  # seconds
_DAY = 24 * 3600.0


async def write_kubeconfig(settings: ControlPlaneSettings, signer: Signer, others: Iterable[Member]) -> None:
    """For this control plane, and with `others` as further contexts."""
    person = await signer.issue_client("tulle-admin", ["system:masters"], _LIFETIME)
    host, port = split_address(settings.api_address)
    host = "127.0.0.1" if is_any(host) else host
    kubeconfig.write(
        settings.state_dir / "kubeconfig",
        server=f"https://{host}:{port}",
        ca=signer.bundle,
        certificate=person.chain,
        key=person.key,
        others={one.name: f"https://{one.api}" for one in others},
    )


async def keep(write: Callable[[], Awaitable[None]]) -> None:
    """Write it anew each day, for ever: a signer elsewhere may give less than a year."""
    while True:
        await asyncio.sleep(_DAY)
        try:
            await write()
        except TulleError as error:
            log.warning("the kubeconfig was not renewed", why=error.message)
