"""The node agent's local API as its callers see it: the nouns that cross `node.sock`, and the client.

JSON over HTTP over a Unix socket that only its owner may open. `node/local_api.py` is the other end. `tulle run` asks for a
workload here and gets, once the sidecar serves, what is needed to start the application inside; private keys never cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from tulle.kit.errors import Exit, Refused, TulleError, Unavailable
from tulle.kit.paths import node_socket

DRAIN = 5.0  # seconds, where nobody says otherwise


class Kind(StrEnum):
    """SIDECAR: beside an application. GATEWAY: an Envoy of its own that listens on the host."""

    SIDECAR = "sidecar"
    GATEWAY = "gateway"


class Port(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port of the workload's service: `number` is what callers name, `target` where it is bound (0: the same number).

    `protocol` is Istio's word (`http`, `http2`, `grpc`, `tcp`, `tls`, `udp`; "" for undeclared); `name` is the service port's
    name, made from protocol and number where empty.
    """

    number: int
    protocol: str = ""
    name: str = ""
    target: int = 0

    @property
    def bound(self) -> int:
        """The port that is really bound."""
        return self.target or self.number

    @property
    def is_udp(self) -> bool:
        """Whether datagrams come there."""
        return self.protocol == "udp"

    @property
    def label(self) -> str:
        """The service port's name."""
        return self.name or f"{self.protocol or 'port'}-{self.number}"


class Owner(msgspec.Struct, frozen=True):
    """A process whose end removes the workload: `pid`, and its start time in clock ticks, for pids come back."""

    pid: int
    started: int


