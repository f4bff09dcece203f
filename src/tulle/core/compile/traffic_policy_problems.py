"""What of a TrafficPolicy has no effect, and is said to have none."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio.destination_rule import PortTrafficPolicy, TrafficPolicy
from tulle.core.compile.mistakes import not_yet, unsaid, warning
from tulle.core.compile.traffic_policies import OF_ALL, OF_PORT, OWN, hashed_names, usable
from tulle.kit.problem import Problem, Ref

_CHECKS = ("mode", "sni", "subject_alt_names", "ca_certificates", "ca_crl", "insecure_skip_verify")
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
    done = ("simple", "consistent_hash", "locality_lb_setting", "warmup", "warmup_duration_secs")
    yield from unsaid(ref, balancer, f"{path}.loadBalancer", done)
    hashed = balancer.consistent_hash if balancer else None
    for field, name in hashed_names(hashed) if hashed else ():
        if not usable(name):
            yield not_yet(ref, f"{path}.loadBalancer.consistentHash.{field}", f"{name!r} (no name that a request can have)")
    if said.tls and said.tls.sni and not usable(said.tls.sni):
        yield not_yet(ref, f"{path}.tls.sni", f"{said.tls.sni!r} (no name that a server can have)")
    if said.tls:
        yield from unsaid(ref, said.tls, f"{path}.tls", _ACTED_ON[said.tls.mode])
        if said.tls.mode in OWN and said.tls.credential_name:
            message = f"mode {said.tls.mode} with credentialName is not supported yet; it has no effect: needed files"
            yield warning(ref, f"{path}.tls.mode", "NotYetSupported", message)


def unsaid_of_bytes(ref: Ref, said: TrafficPolicy | None, path: str, ports: list[int]) -> Iterator[Problem]:
    """The written bounds of connections that only HTTP has, for those of a service's `ports` that are not HTTP."""
    if said is None:
        return
    own = {setting.port.number for setting in said.port_level_settings if setting.port}
    yield from _of_bytes(ref, said, path, [port for port in ports if port not in own])
    for index, setting in enumerate(said.port_level_settings):
        at = [port for port in ports if setting.port and port == setting.port.number]
        yield from _of_bytes(ref, setting, f"{path}.portLevelSettings[{index}]", at)


def _of_bytes(ref: Ref, said: TrafficPolicy | PortTrafficPolicy, path: str, ports: list[int]) -> Iterator[Problem]:
    tcp = said.connection_pool.tcp if said.connection_pool else None
    for field, value in (
        (("idleTimeout", tcp.idle_timeout), ("maxConnectionDuration", tcp.max_connection_duration)) if tcp else ()
    ):
        for port in ports if value else ():
            yield not_yet(ref, f"{path}.connectionPool.tcp.{field}", f"{field} at port {port}, which is not HTTP,")
