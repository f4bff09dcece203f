"""Traces of those who speak Zipkin's B3, and not W3C's Trace Context, which is what Envoy's tracer reads and writes.

`TAKEN`: before anything else looks at a request, its `b3`, or `x-b3-traceid` and the others, become a `traceparent`, where it has
none. Only such that say whether they are sampled: who leaves it to others gets a new trace. They go on as they came. `GIVEN`:
what is sent to an application has both, of the proxy's span.

The formatter makes texts, and CEL (which joins none here, and has small regular expressions only) chooses: of what does not look
like ids nothing is taken.
"""

from __future__ import annotations

from typing import cast

from tulle.pb import pack
from tulle.pb.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2
from tulle.pb.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from tulle.pb.envoy.extensions.filters.http.router.v3 import router_pb2
from tulle.pb.envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early_header_mutation_pb2,
)

_Mutation = mutation_rules_pb2.HeaderMutation
_ALWAYS = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_WHERE_IT_IS_NOT = base_pb2.HeaderValueOption.ADD_IF_ABSENT

_W3C, _ONE, _TRACE = "traceparent", "b3", "x-b3-traceid"
_MADE, _MADE_OF_SEVERAL = "x-tulle-b3", "x-tulle-x-b3"  # what they become, for a moment: they themselves go on as they are
_HEX = "[0-9a-f]"


def _set(name: str, value: str, action: int) -> mutation_rules_pb2.HeaderMutation:
    how = cast("base_pb2.HeaderValueOption.HeaderAppendAction", action)
    return _Mutation(append=base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=how))


def _of(name: str, expression: str, cut: str = "") -> str:
    """What a CEL expression makes of a header, `_` in it. That the header is not there is told first: it is cheap."""
    said = expression.replace("_", f'request.headers["{name}"]')
    return f'%CEL("{name}" in request.headers ? ({said}) : ""){cut}%'


def _good(name: str) -> str:
    """The header where it is a `traceparent` by now, in CEL."""
    said = f'request.headers["{name}"]'
    trace, span = f'{said}.matches("^00-{_HEX}{{32}}-")', f'{said}.matches("^[^-]*-[^-]*-{_HEX}{{16}}-0[01]$")'
    return f'({trace} && {span} ? {said} : "")'


# An id of a trace has 128 bits, or 64, which become the lower ones.
_LONG, _SHORT = f'_.matches("^{_HEX}{{32}}-")', f'_.matches("^{_HEX}{{16}}-")'
_PADDED = '"0000000000000000" : ""'
_FROM_ONE = "".join(
    (
        "00-",
        _of(_ONE, _LONG + ' ? _ : ""', ":49"),
        _of(_ONE, f"{_SHORT} ? {_PADDED}"),
        _of(_ONE, _SHORT + ' ? _ : ""', ":33"),
        "-0",
        _of(_ONE, '_.matches("^[^-]*-[^-]*-[1d]") ? "1" : _.matches("^[^-]*-[^-]*-0") ? "0" : ""'),
    )
)
_FROM_SEVERAL = "".join(
    (
        "00-",
        _of(_TRACE, f"size(_) == 16 ? {_PADDED}"),
        "%REQ(X-B3-TRACEID)%-%REQ(X-B3-SPANID)%-0%REQ(X-B3-SAMPLED?X-B3-FLAGS):1%",
    )
)
_OR_SEVERAL = f'("{_TRACE}" in request.headers ? {_good(_MADE_OF_SEVERAL)} : "")'
_BEST = f'"{_ONE}" in request.headers ? {_good(_MADE)} : {_OR_SEVERAL}'
TAKEN = extension_pb2.TypedExtensionConfig(
    name="envoy.http.early_header_mutation.header_mutation",
    typed_config=pack(
        early_header_mutation_pb2.HeaderMutation(
            mutations=[
                _set(_MADE, _FROM_ONE, _ALWAYS),
                _set(_MADE_OF_SEVERAL, _FROM_SEVERAL, _ALWAYS),
                _set(_W3C, f"%CEL({_BEST})%", _WHERE_IT_IS_NOT),
                *(_Mutation(remove=name) for name in (_MADE, _MADE_OF_SEVERAL)),
            ]
        )
    ),
)
_GIVEN = header_mutation_pb2.HeaderMutation(
    mutations=header_mutation_pb2.Mutations(
        request_mutations=[
            *(_Mutation(remove=name) for name in (_ONE, "x-b3-parentspanid", "x-b3-flags")),
            _set(_TRACE, "%TRACE_ID%", _ALWAYS),
            _set("x-b3-spanid", "%SPAN_ID%", _ALWAYS),
            _set("x-b3-sampled", _of(_W3C, '_.endsWith("1") ? "1" : "0"'), _ALWAYS),
        ]
    )
)
# Behind the router, where Envoy has written its own `traceparent`.
GIVEN = http_connection_manager_pb2.HttpFilter(
    name="envoy.filters.http.router",
    typed_config=pack(
        router_pb2.Router(
            upstream_http_filters=[
                http_connection_manager_pb2.HttpFilter(name="b3", typed_config=pack(_GIVEN)),
                http_connection_manager_pb2.HttpFilter(
                    name="envoy.filters.http.upstream_codec", typed_config=pack(upstream_codec_pb2.UpstreamCodec())
                ),
            ]
        )
    ),
)
