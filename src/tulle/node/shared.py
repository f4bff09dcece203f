"""What the workloads of a node share; `agent.py` makes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tulle.client.api import ApiClient
from tulle.node.budget import Budget
from tulle.node.calls.recorder import Recorder
from tulle.node.identity import IdentityClient, Kept
from tulle.node.network import Network
from tulle.node.news import News
from tulle.node.resolver import Resolver
from tulle.node.spans import Buffer
from tulle.xds.client import Upstream


@dataclass
class Node:
    """A host, as a workload sees it."""

    name: str
    instance: str
    state_dir: Path
    runtime_dir: Path
    log_level: str
    budget: Budget
    access_log_bytes: int
    network: Network
    resolver: Resolver
    upstream: Upstream
    identities: IdentityClient
    own: Kept
    api: Callable[[], Awaitable[ApiClient]]
    news: News
    spans: Buffer
    recorder: Recorder
    metrics: str = ""  # HOST:PORT where others read this node's metrics

    def folder(self, workload: str) -> Path:
        """Where a workload's files are; a namespace has no dot, so no two workloads share one."""
        return self.state_dir / "workloads" / workload.replace("/", ".", 1)
