"""`tulle describe service | host | request`: who speaks of a host, what comes of it, and which way one request takes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.run import qualified
from tulle.cli.terminal import table

if TYPE_CHECKING:
    from tulle.core.describe import Description, Goal, Heard
    from tulle.core.evaluate import Decision

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="How to print it."
)


@click.group()
def describe() -> None:
    """What the mesh does with a host's requests, and why."""


@describe.command()
@click.argument("name")
@namespace_option
@mesh_option
@output_option
def service(name: str, namespace: str, kubeconfig: str | None, output: str) -> int:
    """Show which objects speak of the Service NAME, in which order, the routes that result, destinations and problems."""
    return _host(f"{name}.{namespace}.svc.cluster.local" if "." not in name else name, namespace, kubeconfig, output)


@describe.command()
@click.argument("host")
@namespace_option
@mesh_option
@output_option
def host(host: str, namespace: str, kubeconfig: str | None, output: str) -> int:
    """The same for a HOST as objects name it: of a Service, of a ServiceEntry, or at a gateway."""
    return _host(host, namespace, kubeconfig, output)


@describe.command()
@click.argument("method")
@click.argument("url")
@click.option("--from", "caller", required=True, metavar="WORKLOAD", help="Whose proxy: NAME or NAMESPACE/NAME; also a gateway.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header, as curl has it.")
@namespace_option
@mesh_option
@output_option
def request(
    method: str, url: str, caller: str, headers: tuple[str, ...], namespace: str, kubeconfig: str | None, output: str
) -> int:
    """Show what the proxy of a workload would do with a request, and which routes do not hold for it. Nothing is sent.

    \b
    tulle describe request GET http://reviews:9080/reviews/0 --from productpage-v1 -H 'end-user: jason'
    """
    import msgspec

    from tulle.core.describe import Heard
    from tulle.core.evaluate import Request, decide_route

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"found URL {url!r}; needed http://HOST[:PORT]/PATH")
    sent = [(name.strip().lower(), value.strip()) for name, _colon, value in (one.partition(":") for one in headers)]
    authority = next((value for name, value in sent if name in ("host", ":authority")), parts.netloc.rpartition("@")[2])
    port = parts.port or (443 if parts.scheme == "https" else 80)
    query = urlencode({"from": qualified(caller, namespace), "authority": authority, "port": port})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/describe/request?{query}")))
    found = msgspec.convert(answer, Heard)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rest = tuple(pair for pair in sent if pair[0] not in ("host", ":authority"))
    asks = Request(authority=authority, method=method.upper(), path=path, scheme=parts.scheme, headers=rest)
    decision = decide_route(found.table, found.host, found.domain, asks) if found.table and found.host else None
    if output != "table":
        from tulle.cli.document import dump

        body = msgspec.to_builtins({"heard": {"table": found.table, "ports": found.ports}, "decision": decision})
        click.echo(dump(body, output), nl=False)
    else:
        click.echo(_decided(found, decision, asks.authority, port))
    return 0


def _host(name: str, namespace: str, kubeconfig: str | None, output: str) -> int:
    import msgspec

    from tulle.core.describe import Description

    query = urlencode({"host": name, "namespace": namespace})
    answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/describe/host?{query}")))
    found = msgspec.convert(answer, Description)
    if not (found.objects or found.routes):
        from tulle.kit.errors import TulleError

        raise TulleError(f"nothing in the mesh speaks of {found.host}", hint="`tulle get services -A` lists the Services")
    if output != "table":
        from tulle.cli.document import dump

        click.echo(dump(answer, output), nl=False)
    else:
        click.echo(_described(found))
    return 0


