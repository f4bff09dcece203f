"""HTTP/3 at gateways: who asks for it, and where it cannot be spoken.

Neither API has a field for it. It is asked for by an annotation of the Gateway (of either API) or ListenerSet, for all of its
HTTPS listeners: whoever may open a port for TCP decides that it is open for UDP too, and nothing is open that nobody asked for.
"""

from __future__ import annotations

from tulle.api.object import Object
from tulle.core.compile.hostname import Key
from tulle.core.compile.proxy_settings import edge
from tulle.core.flow import Fetch
from tulle.core.model.gateway import ServerTls

ANNOTATION = "tulle.dev/http3"
_NOT_IN_QUIC = ("TLSv1_0", "TLSv1_1", "TLSv1_2")


def asks_http3(row: Object | None) -> bool:
    """Whether an object wants HTTP/3 at its HTTPS listeners."""
    return row is not None and row.metadata.annotations.get(ANNOTATION) == "true"


def no_http3(fetch: Fetch, workload: Key, tls: ServerTls) -> str:
    """Why a gateway workload cannot speak HTTP/3 with this TLS; "" where it can."""
    if tls.mesh or tls.authorities is not None:
        return "clients show certificates, which Envoy does not ask for over QUIC"
    if tls.maximum in _NOT_IN_QUIC:
        return f"the maximum version of TLS is {tls.maximum}, and QUIC is TLS 1.3"
    here = fetch(edge, workload)
    if here is not None and here.announced:
        return f"gateway {workload[0]}/{workload[1]} wants the PROXY protocol, which QUIC does not have"
    return ""
