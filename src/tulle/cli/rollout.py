"""`tulle rollout`: a new version of a service gets its traffic step by step, and loses it when its measurements break."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.api.kind import Kind
    from tulle.client.api import ApiClient

F = TypeVar("F", bound=Callable[..., Any])
Raw = dict[str, Any]

_PATIENCE = 10.0  # seconds that a command waits until it is done
_COMMAND = "tulle.dev/rollout"  # an annotation: what a person asks for, and when
_MANAGER = "tulle-rollout"
_HEADER = ["rollout", "service", "strategy", "phase", "candidate", "step", "failed checks", "message"]
_ROUTES = {
    "httproute": ("gateway.networking.k8s.io", "HTTPRoute"),
    "grpcroute": ("gateway.networking.k8s.io", "GRPCRoute"),
    "virtualservice": ("networking.istio.io", "VirtualService"),
}


@click.group()
def rollout() -> None:
    """New versions that get their traffic step by step, and lose it when they fail."""


def _wish(function: F) -> F:
    """What a new rollout is to be."""
    for option in reversed(
        (
            click.argument("name"),
            click.option("--service", required=True, prompt="Service that callers name", help="The Service that callers name."),
            click.option(
                "--route",
                required=True,
                prompt="Route that has the weights (KIND/NAME[/RULE])",
                help="Whose weights are written: KIND/NAME[/RULE], of KIND httproute, grpcroute or virtualservice.",
            ),
            click.option(
                "--stable", required=True, prompt="Version that is there", help="The `version` label that has the traffic."
            ),
            click.option("--candidate", required=True, prompt="New version", help="The `version` label that is to get it."),
            click.option(
                "--template",
                type=click.Choice(["canary", "blue-green", "ab-test"]),
                default="canary",
                show_default=True,
                help="More traffic step by step; none and then all; or all of those who match.",
            ),
            click.option("--step", type=click.IntRange(1, 100), default=10, show_default=True, help="Percent more in each step."),
            click.option(
                "--max", "most", type=click.IntRange(1, 100), default=50, show_default=True, help="Percent, before all of it."
            ),
            click.option(
                "--checks", type=int, default=5, show_default=True, help="How many must pass, of blue-green and of an A/B test."
            ),
            click.option(
                "--header",
                default="cookie=^(.*; )?candidate=yes(;.*)?$",
                show_default=True,
                help="Whom the rule of an A/B test matches: NAME=EXPRESSION.",
            ),
            click.option("--mirror", is_flag=True, help="Copies of requests first, whose answers nobody gets."),
            click.option("--interval", default="1m", show_default=True, help="How long a step takes at least."),
            click.option("--threshold", type=int, default=5, show_default=True, help="Failed checks before it goes back."),
            click.option(
                "--success",
                type=click.FloatRange(0, 100),
                default=99.0,
                show_default=True,
                help="Least success rate, in percent.",
            ),
            click.option("--latency", type=float, default=None, help="Most that 99 of 100 requests may take, in ms."),
            namespace_option,
        )
    ):
        function = option(function)
    return function


@rollout.command()
@_wish
def init(**wish: Any) -> int:
    """Print a Rollout to be changed and applied; asks for what is not given.

    \b
    tulle rollout init reviews > rollout.yaml
    """
    from tulle.cli.document import dump

    click.echo(dump(_document(**wish), "yaml"), nl=False)
    return 0


@rollout.command()
@_wish
@mesh_option
def create(kubeconfig: str | None, **wish: Any) -> int:
    """Begin to roll a version out.

    \b
    tulle rollout create reviews --service reviews --route virtualservice/reviews --stable v2 --candidate v3
    """
    body = _document(**wish)
    asked(connect(kubeconfig, lambda api: api.create(body, field_manager=_MANAGER)))
    click.echo(f"rollout/{body['metadata']['name']} created; see how it goes with: tulle rollout status -w")
    return 0


def _document(
    name: str,
    service: str,
    route: str,
    stable: str,
    candidate: str,
    template: str,
    step: int,
    most: int,
    checks: int,
    header: str,
    mirror: bool,
    interval: str,
    threshold: int,
    success: float,
    latency: float | None,
    namespace: str,
) -> Raw:
    kind, _slash, rest = route.partition("/")
    target, _slash, rule = rest.partition("/")
    if kind.lower() not in _ROUTES or not target:
        raise click.UsageError(f"--route: found {route!r}; needed KIND/NAME, of KIND {', '.join(_ROUTES)}")
    group, word = _ROUTES[kind.lower()]
    if template == "ab-test" and not rule:
        raise click.UsageError(f"--route: found {route!r}; needed KIND/NAME/RULE, the rule that has the matches")
    named, _equals, expression = header.partition("=")
    if not named or not expression:
        raise click.UsageError(f"--header: found {header!r}; needed NAME=EXPRESSION")
    metrics: list[Raw] = [{"name": "request-success-rate", "thresholdRange": {"min": success}}]
    if latency is not None:
        metrics.append({"name": "request-duration", "thresholdRange": {"max": latency}})
    return {
        "apiVersion": "tulle.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"kind": "Service", "name": service},
            "stable": {"version": stable},
            "candidate": {"version": candidate},
            "routeRef": {"group": group, "kind": word, "name": target} | ({"sectionName": rule} if rule else {}),
            "strategy": _STRATEGIES[template],
            "analysis": {
                "interval": interval,
                "threshold": threshold,
                **({"stepWeight": step, "maxWeight": most} if template == "canary" else {"iterations": checks}),
                **({"match": [{"headers": {named: {"regex": expression}}}]} if template == "ab-test" else {}),
                **({"mirror": True} if mirror else {}),
                "metrics": metrics,
            },
        },
    }


_STRATEGIES = {"canary": "Canary", "blue-green": "BlueGreen", "ab-test": "ABTest"}


@rollout.command()
@click.argument("name", required=False)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show every change.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@namespace_option
@mesh_option
def status(name: str | None, watch: bool, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show how far rollouts are, and why. With NAME, exit status 1 where it has gone back to the stable version."""

    if name and all_namespaces:
        raise click.UsageError("--all-namespaces: found it with NAME; needed one of the two")

    async def ask(api: ApiClient) -> int:
        kind, where = _kind(), None if all_namespaces else namespace
        listed: Raw = {} if name else await api.list(kind, where)
        found = [await api.get(kind, name, namespace)] if name else listed["items"]

        def row_of(one: Raw) -> list[str]:
            return [*([one["metadata"]["namespace"]] if all_namespaces else ()), *_row(one)]

        header = [*(["namespace"] if all_namespaces else ()), *_HEADER]
        click.echo(table(header, [row_of(one) for one in found]) if found else "no rollouts", err=not found)
        if not watch or (name and _over(found[0])):
            return int(bool(name) and _phase(found[0]) == "Failed")
        shown = {(one["metadata"]["namespace"], one["metadata"]["name"]): row_of(one) for one in found}
        since = (found[0] if name else listed)["metadata"]["resourceVersion"]
        async for event in _changes(api, where, str(since)):
            one: Raw = event["object"]
            if event["type"] not in ("ADDED", "MODIFIED", "DELETED") or (name and one["metadata"]["name"] != name):
                continue
            place = one["metadata"]["namespace"], one["metadata"]["name"]
            row = row_of(one)
            if event["type"] == "DELETED":
                click.echo(f"rollout/{place[1]} is deleted")
                if name:
                    return 1
            elif shown.get(place) != row:
                click.echo("  ".join(row))
                shown[place] = row
            if name and event["type"] != "DELETED" and _over(one):
                return int(_phase(one) == "Failed")
        return 0

    return asked(connect(kubeconfig, ask))


