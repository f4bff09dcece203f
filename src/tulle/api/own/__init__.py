"""The mesh's own kinds (tulle.dev): what neither the Gateway API nor Istio's kinds say."""

from tulle.api.own.mesh_config import MeshConfig
from tulle.api.own.rate_limit import RateLimit
from tulle.api.own.rollout import Rollout

__all__ = ["MeshConfig", "RateLimit", "Rollout"]
