"""What `tulle logs` and `tulle tap` share: which requests are meant, and the answer that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tulle.cli.connection import connect
from tulle.cli.run import qualified
from tulle.cli.setting import Duration
from tulle.cli.terminal import say

if TYPE_CHECKING:
    from tulle.client.api import ApiClient
    from tulle.core.model.looks import Told

F = TypeVar("F", bound=Callable[..., Any])


def wanted_options(function: F) -> F:
    """`--status`, `--from`, `--method`, `--path`, `--slower`: only requests for which all of them hold."""
    options = (
        click.option("--status", default="", metavar="STATUS", help="Only these: 5xx, 404, 400-499, several by commas."),
        click.option(
            "--from", "caller", default="", metavar="SA", help="Only calls of this service account: NAME or NAMESPACE/NAME."
        ),
        click.option("--method", default="", help="Only this method."),
        click.option("--path", default="", metavar="PREFIX", help="Only paths that begin so."),
        click.option("--authority", default="", metavar="HOST", help="Only calls of this host."),
        click.option("--slower", type=Duration(), default=None, metavar="TIME", help="Only what took so long or longer."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def query(
    namespace: str, *, status: str, caller: str, method: str, path: str, authority: str, slower: float | None
) -> dict[str, str]:
    """The options as the control plane takes them. Raises a usage error for what cannot be meant."""
    from tulle.core.model.looks import statuses

    try:
        statuses(status)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--status") from error
    said = {
        "status": status,
        "from": qualified(caller, namespace) if caller else "",
        "method": method,
        "path": path,
        "authority": authority,
        "slower": "" if slower is None else f"{slower:g}",
    }
    return {name: value for name, value in said.items() if value}


def look(kubeconfig: str | None, path: str, asked: dict[str, str], show: Callable[[Told], None]) -> int:
    """Show what comes until it ends, or the person does (Ctrl-C). What is for the person goes to standard error."""

    async def follow(api: ApiClient) -> int:
        import msgspec

        from tulle.core.model.looks import Told

        async with contextlib.aclosing(api.follow(path, asked)) as answer:
            async for one in answer:
                told = msgspec.convert(one, Told)
                show(told)
                for note in told.notes:
                    say(note)
                if told.ended:
                    if told.error:
                        from tulle.kit.errors import TulleError

                        raise TulleError(told.error)
                    return 0
        from tulle.kit.errors import Unavailable

        raise Unavailable("the control plane ended the answer", hint="it, or the node, has stopped; try again")

    async def until_asked(api: ApiClient) -> int:
        task = asyncio.ensure_future(follow(api))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return 0

    return asyncio.run(connect(kubeconfig, until_asked))