async def _changes(api: ApiClient, namespace: str | None, since: str) -> AsyncIterator[Raw]:
    """Every change without end: while no control plane answers it is asked again, for that is when somebody looks."""
    import asyncio

    from tulle.client.errors import Expired
    from tulle.kit.errors import Unavailable

    said = ""
    while True:
        try:
            async for event in api.watch(_kind(), namespace, since=since):
                since, said = event["object"]["metadata"]["resourceVersion"], ""
                yield event
        except Expired:
            since = ""  # what is there comes again
        except Unavailable as error:
            if error.message != said:
                click.echo(f"{error.message}; asking again", err=True)
            said = error.message
            await asyncio.sleep(1)


def _phase(one: Raw) -> str:
    return str((one.get("status") or {}).get("phase", ""))


def _over(one: Raw) -> bool:
    """Whether it is through, and every proxy has what came of it."""
    said = one.get("status") or {}
    return _phase(one) == "Succeeded" or (_phase(one) == "Failed" and (not said.get("rolledBackAt") or "acknowledgedAt" in said))


def _row(one: Raw) -> list[str]:
    spec, said = one["spec"], one.get("status") or {}
    refused = [condition["message"] for condition in said.get("conditions") or () if condition["status"] == "False"]
    weight = said.get("weight")
    return [
        one["metadata"]["name"],
        spec["targetRef"]["name"],
        spec.get("strategy", "Canary"),
        "Refused" if refused else said.get("phase", "-"),
        "-" if weight is None else f"{weight}%",
        str(said.get("step", 0) + 1),
        f"{said.get('failedChecks', 0)} of {spec['analysis'].get('threshold', 5)}",
        "; ".join(refused) or said.get("message", ""),
    ]


