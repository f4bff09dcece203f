"""What of a TrafficPolicy has no effect, and is said to have none."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio.destination_rule import PortTrafficPolicy, TrafficPolicy
from tulle.core.compile.mistakes import not_yet, unsaid
from tulle.core.compile.traffic_policies import OF_ALL, OF_PORT, hashed_names, usable
from tulle.kit.problem import Problem, Ref

_CHECKS = ("mode", "credential_name", "sni", "subject_alt_names", "ca_certificates", "ca_crl", "insecure_skip_verify")
_ACTED_ON = {
    "DISABLE": ("mode",),
    "ISTIO_MUTUAL": ("mode", "sni", "subject_alt_names"),
    "SIMPLE": _CHECKS,
    "MUTUAL": (*_CHECKS, "client_certificate", "private_key"),
}


def unsaid_policy(ref: Ref, said: TrafficPolicy | None, path: str) -> Iterator[Problem]:
    """The written fields that have no effect."""
    if said is None:
        return
    yield from unsaid(ref, said, path, (*OF_PORT, *OF_ALL, "port_level_settings"))
    yield from _unsaid_parts(ref, said, path)
    for index, setting in enumerate(said.port_level_settings):
        yield from _unsaid_parts(ref, setting, f"{path}.portLevelSettings[{index}]")


def _unsaid_parts(ref: Ref, said: TrafficPolicy | PortTrafficPolicy, path: str) -> Iterator[Problem]:
    balancer = said.load_balancer
    done = (
        "simple",
        "consistent_hash",
        "backend_utilization",
        "locality_lb_setting",
        "zone_aware_lb_setting",
        "warmup",
        "warmup_duration_secs",
    )
    yield from unsaid(ref, balancer, f"{path}.loadBalancer", done)
    hashed = balancer.consistent_hash if balancer else None
    for field, name in hashed_names(hashed) if hashed else ():
        if not usable(name):
            yield not_yet(ref, f"{path}.loadBalancer.consistentHash.{field}", f"{name!r} (no name that a request can have)")
    if said.tls and said.tls.sni and not usable(said.tls.sni):
        yield not_yet(ref, f"{path}.tls.sni", f"{said.tls.sni!r} (no name that a server can have)")
    if said.tls:
        yield from unsaid(ref, said.tls, f"{path}.tls", _ACTED_ON[said.tls.mode])
