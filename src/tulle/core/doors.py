"""What stands before a workload at a port: mutual TLS, tokens and policies, as its proxy has them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core.compile.guards import authorization
from tulle.core.compile.hostname import covers
from tulle.core.model.authorization import Authorization, Guard
from tulle.core.model.edge import Paths
from tulle.core.model.gateway import GatewayListener
from tulle.core.model.workload import MtlsMode, Workload
from tulle.core.pipeline import Pipeline


class Door(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `port` of a workload. `http`: requests are looked into. `row` is None where nothing is asked; `others` are its ports.

    `accepts`: how the SPIFFE IDs begin that may come in by mutual TLS.
    """

    workload: str
    port: int
    trust_domain: str
    http: bool = True
    mtls: MtlsMode = MtlsMode.DISABLE
    row: Authorization | None = None
    others: tuple[int, ...] = ()
    paths: Paths = Paths.BASE
    accepts: tuple[str, ...] = ()


def door(pipeline: Pipeline, proxy: str, port: int, host: str) -> Door | None:
    """What stands before a workload at a port (0: its first one for HTTP); None where there is no such workload, or port."""
    workload = pipeline.workload(proxy)
    if workload is None:
        return None
    found = _at_gateway(workload, port, host) if workload.is_gateway else _at_sidecar(workload, port)
    if found is None:
        return None
    number, http, mtls, guard = found
    namespace, _slash, name = proxy.partition("/")
    row = pipeline.flow.get(authorization, ((namespace, name), guard))
    return Door(
        proxy, number, workload.trust_domain, http, mtls, row, tuple(_ports(workload)), workload.limits.paths, workload.accepts
    )


def _ports(workload: Workload) -> Iterator[int]:
    yield from (port.port for port in workload.inbound)
    yield from (listener.port for listener in workload.listeners)


def _at_sidecar(workload: Workload, port: int) -> tuple[int, bool, MtlsMode, Guard] | None:
    fitting = [one for one in workload.inbound if port in (one.port, one.app_port) or (not port and one.protocol.may_be_http)]
    if fitting:
        one = fitting[0]
        return one.port, one.protocol.may_be_http, one.mtls, one.guard
    return (port, False, workload.mtls, workload.guard) if port else None


def _at_gateway(workload: Workload, port: int, host: str) -> tuple[int, bool, MtlsMode, Guard] | None:
    listeners: list[GatewayListener] = [one for one in workload.listeners if port in (0, one.port)]
    for listener in listeners:
        for chain in listener.chains:
            if not chain.names or any(covers(name, host) for name in chain.names):
                mesh = chain.tls is not None and chain.tls.mesh
                return listener.port, chain.table is not None, MtlsMode.STRICT if mesh else MtlsMode.DISABLE, chain.guard
        if listener.routes:
            return listener.port, False, MtlsMode.DISABLE, listener.guard
    return None
