"""The mesh's own kinds."""

from __future__ import annotations

from tulle.api.columns import LIMITS, TARGETS, condition, field
from tulle.api.kind import Kind

OWN = "tulle.dev"

KINDS: tuple[Kind, ...] = (
    Kind(
        OWN,
        ("v1alpha1",),
        "MeshConfig",
        "meshconfigs",
        "tulle.api.own:MeshConfig",
        namespaced=False,
        categories=("tulle",),
        columns=(field("Outbound", "spec.outboundTrafficPolicy.mode"), field("Aliases", "spec.trustDomainAliases", wide=True)),
    ),
    Kind(
        OWN,
        ("v1alpha1",),
        "RateLimit",
        "ratelimits",
        "tulle.api.own:RateLimit",
        short_names=("rl",),
        categories=("tulle",),
        columns=(TARGETS, LIMITS, condition("Accepted", "Accepted")),
    ),
    Kind(
        OWN,
        ("v1alpha1",),
        "Rollout",
        "rollouts",
        "tulle.api.own:Rollout",
        categories=("tulle",),
        columns=(
            field("Service", "spec.targetRef.name"),
            field("Strategy", "spec.strategy"),
            field("Phase", "status.phase"),
            field("Weight", "status.weight"),
            field("Route", "spec.routeRef.name", wide=True),
        ),
    ),
)
