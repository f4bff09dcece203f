"""CEL expressions, as Telemetry has them for filters and labels: whether a proxy takes one, and what of a call it looks at.

A proxy refuses the whole of a listener for one expression that it cannot take, so that is told here. Attributes are Envoy's:
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import msgspec

from tulle.api.regex import why_not_re2

_WORDS = "host method path url_path scheme headers referer useragent time id protocol query duration size total_size"
_ATTRIBUTES = {
    "request": _WORDS,
    "response": "code code_details flags grpc_status headers trailers size total_size backend_latency",
    "source": "address port",
    "destination": "address port",
    "connection": (
        "id mtls requested_server_name tls_version subject_local_certificate subject_peer_certificate dns_san_local_certificate "
        "dns_san_peer_certificate uri_san_local_certificate uri_san_peer_certificate sha256_peer_certificate_digest "
        "termination_details transport_failure_reason"
    ),
    "upstream": (
        "address port tls_version subject_local_certificate subject_peer_certificate dns_san_local_certificate "
        "dns_san_peer_certificate uri_san_local_certificate uri_san_peer_certificate sha256_peer_certificate_digest "
        "local_address transport_failure_reason request_attempt_count cx_pool_ready_duration locality"
    ),
    "xds": (
        "node cluster_name cluster_metadata listener_direction listener_metadata route_name route_metadata virtual_host_name "
        "virtual_host_metadata upstream_host_metadata filter_chain_name"
    ),
    "metadata": "",  # of any name
    "filter_state": "",
    "upstream_filter_state": "",
}
_KNOWN = {root: tuple(words.split()) for root, words in _ATTRIBUTES.items()}
_LONGEST = 4096  # characters


class Expression(msgspec.Struct, frozen=True):
    """What is `wrong` with an expression ("": nothing), and the attributes that it looks at, as `request.host`."""

    wrong: str = ""
    attributes: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def expression(text: str) -> Expression:
    """An expression, read."""
    if len(text) > _LONGEST:
        return Expression(f"found {len(text)} characters; needed {_LONGEST} at most")
    if ")%" in text or any(ord(letter) < 0x20 for letter in text):
        # It stands as %CEL(...)% in a line.
        return Expression('found ")%" or a control character; needed a space before "%", and one line')
    try:
        compiled = _environment().compile(text)
    except RuntimeError as error:
        said = str(error).partition("ERROR: ")[2] or str(error)
        return Expression(f"{said.splitlines()[0].removeprefix('<input>:')}; needed a CEL expression of Envoy's attributes")
    tree: Any = _message("cel.expr.CheckedExpr", _message("google.protobuf.Any", compiled.serialize()).value)
    attributes = tuple(sorted(set(_attributes(tree.expr))))
    for one in attributes:
        root, _dot, name = one.partition(".")
        if name and _KNOWN[root] and name not in _KNOWN[root]:
            return Expression(f"no attribute {one}; needed one of {root}.: {', '.join(_KNOWN[root])}", attributes)
    if missing := next(_missing(tree.expr), ""):
        return Expression(f"found {missing}, which proxies have not; needed an expression without", attributes)
    for regex in _patterns(tree.expr):
        if why := why_not_re2(regex):
            return Expression(f'found "{regex}", with {why}; needed an RE2 regular expression', attributes)
    return Expression("", attributes)


def _message(name: str, data: bytes) -> Any:
    from tulle.pb import message_class

    return message_class(name).FromString(data)


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # only where there are expressions

    return cel.NewEnv(variables=dict.fromkeys(_KNOWN, cel.Type.DYN))


def _below(node: Any) -> Iterator[Any]:
    """The expressions in an expression."""
    for field, value in node.ListFields():
        if field.message_type is None:
            continue
        repeated = hasattr(value, "__len__")
        for one in value if repeated else (value,):
            if one.DESCRIPTOR.full_name == "cel.expr.Expr":
                yield one
            elif one.DESCRIPTOR.full_name.startswith("cel.expr.Expr."):
                yield from _below(one)


def _attributes(node: Any) -> Iterator[str]:
    if node.HasField("ident_expr"):
        if node.ident_expr.name in _KNOWN:
            yield node.ident_expr.name
        return
    found = node.select_expr if node.HasField("select_expr") else None
    if found is not None and found.operand.HasField("ident_expr") and found.operand.ident_expr.name in _KNOWN:
        yield f"{found.operand.ident_expr.name}.{found.field}"
        return
    for one in _below(node):
        yield from _attributes(one)


def _missing(node: Any) -> Iterator[str]:
    """What CEL has, and Envoy switches off: texts of values, and what goes through a list."""
    if node.HasField("comprehension_expr"):
        yield "a macro on a list (all, exists, filter, map)"
    if node.HasField("call_expr") and node.call_expr.function == "string":
        yield "string(...)"
    for one in _below(node):
        yield from _missing(one)


def _patterns(node: Any) -> Iterator[str]:
    """The regular expressions that are written out."""
    if node.HasField("call_expr") and node.call_expr.function == "matches" and node.call_expr.args:
        written = node.call_expr.args[-1]
        if written.HasField("const_expr"):
            yield written.const_expr.string_value
    for one in _below(node):
        yield from _patterns(one)
