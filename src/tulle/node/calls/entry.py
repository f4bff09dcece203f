"""One call as Envoy told of it → its shape, and an example of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tulle.core.model.authorization import NOWHERE
from tulle.core.model.recorded import EARLY, HEADERS, LONGEST, Example, Shape, failing
from tulle.core.recorded.folding import kind_of
from tulle.core.recorded.paths import Templates
from tulle.node.metrics.standard import UNKNOWN, Who, known, peer, service

_RULE = re.compile(r"ns\[(?P<namespace>[^]]*)\]-policy\[(?P<name>[^]]*)\]-rule\[(?P<rule>\d+)\]")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
_OTHER = "OTHER"


class Entry(msgspec.Struct, frozen=True):
    """A call. `failed`: it is one of those that are recorded first."""

    shape: Shape
    example: Example
    failed: bool


def failed(said: Mapping[str, str]) -> bool:
    """Whether a call is one of those that are recorded first."""
    return failing(said.get("code", ""), _text(said, "flags"), _text(said, "details"), _text(said, "grpc"))


def entry(said: Mapping[str, str], time: float, own: Who, templates: Templates, share: float) -> Entry:
    """The call that the proxy of `own` tells of, which began at `time` (seconds since the epoch).

    `share` is the share of such calls that is recorded.
    """
    side = "source" if said.get("side") == "source" else "destination"
    principal = known(said.get("principal", ""))
    other = peer(said.get("peer", ""), principal)
    source, destination = (own, other) if side == "source" else (other, own)
    cluster, details = _text(said, "cluster"), _text(said, "details")
    if cluster == NOWHERE:  # refused before a word was said; the filter that names policies was not asked
        details = EARLY
    called = _text(said, "service") or (cluster if cluster.startswith("outbound|") else "")
    authority = _text(said, "authority")
    host = service(called, destination)[0]
    host = "" if host == UNKNOWN else host
    tcp = "method" not in said
    path = _text(said, "path").partition("?")[0]
    grpc = _text(said, "grpc")
    is_grpc = _text(said, "header.content-type").startswith("application/grpc")
    shape = Shape(
        reporter=side,
        source=_workload(source),
        destination=_workload(destination),
        service=host,
        port=_port(cluster, _text(said, "port")),
        protocol="tcp" if tcp else "grpc" if is_grpc else "http",
        method=_method(_text(said, "method")),
        path="" if tcp else templates.of(host or authority.partition(":")[0], path),
        code="" if tcp else _text(said, "code"),
        grpc=grpc if is_grpc else "",
        flags=_text(said, "flags"),
        details=kind_of(details),
        principal="" if principal == UNKNOWN else principal,
        mutual=principal != UNKNOWN,
        policy=rule_of(details) or rule_of(_text(said, "policy")),
        origin=_text(said, "origin"),
        field=_text(said, "field"),
    )
    example = Example(
        id=_text(said, "id"),
        time=time,
        milliseconds=_milliseconds(said),
        proxy=_workload(own),
        authority=authority,
        path=path[:LONGEST],
        headers={name: value[:LONGEST] for name in HEADERS if (value := _text(said, f"header.{name}"))},
        endpoint=_text(said, "endpoint"),
        cluster=cluster,
        address=_text(said, "address"),
        details=details[:LONGEST],
        why=_text(said, "why")[:LONGEST],
        attempts=_number(_text(said, "attempts")),
        share=share,
    )
    return Entry(shape, example, failed(said))


def rule_of(text: str) -> str:
    """The rule that Envoy names, as people say it: `namespace/name rule 0`; "" where it names none of ours."""
    found = _RULE.search(text)
    return f"{found['namespace']}/{found['name']} rule {found['rule']}" if found else ""


def _text(said: Mapping[str, str], name: str) -> str:
    value = said.get(name, "")
    return "" if value == "-" else value


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _method(word: str) -> str:
    return word if word in _METHODS or not word else _OTHER


def _port(cluster: str, local: str) -> int:
    parts = cluster.split("|")
    return _number(parts[1]) if len(parts) > 2 and parts[1] else _number(local)


def _milliseconds(said: Mapping[str, str]) -> float:
    if micros := _number(_text(said, "us")):
        return micros / 1000
    return float(_number(_text(said, "ms")))


def _workload(who: Who) -> str:
    return "" if who.workload == UNKNOWN else f"{who.namespace}/{who.workload}"
