"""Sidecar and MeshConfig → what of them has no effect, and hosts that nothing has."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio import Sidecar
from tulle.api.istio.destination_rule import ConnectionPool
from tulle.api.istio.gateway import ServerTLS
from tulle.api.own import MeshConfig
from tulle.core.compile.authorizers import authorizer_problems
from tulle.core.compile.callers import Source
from tulle.core.compile.collectors import collector_problems
from tulle.core.compile.egress import egress
from tulle.core.compile.federation import federation_problems
from tulle.core.compile.hostname import Key
from tulle.core.compile.istio_tls import ENDED_BY_SIDECARS, problems_of, served
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import mesh_configs, sidecars
from tulle.core.compile.proxy_settings import SAID as PROXY_SETTINGS
from tulle.core.compile.sidecars import SELECTED, apart, sidecar_for
from tulle.core.compile.unknown import egress_proxy_found
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem, Ref


@table
def sidecar_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Fields without effect, hosts that nothing has."""
    row = fetch(sidecars, key)
    return sorted_problems(_problems(fetch, row)) if row else ()


def _problems(fetch: Fetch, row: Sidecar) -> Iterator[Problem]:
    ref, spec = row.ref, row.spec
    done = ("workload_selector", "ingress", "egress", "outbound_traffic_policy", "inbound_connection_pool")
    yield from unsaid(ref, spec, "spec", done)
    yield from _unsaid_pool(ref, spec.inbound_connection_pool, "spec.inboundConnectionPool")
    yield from unsaid(ref, spec.outbound_traffic_policy, "spec.outboundTrafficPolicy", ("mode", "egress_proxy"))
    found = egress_proxy_found(fetch, row)
    if isinstance(found, Problem):
        yield found
    elif spec.outbound_traffic_policy and spec.outbound_traffic_policy.egress_proxy and found is None:
        yield not_yet(ref, "spec.outboundTrafficPolicy.egressProxy", "egressProxy with a mode that is not ALLOW_ANY")
    for index, listener in enumerate(spec.ingress):
        path = f"spec.ingress[{index}]"
        if listener.tls is not None:
            yield from _ended(fetch, ref, listener.tls, f"{path}.tls")
        yield from _unsaid_pool(ref, listener.connection_pool, f"{path}.connectionPool")
        yield from unsaid(ref, listener.port, f"{path}.port", ("number", "protocol", "name"))
    for index, one in enumerate(spec.egress):
        path = f"spec.egress[{index}]"
        yield from unsaid(ref, one.port, f"{path}.port", ("number", "protocol", "name"))
    yield from _egress(fetch, row)


def _egress(fetch: Fetch, row: Sidecar) -> Iterator[Problem]:
    """Addresses that two listeners have, that nothing is for, or where one service hides others."""
    labels = ((SELECTED, row.metadata.name),) if row.spec.workload_selector else ()
    made = fetch(egress, Source(row.metadata.namespace, labels)) or ()
    if sidecar_for(fetch, row.metadata.namespace, labels) != row:
        return  # a row of the root namespace that none follows there
    for index, listener in enumerate(row.spec.egress):
        if not apart(listener):
            continue
        path = f"spec.egress[{index}]"
        mine = [one for one in made if one.index == index]
        if not mine:
            message = (
                f"{listener.bind or '127.0.0.1'} and that port are another listener's, or the proxy's; needed some of its own"
            )
            yield warning(row.ref, path, "AddressClash", message)
        for one in mine:
            if not one.services:
                message = f"no service of {', '.join(listener.hosts)} has this port; needed the port of one"
                yield warning(row.ref, f"{path}.port", "NothingBehind", message)
            nameless = [tcp.destination for tcp in one.listener.tcp if not tcp.names]
            whole = [key for key in one.services if (key, nameless[0].port) not in one.hosts] if nameless else []
            if len(whole) > 1 and not one.listener.sniffed:
                first = nameless[0].hostname
                message = f"{len(whole)} services have this port, and nothing tells them apart there; all is {first}'s"
                yield warning(row.ref, f"{path}.hosts", "AddressClash", message)


def _ended(fetch: Fetch, ref: Ref, said: ServerTLS, path: str) -> Iterator[Problem]:
    """TLS of callers from outside the mesh."""
    ending = said.mode in ENDED_BY_SIDECARS
    yield from problems_of(fetch, ref, said, path, (ref.namespace,), ending=ending)
    if said.https_redirect:
        yield not_yet(ref, f"{path}.httpsRedirect", "httpsRedirect at a sidecar")
    if not ending:
        yield not_yet(ref, f"{path}.mode", f"{said.mode} at a sidecar")
    elif served(fetch, said, ref.namespace, http=True) is None:
        message = "found no certificate that can be served, or none to check clients with"
        yield warning(ref, path, "SecretUnusable", f"{message}; the port takes no TLS but the mesh's")


def _unsaid_pool(ref: Ref, said: ConnectionPool | None, path: str) -> Iterator[Problem]:
    """What an application's port declares is spoken to it, whatever a pool says."""
    http = said.http if said else None
    if http and http.h2_upgrade_policy != "DEFAULT":
        yield not_yet(ref, f"{path}.http.h2UpgradePolicy")
    if http and http.use_client_protocol:
        yield not_yet(ref, f"{path}.http.useClientProtocol")


_DONE = (
    "outbound_traffic_policy",
    "default_config",
    "path_normalization",
    "trust_domain_aliases",
    "extension_providers",
    "mesh_mtls",
    "tls_defaults",
    "federated_trust_domains",
    "trace_propagators",
    "default_providers",
)
_AUTHORIZERS = ("envoy_ext_authz_http", "envoy_ext_authz_grpc")
_LOGS = ("envoy_file_access_log", "envoy_otel_als")


@table
def mesh_config_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Fields without effect."""
    row = fetch(mesh_configs, key)
    if row is None:
        return ()
    return sorted_problems(
        (
            *_mesh_problems(row),
            *authorizer_problems(fetch, key),
            *collector_problems(fetch, key),
            *federation_problems(fetch, row),
        )
    )


def _mesh_problems(row: MeshConfig) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", _DONE)
    for index, one in enumerate(row.spec.extension_providers):
        yield from unsaid(
            row.ref, one, f"spec.extensionProviders[{index}]", ("name", "prometheus", "opentelemetry", *_LOGS, *_AUTHORIZERS)
        )
        if one.envoy_otel_als is not None:
            said = ("service", "port", "log_name", "log_format")
            yield from unsaid(row.ref, one.envoy_otel_als, f"spec.extensionProviders[{index}].envoyOtelAls", said)
    yield from unsaid(row.ref, row.spec.default_providers, "spec.defaultProviders", ("metrics", "access_logging", "tracing"))
    yield from unsaid(row.ref, row.spec.default_config, "spec.defaultConfig", PROXY_SETTINGS)