def _described(found: Description) -> str:
    parts = [found.host]
    if found.objects:
        rows = [[str(one.place) if one.place else "-", one.object, one.effect] for one in found.objects]
        parts.append("Objects, in the order in which they take effect:\n" + table(["order", "object", "effect"], rows))
    for rules in found.routes:
        rows = [[one.match, one.action, f"{one.object} {one.path}".strip()] for one in rules.rules]
        title = f"Port {rules.port}, for {', '.join(rules.callers)}; the first route that holds decides:"
        parts.append(f"{title}\n" + table(["requests", "go to", "written in"], rows))
    if found.destinations:
        rows = [[goal.name, *row] for goal in found.destinations for row in _endpoints(goal)]
        parts.append("Destinations:\n" + table(["destination", "endpoint", "workload", "state"], rows))
    if found.problems:
        parts.append("Problems:\n" + "\n".join(f"  {problem}" for problem in found.problems))
    return "\n\n".join(parts)


def _endpoints(goal: Goal) -> list[list[str]]:
    """Endpoint, workload and state, in words where the mesh knows no endpoints."""
    from tulle.core.model.service import Resolution

    outside = "TLS" if goal.tls else "plaintext"
    if goal.found is Resolution.ORIGINAL:
        return [["wherever the call was going", "-", outside]]
    if goal.found is Resolution.DYNAMIC:
        return [["the host that the call names", "-", f"found by DNS, {outside}"]]
    known = goal.found is Resolution.KNOWN
    rows = []
    for one in goal.endpoints:
        state = ("healthy" if one.healthy else "not healthy") if known else "found by DNS"
        rows.append([one.address, one.workload or "-", f"{state}, {'mTLS' if one.mtls else outside}"])
    return rows or [["none", "-", "answered 503"]]


def _decided(found: Heard, decision: Decision | None, authority: str, port: int) -> str:
    from tulle.core.describe import destination_in_words

    if found.table is None:
        if found.carried:
            return f"Port {port} has no routes for HTTP in this proxy: bytes are carried. {found.carried}"
        ports = ", ".join(map(str, found.ports)) or "none"
        return f"Port {port} has no routes in this proxy: connections are carried as they are. Ports with routes: {ports}"
    lines = [f"Table         {found.table.name}"]
    if decision is None:
        return "\n".join([*lines, f"Virtual host  none for {authority}: answered 404"])
    lines.append(f"Virtual host  {decision.virtual_host}, by the name {found.domain}")
    lines += [f"Not           {one.route}: {one.because}" for one in decision.passed]
    route = decision.route
    if route is not None:
        origin = f", {route.origin.ref} {route.origin.path}".rstrip() if route.origin else ""
        lines.append(f"Route         {route.name}{origin}")
    if decision.asks is not None:
        lines.append(f"Asks          {destination_in_words(decision.asks)} would be asked first; what follows is what it allows")
    lines += _outcome(decision)
    return "\n".join(lines)


def _outcome(decision: Decision) -> list[str]:
    from tulle.core.describe import action_in_words, destination_in_words
    from tulle.core.evaluate import Outcome

    if decision.outcome is Outcome.PASSTHROUGH:
        return ["Outcome       to where it was going: the mesh does not know the host"]
    if decision.outcome is Outcome.NO_ROUTE:
        return [f"Outcome       no route holds: answered {_status(decision)}"]
    if decision.outcome is Outcome.REDIRECT:
        return [f"Outcome       redirected ({_status(decision)}) to {decision.location}"]
    if decision.outcome is Outcome.RESPOND:
        return [f"Outcome       answered {_status(decision)} by the proxy itself"]
    lines = [f"Outcome       {100 * one.part:.4g}% to {destination_in_words(one.destination)}" for one in decision.shares]
    lines.append(f"As            {decision.path} of {decision.authority}")
    lines += [f"Header        {name}: {value}" for name, value in decision.headers]
    if decision.route and "; " in (words := action_in_words(decision.route)):
        lines.append(f"Besides       {words.partition('; ')[2]}")
    return lines


def _status(decision: Decision) -> str:
    return str(decision.status) if decision.grpc is None else f"{decision.status}, gRPC status {decision.grpc}"