class Probe(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to ask an application whether it is ready: a `command`; at `port` a GET of `path`, gRPC's health service about the
    service `grpc` ("": the server), or (without all of these) a connection.

    Times are in seconds; so many `successes` or `failures` in a row change the answer.
    """

    port: int = 0
    host: str = ""
    path: str = ""
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    grpc: str | None = None
    delay: float = 0
    timeout: float = 1
    period: float = 10
    successes: int = 1
    failures: int = 3


class WorkloadSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of the node: one sidecar (or gateway) with a name in the mesh.

    `service` "" makes a workload that only calls. `capture` is `auto`, `netns`, `cgroup` or `proxy` (`none` for a gateway,
    set by itself). `labels` add to `app` and `version`; `annotations` are the WorkloadEntry's, and
    `traffic.sidecar.istio.io/*` of them choose what is captured. Of a `group` (a WorkloadGroup) it has what it does not say
    itself; `locality`, `weight`, `probe` and `named_ports` (beside `ports`) are as in WorkloadEntries and WorkloadGroups.
    `drain`: seconds that what is under way may take, once nobody is sent there any more. Without `owner` the workload stays until
    it is removed.
    """

    name: str
    namespace: str = "default"
    service: str = ""
    version: str = ""
    service_account: str = "default"
    ports: tuple[Port, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    capture: str = "auto"
    kind: Kind = Kind.SIDECAR
    owner: Owner | None = None
    group: str = ""
    locality: str = ""
    weight: int = 0
    named_ports: dict[str, int] = {}
    probe: Probe | None = None
    drain: float = DRAIN

    @property
    def id(self) -> str:
        """`namespace/name`, the proxy's id."""
        return f"{self.namespace}/{self.name}"


class WorkloadStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A workload as it is now.

    `state` is the proxy's (`starting`, `ready`, `waiting`, `draining`, `stopped`), `ready` whether the application listens and
    the mesh has been told: while no control plane answers, a new one runs and is not called.
    `env` is what an application inside needs to be given, `app_ports` where it has to listen (port → port; equal except in
    `proxy` capture). `registered` is false while the API server has not taken its WorkloadEntry. `error` is the last failure.
    """

    id: str
    kind: Kind
    state: str
    ready: bool
    address: str = ""
    capture: str = ""
    identity: str = ""
    service: str = ""
    version: str = ""
    envoy_pid: int = 0
    restarts: int = 0
    registered: bool = False
    expires: float = 0.0
    error: str = ""
    env: dict[str, str] = {}
    app_ports: dict[int, int] = {}


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The agent: its `name`, `pid`, the `instance` its processes carry, how it captures and why, and whom it reaches."""

    name: str
    pid: int
    version: str
    instance: str
    envoy: str
    trust_domain: str
    capture: str
    capture_reason: str
    control_plane: str
    connected: bool
    workloads: tuple[WorkloadStatus, ...] = ()


class Command(msgspec.Struct, frozen=True):
    """How to start a process inside a workload: the whole `argv`, and the whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


class CommandRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What shall be started: `env` is the environment that it would have had outside; `uid`, `gid`, as root: whom to run as."""

    argv: tuple[str, ...]
    env: dict[str, str]
    uid: int | None = None
    gid: int | None = None


class NodeError(TulleError):
    """The agent's own answer where it could not do what was asked."""

    code = "node"


class NodeClient:
    """Calls the agent: `async with NodeClient() as node`. `Unavailable` where none answers, `NodeError` where it says no."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or node_socket()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> NodeClient:
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def status(self) -> NodeStatus:
        """The agent and all its workloads."""
        return msgspec.json.decode(await self._call("GET", "/v1/status", timeout=5), type=NodeStatus)

    async def workload(self, id: str) -> WorkloadStatus | None:  # noqa: A002 - the noun's word
        """One workload by `namespace/name`, or None."""
        try:
            return msgspec.json.decode(await self._call("GET", f"/v1/workloads/{id}", timeout=5), type=WorkloadStatus)
        except NodeError as error:
            if error.code == "not-found":
                return None
            raise

    async def add(self, spec: WorkloadSpec, timeout: float = 30.0) -> WorkloadStatus:
        """Put a workload in the mesh; answers when its proxy serves. Asking again for what its owner already has answers too."""
        body = await self._call("POST", "/v1/workloads", msgspec.json.encode(spec), timeout=timeout)
        return msgspec.json.decode(body, type=WorkloadStatus)

    async def withdraw(self, id: str, timeout: float = 15.0) -> None:  # noqa: A002
        """Take the workload out of its callers' sight; returns when they know and nothing of theirs is under way, or its `drain`
        is over. It goes on serving who still calls."""
        await self._call("POST", f"/v1/workloads/{id}/withdraw", timeout=timeout)

    async def remove(self, id: str, drain: bool = True, timeout: float = 60.0) -> None:  # noqa: A002
        """Withdraw, drain, stop, and clear away. Removing what is not there is fine."""
        await self._call("DELETE", f"/v1/workloads/{id}?drain={'true' if drain else 'false'}", timeout=timeout)

    async def command(
        self,
        id: str,  # noqa: A002
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Command:
        """What to execute on this host so that `argv` runs inside the workload as its application would."""
        request = CommandRequest(argv=tuple(argv), env=dict(env), uid=uid, gid=gid)
        body = await self._call("POST", f"/v1/workloads/{id}/command", msgspec.json.encode(request), timeout=10)
        return msgspec.json.decode(body, type=Command)

    async def config_dump(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Envoy's `/config_dump?include_eds`; Envoy redacts private keys itself."""
        return await self._document(f"/v1/workloads/{id}/config_dump")

    async def certs(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Envoy's `/certs`."""
        return await self._document(f"/v1/workloads/{id}/certs")

    async def clusters(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Envoy's `/clusters?format=json`."""
        return await self._document(f"/v1/workloads/{id}/clusters")

    async def stats(self, id: str) -> str:  # noqa: A002
        """Envoy's `/stats/prometheus` as text."""
        return (await self._call("GET", f"/v1/workloads/{id}/stats", timeout=30)).decode()

    async def set_level(self, id: str, level: str) -> None:  # noqa: A002
        """Change Envoy's log level without a restart: trace, debug, info, warning, error, critical, off."""
        await self._call("POST", f"/v1/workloads/{id}/log", msgspec.json.encode({"level": level}), timeout=10)

    async def shutdown(self, teardown: bool) -> None:
        """Stop the agent; with `teardown` all its workloads go first."""
        await self._call("POST", f"/v1/shutdown?teardown={'true' if teardown else 'false'}", timeout=120)

    async def _document(self, path: str) -> dict[str, Any]:
        return msgspec.json.decode(await self._call("GET", path, timeout=30), type=dict[str, Any])

    async def _call(self, method: str, path: str, body: bytes | None = None, *, timeout: float) -> bytes:
        if self._session is None:
            raise RuntimeError("NodeClient is used outside of `async with`")
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(
                method,
                f"http://node{path}",
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                data = await response.read()
                if response.status < 400:
                    return data
                raise _error(data, response.status)
        except PermissionError as error:
            raise Refused(
                f"{self.path}: this user may not use this node agent",
                hint="run as the user who started it, or start one with `tulle node`",
            ) from error
        except (aiohttp.ClientConnectionError, FileNotFoundError, ConnectionError) as error:
            if isinstance(getattr(error, "os_error", None), PermissionError):
                raise Refused(f"{self.path}: this user may not use this node agent") from error
            raise Unavailable(
                f"no node agent answers at {self.path}",
                hint="start one with `tulle node`, or everything with `tulle demo up`",
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"the node agent at {self.path} did not answer within {timeout:g} s") from error


def _error(data: bytes, status: int) -> NodeError:
    """The agent's `{code, message, hint, exit}` as an exception."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        fields = {}
    error = NodeError(str(fields.get("message", f"the node agent answered {status}")), hint=str(fields.get("hint", "")))
    error.code = str(fields.get("code", "node"))
    error.exit = Exit(int(fields.get("exit", Exit.ERROR)))
    return error
