"""From a command to the control plane: which mesh is meant, and one event loop for one question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tulle.kit import paths
from tulle.kit.errors import Unavailable

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def mesh_option(function: F) -> F:
    """`--kubeconfig`: which mesh; without it the one of this machine."""
    return click.option(
        "--kubeconfig",
        type=click.Path(dir_okay=False),
        envvar="TULLE_KUBECONFIG",
        show_envvar=True,
        help="Which mesh: a kubeconfig file. Without it, the mesh of this machine.",
    )(function)


def namespace_option(function: F) -> F:
    """`-n`, as kubectl has it."""
    return click.option(
        "-n",
        "--namespace",
        envvar="TULLE_NAMESPACE",
        show_envvar=True,
        default="default",
        show_default=True,
        help="The namespace of what is named without one.",
    )(function)


def kubeconfig_path(chosen: str | None) -> Path:
    """The kubeconfig to use; raises `Unavailable` with a hint where there is none."""
    path = Path(chosen) if chosen else paths.kubeconfig()
    if not path.exists():
        raise Unavailable(
            f"no mesh is known on this machine: {path} is not there",
            hint="start one with `tulle demo up` or `tulle control-plane`, or name its kubeconfig with --kubeconfig",
        )
    return path


async def connect(chosen: str | None, ask: Callable[[ApiClient], Awaitable[T]]) -> T:
    """Call `ask` with a client of that mesh."""
    path = kubeconfig_path(chosen)
    from tulle.client.api import ApiClient

    async with ApiClient.from_kubeconfig(path) as api:
        return await ask(api)


def asked(question: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return asyncio.run(question)
