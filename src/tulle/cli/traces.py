"""`tulle traces`: the traces of a while, and one of them from its first span to its last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from tulle.cli.connection import asked, connect, mesh_option
from tulle.cli.setting import Duration
from tulle.cli.terminal import plain, table

if TYPE_CHECKING:
    from tulle.core.model.spans import Step, Summaries, Summary, Trace

_LIST = ["trace", "age", "duration", "spans", "errors", "request"]
_PATH = "/tulle/v1/telemetry/traces"
_BAR = 32  # characters of the whole time
_NONE = """no traces; a Telemetry says which share of the requests is traced:

kubectl apply -f - <<END
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: traces, namespace: tulle-system}
spec: {tracing: [{randomSamplingPercentage: 1}]}
END"""


@click.command()
@click.argument("trace", required=False, metavar="[ID]")
@click.option("--service", default="", help="Only those in which this application took part: `reviews`, or `default/reviews`.")
@click.option("--min-duration", type=Duration(), default=0.0, help="Only those that took that long: 500ms, 2s.")
@click.option("--errors", is_flag=True, help="Only those in which something failed.")
@click.option("-t", "--window", type=Duration(), default="1h", show_default=True, help="How far back.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@mesh_option
def traces(
    trace: str | None,
    service: str,
    min_duration: float,
    errors: bool,
    window: float,
    limit: int,
    output: str,
    kubeconfig: str | None,
) -> int:
    """Show the newest traces, or the one with that ID as a waterfall.

    A trace is a request with all that it caused, as the proxies on its way saw it. Which requests are traced a Telemetry says.

    \b
    tulle traces --service reviews --min-duration 500ms
    tulle traces 4bf92f3577b34da6a3ce929d0e0e4736
    """
    import msgspec

    from tulle.core.model.spans import Summaries, Trace

    query = {"service": service, "min_duration": 1000 * min_duration, "seconds": window, "limit": limit}
    path = f"{_PATH}/{trace}" if trace else f"{_PATH}?{urlencode(query | ({'errors': 'true'} if errors else {}))}"
    answer: Any = asked(connect(kubeconfig, lambda api: api.request("GET", path)))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
    elif trace:
        click.echo(waterfall(msgspec.convert(answer, Trace)), color=False if plain() else None)
    else:
        _show(msgspec.convert(answer, Summaries), narrowed=bool(service or min_duration or errors))
    return 0


def _show(found: Summaries, narrowed: bool) -> None:
    now = time.time()
    rows = [_row(line, now) for line in found.traces]
    if rows:
        click.echo(table(_LIST, rows))
    else:
        click.echo("no such traces" if narrowed else _NONE, err=True)
    if found.dropped:
        click.echo(f"{found.dropped} spans were dropped, for there were more than there is room for", err=True)


def _row(line: Summary, now: float) -> list[str]:
    begins = f"{'' if line.known else '... '}{line.service} {line.name}{line.path}"
    return [line.trace, _age(now - line.start), _milliseconds(line.duration), str(line.spans), str(line.errors or "-"), begins]


def waterfall(trace: Trace) -> str:
    """A trace as lines: who, when in the whole, how long, and what came of it."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(trace.start))
    head = f"trace {trace.trace}   {began}   {_milliseconds(trace.duration)}   {len(trace.steps)} spans"
    names = [f"{'  ' * min(step.depth, 12)}{_who(step)}" for step in trace.steps]
    wide = max((len(name) for name in names), default=0)
    lines = [head, ""]
    for name, step in zip(names, trace.steps, strict=True):
        line = f"{name:<{wide}}  {_bar(step, trace.duration)}  {_milliseconds(step.duration):>9}  {_came(step)}"
        lines.append(click.style(line.rstrip(), fg="red") if step.failed else line.rstrip())
    if any(step.moved for step in trace.steps):
        lines += ["", "~ told by a clock that is wrong: put where it must have been"]
    if any(step.lost for step in trace.steps):
        lines += ["", "? what called it is not here: it was not told, or told elsewhere"]
    return "\n".join(lines)


def _who(step: Step) -> str:
    mark = "?" if step.lost else "~" if step.moved else ""
    version = f" {step.version}" if step.version else ""
    return f"{mark}{'→' if step.kind == 'client' else '←'} {step.service}{version}"


def _bar(step: Step, whole: float) -> str:
    """Where in the whole time it was; a sign at least."""
    if whole <= 0:
        return "█" * _BAR
    begin = min(_BAR - 1, int(_BAR * step.start / whole))
    end = min(_BAR, max(begin + 1, round(_BAR * (step.start + step.duration) / whole)))
    return "·" * begin + "█" * (end - begin) + "·" * (_BAR - end)


def _came(step: Step) -> str:
    tags = step.tags
    flags = tags.get("response_flags", "-")
    code = tags.get("grpc.status_code") or tags.get("http.status_code") or ""
    return "  ".join(part for part in (code, step.name + step.path, "" if flags == "-" else flags) if part)


def _age(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.0f}h"


def _milliseconds(value: float) -> str:
    return f"{value:.1f}ms" if value < 10 else f"{value:.0f}ms" if value < 10_000 else f"{value / 1000:.1f}s"
