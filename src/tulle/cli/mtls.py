"""`tulle mtls`: from permissive to strict, the safe way: who still calls in plaintext, and STRICT for who can have it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from tulle.cli.calls import all_option, window_option
from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.run import qualified
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.client.api import ApiClient
    from tulle.core.secured import Securities, Security

_HEADER = ["service", "mode", "calls", "mtls", "plaintext callers", "strict would refuse"]
_SHOWN = 3  # callers in a row
_FORMER = "tulle.dev/former-mode"  # what `--undo` brings back
_MANAGER = "tulle-mtls"


@click.group()
def mtls() -> None:
    """Who still calls in plaintext, and strict mutual TLS."""


@mtls.command()
@click.argument("service", required=False)
@window_option
@all_option
@namespace_option
@mesh_option
def status(service: str | None, window: float, all_namespaces: bool, namespace: str, kubeconfig: str | None) -> int:
    """Show which share of the calls to each service came with mutual TLS, who calls without, and whom STRICT would refuse.

    \b
    tulle mtls status -A --window 6h
    """
    wanted = qualified(service, namespace) if service else ""
    space = "" if all_namespaces else wanted.partition("/")[0] or namespace
    found = asked(connect(kubeconfig, lambda api: _securities(api, window, space)))
    rows = [_row(one) for one in found.services if wanted in ("", one.service)]
    if wanted and not rows:
        click.echo(f"no service {wanted} has a workload with a sidecar", err=True)
        return 1
    click.echo(table(_HEADER, rows) if rows else "no service has a workload with a sidecar", err=not rows)
    if rows:
        click.echo(f"calls of the last {_age(found)}", err=True)
    return 0


@mtls.command()
@click.argument("service")
@click.option("--force", is_flag=True, help="Also where somebody would be refused.")
@click.option("--undo", is_flag=True, help="Back to what was before.")
@window_option
@namespace_option
@mesh_option
def strict(service: str, force: bool, undo: bool, window: float, namespace: str, kubeconfig: str | None) -> int:
    """Take mutual TLS only for SERVICE (NAME or NAMESPACE/NAME), where nobody whose calls are known would be refused.

    A PeerAuthentication for its workloads is written, or the one that is there gets the mode; --undo takes that back. Exit
    status 1 where somebody would be refused: nothing is written then.

    \b
    tulle mtls strict shop/cart --window 6h
    tulle mtls strict shop/cart --undo
    """
    name = qualified(service, namespace)
    found = asked(connect(kubeconfig, lambda api: _securities(api, window, name.partition("/")[0])))
    one = next((one for one in found.services if one.service == name), None)
    if one is None:
        raise click.UsageError(f"found {service!r}; needed a service that has a workload with a sidecar")
    if not one.selector:
        raise click.UsageError(f"{name} selects no workloads; write a PeerAuthentication for those that it has")
    if undo:
        click.echo(asked(connect(kubeconfig, lambda api: _undo(api, one))))
        return 0
    if one.refused and not force:
        click.echo(f"{name}: STRICT would refuse calls such as there were in the last {_age(found)}:", err=True)
        for caller in one.plaintext[:10]:
            click.echo(f"  {caller.workload or caller.address}: {caller.calls} calls in plaintext", err=True)
        click.echo("put these callers in the mesh, or pass --force", err=True)
        return 1
    click.echo(asked(connect(kubeconfig, lambda api: _strict(api, one))))
    if not one.calls:
        click.echo(f"no call to it was counted in the last {_age(found)}: who would be refused is not known", err=True)
    return 0


async def _securities(api: ApiClient, window: float, namespace: str) -> Securities:
    import msgspec

    from tulle.core.secured import Securities

    query = urlencode({"seconds": window, "namespace": namespace})
    return msgspec.convert(await api.request("GET", f"/tulle/v1/telemetry/security?{query}"), Securities)


def _row(one: Security) -> list[str]:
    share = f"{100 * one.mutual / one.calls:.1f}%" if one.calls else "-"
    who = [caller.workload or caller.address for caller in one.plaintext]
    more = f" and {len(who) - _SHOWN} more" if len(who) > _SHOWN else ""
    refused = "somebody" if one.refused else "nobody" if one.calls else "not known"
    return [one.service, ",".join(one.modes) or "-", str(one.calls), share, ", ".join(who[:_SHOWN]) + more or "-", refused]


def _age(found: Securities) -> str:
    seconds = max(1.0, time.time() - found.since)
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _name(one: Security) -> str:
    return f"{one.service.partition('/')[2]}-strict"


async def _rules(api: ApiClient, one: Security) -> list[dict[str, Any]]:
    """The PeerAuthentications that may select workloads of the service, the oldest first: that one counts."""
    from tulle.api.registry import kind_for

    kind = kind_for("security.istio.io", "PeerAuthentication")
    assert kind is not None
    items = (await api.list(kind, one.service.partition("/")[0]))["items"]
    fitting = [item for item in items if (labels := _labels(item)) and all(one.selector.get(*pair) == pair[1] for pair in labels)]
    return sorted(fitting, key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]))


def _labels(item: dict[str, Any]) -> list[tuple[str, str]]:
    return list(((item["spec"].get("selector") or {}).get("matchLabels") or {}).items())


async def _rule(api: ApiClient, one: Security) -> dict[str, Any] | None:
    """The PeerAuthentication for just the service's workloads."""
    return next((item for item in await _rules(api, one) if dict(_labels(item)) == one.selector), None)


async def _strict(api: ApiClient, one: Security) -> str:
    there = await _rule(api, one)
    if there is None:
        namespace = one.service.partition("/")[0]
        metadata = {"name": _name(one), "namespace": namespace, "annotations": {_FORMER: ""}}
        spec = {"selector": {"matchLabels": one.selector}, "mtls": {"mode": "STRICT"}}
        body = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": metadata, "spec": spec}
        await api.create(body, field_manager=_MANAGER)
        others = [item["metadata"]["name"] for item in await _rules(api, one) if item["metadata"]["name"] != _name(one)]
        older = (
            f"\nbut where one of these selects the same workloads, it is older and counts: {', '.join(others)}" if others else ""
        )
        return f"peerauthentication/{_name(one)} created: {one.service} takes mutual TLS only{older}"
    mode = (there["spec"].get("mtls") or {}).get("mode", "UNSET")
    name = there["metadata"]["name"]
    if mode == "STRICT":
        return f"peerauthentication/{name}: {one.service} takes mutual TLS only already"
    there["metadata"].setdefault("annotations", {})[_FORMER] = mode
    there["spec"]["mtls"] = {"mode": "STRICT"}
    await api.update(there, field_manager=_MANAGER)
    return f"peerauthentication/{name} changed from {mode}: {one.service} takes mutual TLS only"


async def _undo(api: ApiClient, one: Security) -> str:
    from tulle.api.registry import kind_for

    there = await _rule(api, one)
    notes = there["metadata"].get("annotations", {}) if there else {}
    if there is None or _FORMER not in notes:
        return f"{one.service}: there is nothing to undo, for `tulle mtls strict` wrote nothing"
    name = there["metadata"]["name"]
    if not (former := notes.pop(_FORMER)):
        kind = kind_for("security.istio.io", "PeerAuthentication")
        assert kind is not None
        await api.delete(kind, name, one.service.partition("/")[0])
        return f"peerauthentication/{name} deleted"
    there["spec"]["mtls"] = {"mode": former}
    await api.update(there, field_manager=_MANAGER)
    return f"peerauthentication/{name} changed back to {former}"
