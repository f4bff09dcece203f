"""One RateLimit of the demo's reviews, of which there are three replicas, and loads on it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.mesh import Mesh

URL = "http://reviews:9080/health"


class Counted(NamedTuple):
    """What came of a load, a second."""

    passed: float
    refused: float
    failed: float


def counted(out: str, seconds: int) -> Counted:
    """What h2load says of the seconds after those in which it warms up."""
    codes = re.search(r"status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx", out)
    assert codes, out
    passed, refused, failed = (int(one) / seconds for one in codes.groups())
    return Counted(passed, refused, failed)


def load_command(rate: float, clients: int = 8, headers: Mapping[str, str] | None = None) -> list[str]:
    """h2load, but for how long and of what."""
    flags = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
    return ["h2load", "--h1", "-c", str(clients), "--rps", str(rate / clients), *flags]


class Limited:
    """The RateLimit, and where the load goes."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def apply(self, kind: str, api: str, spec: dict[str, Any]) -> None:
        """An object named reviews, once every proxy has it."""
        one = {"apiVersion": api, "kind": kind, "metadata": {"name": "reviews", "namespace": "default"}, "spec": spec}
        self.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(one))
        self.mesh.synced()

    def limit(self, *rules: dict[str, Any]) -> None:
        """For all callers together, a second."""
        refs = [{"kind": "Service", "name": "reviews"}]
        self.apply(
            "RateLimit", "tulle.dev/v1alpha1", {"targetRefs": refs, "rules": [{"scope": "global", **one} for one in rules]}
        )

    def only(self, version: str) -> None:
        """All of the load goes to one replica."""
        subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2", "v3")]
        self.apply("DestinationRule", "networking.istio.io/v1", {"host": "reviews", "subsets": subsets})
        route = {"route": [{"destination": {"host": "reviews", "subset": version}}]}
        self.apply("VirtualService", "networking.istio.io/v1", {"hosts": ["reviews"], "http": [route]})

    def everywhere(self) -> None:
        """It goes to all of them again."""
        self.mesh.kubectl("delete", "virtualservice", "reviews", "--ignore-not-found")
        self.mesh.synced()

    def load(self, rate: float, seconds: int, warm_up: int, **headers: str) -> Counted:
        """What comes of it after the first seconds. `headers`: with `_` for `-`."""
        argv = load_command(rate, headers={name.replace("_", "-"): value for name, value in headers.items()})
        ran = self.mesh.inside(*argv, "-D", str(seconds), f"--warm-up-time={warm_up}", URL, timeout=seconds + 90)
        return counted(ran.out, seconds)

    def status(self) -> dict[str, dict[str, Any]]:
        """The rules by name, as `tulle ratelimit status` tells of them."""
        rules = json.loads(self.mesh.tulle("ratelimit", "status", "reviews", "-o", "json").out)["rules"]
        return {str(rule["rule"].rpartition("/")[2]): rule for rule in rules}
