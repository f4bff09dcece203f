"""Which analyzers look at a kind, and the table of what they find: a row an object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tulle.core.analyze import gateways, objects, policies, routing, secrets, services, shadowing, tls
from tulle.core.analyze.codes import code_of
from tulle.core.analyze.inputs import briefs, workloads_known
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems
from tulle.core.compile.problems import object_problems
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem

Analyzer = Callable[[Fetch, Key], Iterable[Problem]]

ANALYZERS: Mapping[str, tuple[Analyzer, ...]] = {
    "services": (services.without_endpoints, services.undeclared_ports, services.unguarded_datagrams),
    "secrets": (secrets.secret_problems,),
    "virtualservices.networking.istio.io": (shadowing.virtual_service_shadows, routing.weights),
    "destinationrules.networking.istio.io": (
        routing.empty_subsets,
        tls.contradictions,
        policies.destination_rule_for_nobody,
    ),
    "gateways.networking.istio.io": (gateways.istio_gateway_conflicts, secrets.istio_gateway_certificates),
    "serviceentries.networking.istio.io": (routing.service_entry_conflicts, policies.service_entry_for_nobody),
    "sidecars.networking.istio.io": (policies.sidecar_for_nobody, policies.sidecar_conflicts, tls.ended_nowhere),
    "proxyconfigs.networking.istio.io": (policies.proxy_config_for_nobody, policies.proxy_config_conflicts),
    "peerauthentications.security.istio.io": (tls.strict_outside, policies.peer_authentication_for_nobody),
    "authorizationpolicies.security.istio.io": (
        policies.authorization_policy_for_nobody,
        policies.authorization_policy_targets,
        policies.authorization_policy_provider,
    ),
    "requestauthentications.security.istio.io": (
        policies.request_authentication_for_nobody,
        policies.request_authentication_targets,
    ),
    "ratelimits.tulle.dev": (policies.rate_limit_for_nobody, policies.rate_limit_targets),
    "telemetries.telemetry.istio.io": (
        policies.telemetry_for_nobody,
        policies.telemetry_targets,
        policies.telemetry_providers,
        policies.telemetry_conflicts,
    ),
    "gateways.gateway.networking.k8s.io": (gateways.gateway_conflicts, gateways.gateway_class, secrets.gateway_certificates),
    "httproutes.gateway.networking.k8s.io": (shadowing.http_route_shadows,),
    "grpcroutes.gateway.networking.k8s.io": (shadowing.grpc_route_shadows,),
    "backendtlspolicies.gateway.networking.k8s.io": (policies.backend_tls_targets, secrets.backend_tls_certificates),
}
# What compile says of workloads, which nobody knows of files alone.
_OF_WORKLOADS = ("NoGatewayWorkload",)
# Asked of every object.
EVERYWHERE = (objects.namespace, objects.version, objects.unsupported)


@table
def object_findings(fetch: Fetch, key: tuple[str, Key]) -> tuple[Problem, ...]:
    """What is wrong with (resource, object), without what its annotation suppresses."""
    resource, name = key
    brief = fetch(briefs, key)
    if brief is None:
        return ()
    found = [one for one in fetch(object_problems, key) or () if one.reason not in _OF_WORKLOADS or fetch(workloads_known, None)]
    for general in EVERYWHERE:
        found += general(fetch, resource, name)
    for analyzer in ANALYZERS.get(resource, ()):
        found += analyzer(fetch, name)
    return sorted_problems(one for one in found if not brief.suppressed or not is_suppressed(one, brief.suppressed))


def is_suppressed(problem: Problem, words: Iterable[str]) -> bool:
    """Whether a problem's code (or one that Istio has for it) is among the words; `*` is all of them."""
    code = code_of(problem)
    return any(word in ("*", code.code, *code.istio) for word in words)
