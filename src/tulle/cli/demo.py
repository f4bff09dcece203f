"""`tulle demo up | status | down`: what `app/demo.py` does, shown to a person."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tulle.cli.lazy import LazyGroup
from tulle.cli.setting import setting
from tulle.cli.terminal import live, plain, say

if TYPE_CHECKING:
    from tulle.app.demo_state import DemoState

MARKS = {"waiting": "·", "starting": "…", "ready": "√", "failed": "×", "stopped": "-"}  # noqa: RUF001 - the mark that checks show
COLOURS = {"ready": "green", "failed": "red", "starting": "yellow"}

SPLIT = """  tulle apply -f - <<'EOF'                                    # three quarters of the readers see red stars
  apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: reviews}
  spec:
    parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
    rules:
    - backendRefs:
      - {name: reviews-v1, port: 9080, weight: 25}
      - {name: reviews-v3, port: 9080, weight: 75}
  EOF"""


@click.group(cls=LazyGroup)
def demo() -> None:
    """Run the mesh with a sample application on this machine.

    Control plane, node agent, ingress gateway and Istio's Bookinfo, every workload behind an Envoy of its own, with mutual TLS
    between all of them.
    """


@demo.command()
@click.option("--detach", "-d", is_flag=True, help="Return when everything serves, and leave it running.")
@setting(
    "--capture",
    type=click.Choice(["auto", "netns", "cgroup", "proxy"]),
    default="auto",
    show_default=True,
    help="How traffic gets into the sidecars: network namespaces, or a forward proxy. auto takes the strongest that works here.",
)
@setting("--ingress-port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Where the ingress listens.")
@setting("--api-port", type=click.IntRange(1, 65535), default=15080, show_default=True, help="Where the API server listens.")
@setting("--xds-port", type=click.IntRange(1, 65535), default=15012, show_default=True, help="Where the xDS server listens.")
@setting("--load", type=click.FloatRange(0), default=0.0, metavar="RPS", help="Page views a second, for something to look at.")
def up(detach: bool, capture: str, ingress_port: int, api_port: int, xds_port: int, load: float) -> int:
    """Start the demo. Without --detach it stays in the foreground, and Ctrl-C takes it down."""
    from tulle.app import demo as program
    from tulle.app.settings import DemoSettings

    settings = DemoSettings(
        detach=detach, capture=capture, ingress_port=ingress_port, api_port=api_port, xds_port=xds_port, load=load
    )

    async def session() -> int:
        with _progress() as show:
            state = await program.up(settings, show)
        click.echo(_summary(state, detach))
        if not detach:
            await program.stay(lambda _state: None)
            say("the demo is down")
        return 0

    return asyncio.run(session())


@demo.command()
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
def status(output: str) -> int:
    """Show what the demo runs; exit status 1 where there is none, or it is not ready."""
    from tulle.app import demo as program

    state = program.status()
    if output != "text":
        import msgspec

        from tulle.cli.document import dump

        click.echo(dump(msgspec.to_builtins(state), output), nl=False)
    elif state is None:
        click.echo("no demo is running; start one with `tulle demo up`")
    else:
        click.echo("\n".join(_line(step.name, step.state, step.detail, len(_widest(state))) for step in state.steps))
        if state.ready:
            click.echo(f"\nserving at {state.ingress}\nAPI server {state.api}, capture {state.capture_reason}")
        if state.error:
            from tulle.cli.terminal import fail

            fail(state.error, state.hint)
    return 0 if state is not None and state.ready else 1


@demo.command()
def down() -> int:
    """Stop the demo and remove every trace of it, also of one that was killed."""
    from tulle.app import demo as program

    had = asyncio.run(program.down())
    click.echo("the demo is down" if had else "no demo was running")
    return 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[DemoState], None]]:
    """A table that is redrawn on a terminal; a line for each step that changed anywhere else. On standard error."""
    if not live():
        told: dict[str, tuple[str, str]] = {}

        def line(state: DemoState) -> None:
            for step in state.steps:
                if told.get(step.name, ("waiting", "")) != (step.state, step.detail):
                    told[step.name] = (step.state, step.detail)
                    if step.state != "starting":
                        say(_line(step.name, step.state, step.detail, len(_widest(state))))

        yield line
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True, no_color=plain(), highlight=False), refresh_per_second=12) as display:
        yield lambda state: display.update(_redrawn(state))


def _redrawn(state: DemoState) -> Any:
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for step in state.steps:
        mark = Spinner("dots") if step.state == "starting" else Text(MARKS.get(step.state, "?"), COLOURS.get(step.state, "dim"))
        grid.add_row(mark, Text(step.name), Text(step.detail, "dim"))
    return grid


def _widest(state: DemoState) -> str:
    return max((step.name for step in state.steps), key=len, default="")


def _line(name: str, state: str, detail: str, width: int) -> str:
    mark = click.style(MARKS.get(state, "?"), fg=COLOURS.get(state))
    return f"{mark} {name:<{width}}  {detail or state}".rstrip()


def _summary(state: DemoState, detach: bool) -> str:
    """Addresses, and six commands worth trying."""
    import shutil
    import sys
    from pathlib import Path

    activate = Path(sys.prefix) / "bin" / "activate"
    first = "" if shutil.which("tulle") else f"  source {activate}\n"
    end = "`tulle demo down` stops it" if detach else "Ctrl-C stops it"
    url = "http://reviews:9080/reviews/0"
    python = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}\").read().decode())'"
    call = f"curl -s {url}" if shutil.which("curl") else python
    has_kubectl = shutil.which("kubectl") is not None
    listed = 'kubectl --kubeconfig "$(tulle kubeconfig)" get httproutes' if has_kubectl else "tulle get httproutes"
    same = "the same objects with kubectl" if has_kubectl else "the objects; kubectl shows the same, with `tulle kubeconfig`"
    return f"""
Bookinfo runs in the mesh (ready after {state.seconds:.1f} s; {end}).

  page        {state.ingress}
  API server  {state.api}
  capture     {state.capture_reason}

Six things to try{"" if detach else " in another terminal"}:

{first}  tulle dashboard                                             # in your browser: who calls whom, what fails, and why
  tulle proxy status                                          # every Envoy, and whether it has the newest configuration
  {f"tulle exec curl -- {call}":<59} # call as a workload does: mutual TLS, balanced over v1, v2, v3
{SPLIT}
  {listed:<59} # {same}
  tulle proxy config route productpage-v1                     # what the Envoy of productpage does with it
"""
