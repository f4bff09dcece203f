"""`tulle authz check`: whether a call would be let in, and which policy says so, by rule and line. Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TextIO
from urllib.parse import urlencode

import click

from tulle.cli.connection import asked, connect, mesh_option, namespace_option
from tulle.cli.files import files_option
from tulle.cli.run import qualified

if TYPE_CHECKING:
    from tulle.client.api import ApiClient
    from tulle.core.doors import Door
    from tulle.core.evaluate.authorization import Verdict
    from tulle.core.evaluate.request import Request

ALLOWED, DENIED, UNKNOWN = range(3)  # exit statuses


class Answer(NamedTuple):
    """What is said: the exit status, why, and the (policy as NAMESPACE/NAME, field) of the rules that decided."""

    status: int
    why: str
    rules: tuple[tuple[str, str], ...] = ()


@click.group()
def authz() -> None:
    """Who may call whom."""


@authz.command()
@click.argument("workload")
@click.option(
    "--from", "caller", metavar="ACCOUNT", help="Who calls: service account, NAMESPACE/ACCOUNT, or SPIFFE ID. None: plaintext."
)
@click.option("--method", default="GET", show_default=True, help="The method of the request.")
@click.option("--path", default="/", show_default=True, help="Its path, with the query.")
@click.option("--host", default="", help="Its host. Default: the workload.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header, as curl has it.")
@click.option("--jwt", "token", type=click.File("r"), metavar="FILE", help="A file with its bearer token.")
@click.option("--port", default=0, metavar="PORT", help="Where it arrives. Default: the first port of the workload for HTTP.")
@click.option("--address", default="127.0.0.1", show_default=True, help="The caller's IP address.")
@files_option(required=False)
@namespace_option
@mesh_option
def check(
    workload: str,
    caller: str | None,
    method: str,
    path: str,
    host: str,
    headers: tuple[str, ...],
    token: TextIO | None,
    port: int,
    address: str,
    files: tuple[str, ...],
    namespace: str,
    kubeconfig: str | None,
) -> int:
    """Say whether the proxy of WORKLOAD would let a call in, and why. Exit status 0: allowed, 1: denied, 2: that is not known.

    With -f the line of the rule that decides is told in the files that its policy was written in; else in what `tulle get -o
    yaml` prints.

    \b
    tulle authz check reviews-v1 --from bookinfo-productpage --method GET --path /reviews/0
    """
    import msgspec

    from tulle.core.doors import Door
    from tulle.core.evaluate import Request
    from tulle.core.evaluate.request import normalized
    from tulle.kit.errors import TulleError

    name = qualified(workload, namespace)
    query = urlencode({"workload": name, "port": port, "host": host or "*"})
    try:
        answer = asked(connect(kubeconfig, lambda api: api.request("GET", f"/tulle/v1/describe/door?{query}")))
    except TulleError as error:
        click.echo(f"error: {error.message}", err=True)
        return UNKNOWN
    found = msgspec.convert(answer, Door)
    sent = [(key.strip().lower(), value.strip()) for key, _colon, value in (one.partition(":") for one in headers)]
    sent += [("authorization", f"Bearer {token.read().strip()}")] if token else []
    request = normalized(Request(host or workload, method, path, headers=tuple(sent)), found.paths) if found.http else None
    answer_ = _judged(found, caller, namespace, request, address)
    click.echo(f"{('allowed', 'denied', 'undecided')[answer_.status]}: {answer_.why}")
    try:
        for line in _places(answer_.rules, files, namespace, kubeconfig):
            click.echo(f"  {line}")
    except TulleError as error:
        click.echo(f"the lines of the rules are not known: {error.message}", err=True)
    return answer_.status


def _judged(found: Door, caller: str | None, namespace: str, request: Request | None, address: str) -> Answer:
    import time

    from tulle.core.evaluate.authorization import Call, judge
    from tulle.core.evaluate.tokens import Believed, believe
    from tulle.core.model.workload import MtlsMode

    if caller is None and found.mtls is MtlsMode.STRICT:
        return Answer(DENIED, f"port {found.port} takes mutual TLS only, and the call is plaintext")
    foreign = caller if caller is not None and caller.startswith("spiffe://") else ""
    if foreign and found.mtls is not MtlsMode.DISABLE and not foreign.startswith(found.accepts):
        return Answer(DENIED, f"{found.workload} believes nobody of that trust domain")
    if found.row is None or not (found.row.policies or found.row.tokens):
        return Answer(ALLOWED, f"no policy guards port {found.port} of {found.workload}")
    believed = believe(found.row.tokens, request, time.time()) if request else Believed()
    if believed.status:
        return Answer(DENIED, f"answered {believed.status}: {believed.why}")
    space, _slash, account = qualified(caller or "", namespace).partition("/")
    mutual = caller is not None and found.mtls is not MtlsMode.DISABLE
    principal = foreign or f"spiffe://{found.trust_domain}/ns/{space}/sa/{account}" if mutual else ""
    verdict = judge(
        found.row,
        Call(principal, address, address, destination_port=found.port, request=request, claims=believed.claims),
    )
    return _said(verdict, found.port)


def _said(verdict: Verdict, port: int) -> Answer:
    rule = f" {verdict.field}" if verdict.field else ""
    if verdict.action is not None:
        why = f"AuthorizationPolicy {verdict.policy}{rule} ({verdict.action})"
    elif verdict.allowed:
        why = f"no policy denies it, and none allows something at port {port}"
    else:
        why = f"no rule holds of {', '.join(f'AuthorizationPolicy {one}' for one in verdict.asked)} (ALLOW)"
    trials = tuple(f"dry run: {one}" for one in verdict.trials)
    rules = ((verdict.policy, verdict.field),) if verdict.field else tuple((one, "spec") for one in verdict.asked)
    if not (verdict.allowed and verdict.questions):
        return Answer(ALLOWED if verdict.allowed else DENIED, "; ".join((why, *trials)), rules)
    asked = [f"{one.authorizer} is asked (AuthorizationPolicy {one.policy} {one.field})" for one in verdict.questions]
    rules = (*((one.policy, one.field) for one in verdict.questions), *rules)
    return Answer(UNKNOWN, "; ".join((*asked, f"who agrees lets it in: {why}", *trials)), rules)


def _places(rules: Iterable[tuple[str, str]], files: tuple[str, ...], namespace: str, kubeconfig: str | None) -> Iterator[str]:
    """Where the rules stand: `reviews.yaml:9`, or the line of what `tulle get` prints."""
    from tulle.cli.files import read

    named = [(policy, field) for policy, field in rules if "/" in policy]  # others are nobody's objects
    given, _problems = read(files, namespace) if files and named else ([], [])
    locate = {f"{one.namespace}/{one.name}": one.locate for one in given if one.kind.kind == "AuthorizationPolicy"}
    others = {policy for policy, _field in named} - set(locate)
    texts = asked(connect(kubeconfig, lambda api: _texts(api, others))) if others else {}
    for policy, field in named:
        if policy in locate and (place := locate[policy](field)):
            yield f"{place.file}:{place.line}"
        elif policy in texts:
            space, _slash, name = policy.partition("/")
            yield f"line {_line(texts[policy], field)} of `tulle get authorizationpolicy {name} -n {space} -o yaml`"


async def _texts(api: ApiClient, policies: Iterable[str]) -> dict[str, str]:
    from tulle.api.registry import kind_for
    from tulle.cli.document import dump
    from tulle.cli.get import printed
    from tulle.client.errors import NotFound

    kind, found = kind_for("security.istio.io", "AuthorizationPolicy"), {}
    assert kind is not None
    for policy in policies:
        space, _slash, name = policy.partition("/")
        try:
            found[policy] = dump(printed(await api.get(kind, name, space)), "yaml")
        except NotFound:
            continue  # deleted since
    return found


def _line(text: str, field: str) -> int:
    from tulle.api.documents import read_documents

    (document,), _problems = read_documents(text, "")
    place = document.locate(field)
    return place.line if place else 1