def _command(word: str, help_text: str) -> None:
    @rollout.command(word, help=help_text)
    @click.argument("name")
    @namespace_option
    @mesh_option
    def command(name: str, namespace: str, kubeconfig: str | None) -> int:
        patch: Raw = {}
        if word != "pause":
            patch["metadata"] = {"annotations": {_COMMAND: f"{word} {time.time():.3f}"}}
        if word != "abort":
            patch["spec"] = {"suspend": word == "pause"}

        async def ask(api: ApiClient) -> Raw | None:
            wanted = await api.patch(_kind(), name, patch, namespace, field_manager=_MANAGER)
            return await _done(api, wanted, namespace)

        found = asked(connect(kubeconfig, ask))
        if found is None:
            click.echo(
                f"rollout/{name}: not done within {_PATIENCE:g} s; see tulle rollout status {name} -n {namespace}", err=True
            )
            return 1
        row = _row(found)
        click.echo(f"rollout/{name}: {row[3]}, the candidate has {row[4]}: {row[7]}", err=row[3] == "Refused")
        return int(row[3] == "Refused")


async def _done(api: ApiClient, wanted: Raw, namespace: str) -> Raw | None:
    """The rollout once what is `wanted` of it has been done, and has come to every proxy; None where that takes too long."""
    import asyncio

    command = (wanted["metadata"].get("annotations") or {}).get(_COMMAND, "")
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            async for event in _changes(api, namespace, wanted["metadata"]["resourceVersion"]):
                one: Raw = event["object"]
                if one["metadata"].get("uid") != wanted["metadata"]["uid"] or event["type"] not in ("ADDED", "MODIFIED"):
                    continue
                said = one.get("status") or {}
                if _row(one)[3] == "Refused":
                    return one
                heard = said.get("observedGeneration") == one["metadata"]["generation"] and command in ("", said.get("answered"))
                if heard and said.get("phase") != "Finalising" and (not said.get("rolledBackAt") or said.get("acknowledgedAt")):
                    return one
    return None


_command("promote", "Give the candidate all of the traffic now, whatever its measurements say.")
_command("abort", "Give the stable version all of the traffic again, for good.")
_command("pause", "Give the stable version all of the traffic again, until it is resumed.")
_command("resume", "Begin the steps anew: after a pause, an abort, a failure, or weights that somebody else has written.")


@rollout.command()
@click.argument("name")
@namespace_option
@mesh_option
def history(name: str, namespace: str, kubeconfig: str | None) -> int:
    """Show what happened to a rollout in the last hour, the newest last, and how it stands now."""

    async def ask(api: ApiClient) -> tuple[Raw, list[Raw]]:
        from tulle.api.registry import kind_for

        kind = kind_for("", "Event")
        assert kind is not None
        said = f"involvedObject.kind=Rollout,involvedObject.name={name}"
        one = await api.get(_kind(), name, namespace)
        return one, list((await api.list(kind, namespace, field_selector=said))["items"])

    one, events = asked(connect(kubeconfig, ask))
    found = sorted(events, key=lambda event: event["lastTimestamp"])
    rows = [[event["lastTimestamp"], event["reason"], str(event.get("count", 1)), event["message"]] for event in found]
    standing = one.get("status") or {}
    row = _row(one)
    rows.append([standing.get("checkedAt", "-"), f"(now) {row[3]}", "-", row[7]])
    click.echo(table(["time", "what", "times", "why"], rows))
    return 0


def _kind() -> Kind:
    from tulle.api.registry import kind_for

    kind = kind_for("tulle.dev", "Rollout")
    assert kind is not None
    return kind
