"""`tulle ratelimit`: how the limits of the mesh stand, and who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from tulle.cli.calls import all_option, window_option
from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.core.ratelimit.status import LimitStatuses, RuleStatus

_HEADER = ["rule", "counting", "limit", "comes", "over", "refused", "used", "state"]


@click.group()
def ratelimit() -> None:
    """Rate limits: how close they are, and who is refused."""


@ratelimit.command()
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True)
@window_option
@all_option
@namespace_option
@mesh_option
def status(name: str | None, output: str, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show how the rules of RateLimits stand, and whose requests were refused; with NAME also each proxy's share, and each key.

    Those come first that need somebody. COMES and OVER are requests a second now, REFUSED all since the control plane began; USED
    is how much of the limit is, of a limit with keys by the key that uses most.

    \b
    tulle ratelimit status
    tulle ratelimit status reviews
    """
    import msgspec

    from tulle.core.ratelimit.status import LimitStatuses

    space = "" if all_namespaces and not name else f"{namespace}/"
    query = urlencode({"rule": f"{space}{name}/" if name else space, "seconds": window})
    answer: Any = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/telemetry/limits?{query}")))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
        return 0
    found = msgspec.convert(answer, LimitStatuses)
    if not found.rules:
        of = f" of RateLimit {name} in {namespace}" if name else "" if all_namespaces else f" in {namespace}"
        click.echo(f"no proxy counts anything{of}; tulle analyze says why a RateLimit stands nowhere", err=True)
        return int(bool(name))
    rules = sorted(found.rules, key=_urgency)
    click.echo(table(_HEADER, [_row(rule) for rule in rules]))
    for rule in rules if name else ():
        _details(rule)
    _callers(found)
    return 0


def _row(rule: RuleStatus) -> list[str]:
    return [
        rule.rule,
        rule.counting,
        _limit(rule),
        f"{rule.rate:.1f}/s",
        f"{rule.over:.1f}/s",
        str(rule.refused),
        "-" if rule.used is None else f"{rule.used:.0%}",
        _state(rule),
    ]


def _limit(rule: RuleStatus) -> str:
    """As it was written: `100 Requests / 1m +20 a key`."""
    size, unit = next(
        ((size, unit) for size, unit in ((3600, "h"), (60, "m")) if rule.window and not rule.window % size), (1, "s")
    )
    burst = f" +{rule.burst:,}" if rule.burst else ""
    return f"{rule.limit:,} {rule.unit} / {rule.window / size:g}{unit}{burst}{' a key' if rule.keyed else ''}"


def _urgency(rule: RuleStatus) -> tuple[float, float, float, str]:
    """What cannot be counted, then who refuses most, then who is nearest to it."""
    return -rule.failing, 0.0 if rule.shadow else -rule.over, -(rule.used or 0.0), rule.rule


def _state(rule: RuleStatus) -> str:
    if rule.failing >= 0.05:
        return f"{rule.failing:.1f}/s not counted, {'refused' if rule.denies else 'let through'}"
    if rule.shadow:
        return "shadow: nothing is refused"
    if rule.over >= 0.05:
        return "refusing"
    return "near" if rule.used is not None and rule.used >= 0.8 else "within"


def _details(rule: RuleStatus) -> None:
    click.echo(f"\n{rule.rule}: {rule.bound}")
    if rule.failed:
        click.echo(f"since the control plane began {rule.failed} were not counted")
    if rule.proxies:
        rows = [[one.proxy, f"{one.share:.1%}", f"{one.rate:.1f}/s", f"{one.over:.1f}/s"] for one in rule.proxies]
        click.echo(table(["proxy", "share", "comes", "over"], rows))
    if rule.keys:
        keys = [[_shown(one.key), f"{one.used:.0%}", str(one.allowed), str(one.refused)] for one in rule.keys]
        click.echo(table(["key", "used", "passed", "refused"], keys))


def _shown(key: str) -> str:
    """A key is what a caller has chosen: nothing that a terminal would act on."""
    if key.startswith("\x00"):
        return "(all for which there was no room)"
    return "".join(letter if letter.isprintable() else "?" for letter in key) or "(none)"


def _callers(found: LimitStatuses) -> None:
    if found.callers:
        rows = [[_shown(one.source), one.service, str(one.refused), str(one.calls)] for one in found.callers]
        click.echo(f"\nrefused most in the last {found.seconds:g}s")
        click.echo(table(["caller", "service", "refused", "of"], rows))
