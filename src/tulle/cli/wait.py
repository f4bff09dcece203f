"""`tulle wait --for=synced`: until every connected proxy has acknowledged a revision; and the same after `tulle apply --wait`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.setting import Duration
from tulle.cli.terminal import fail, live, say

if TYPE_CHECKING:
    from tulle.client.api import ApiClient

_STEP = 1.0  # seconds between two lines of progress


@click.command()
@click.option("--for", "what", type=click.Choice(["synced"]), required=True, help="synced: every proxy has acknowledged.")
@click.option("--revision", type=click.IntRange(0), help="What it must have acknowledged. Default: all that was written so far.")
@click.option("--timeout", type=Duration(), default="20s", show_default=True, help="How long to wait.")
@mesh_option
def wait(what: str, revision: int | None, timeout: float, kubeconfig: str | None) -> int:
    """Wait until every connected proxy has what was written. Exit status 1 where one has not by then."""
    answer = asked(connect(kubeconfig, lambda api: until_synced(api, revision, timeout)))
    if answer["synced"]:
        click.echo(f"{what} to revision {answer['revision']}")
        return 0
    behind(answer, timeout)
    return 1


def behind(answer: dict[str, Any], timeout: float) -> None:
    """Say which proxies have not acknowledged in that time."""
    fail(
        f"after {timeout:g} s without revision {answer['revision']}: {', '.join(answer['behind'])}",
        "`tulle proxy status NAME` says what each of them misses",
    )


async def until_synced(api: ApiClient, revision: int | None, timeout: float) -> dict[str, Any]:
    """The control plane's last word on `revision` (None: all that was written so far) after at most `timeout` seconds.

    How many proxies have it goes to standard error meanwhile: in place on a terminal, else a line whenever it changes.
    """
    end = time.monotonic() + timeout
    shown = ""
    while True:
        left = max(end - time.monotonic(), 0.0)
        step = min(left, _STEP)
        query = {"timeout": f"{step:g}"} | ({"revision": str(revision)} if revision is not None else {})
        answer: dict[str, Any] = await api.request("GET", "/tulle/v1/synced", query=query, timeout=step + 10)
        revision = answer["revision"]
        text = f"{answer['proxies'] - len(answer['behind'])}/{answer['proxies']} proxies"
        if answer["synced"] or left <= _STEP:
            _show(text if shown and text != shown else "", last=bool(shown))
            return answer
        if text != shown:
            _show(text)
            shown = text


def _show(text: str, *, last: bool = False) -> None:
    if live():
        if text:
            sys.stderr.write(f"\r{text}")
        if last:
            sys.stderr.write("\n")
        sys.stderr.flush()
    elif text:
        say(text)
