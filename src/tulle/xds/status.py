"""What an xDS server knows of its proxies, in structs that the command line and the status writer read."""

from __future__ import annotations

import msgspec


class Nack(msgspec.Struct, frozen=True):
    """A refusal: the proxy did not take `names` of `type_url` as of `revision`, and says why in `message`."""

    type_url: str
    names: tuple[str, ...]
    message: str
    revision: int


class TypeStatus(msgspec.Struct, frozen=True):
    """One type on one stream: the revisions of the last response sent and acknowledged (0: none yet), how many resources
    the proxy holds, and what it refuses now (name → why).
    """

    type_url: str
    sent: int
    acked: int
    resources: int
    refused: dict[str, str] = {}


class Progress(msgspec.Struct, frozen=True):
    """How far a connected proxy is: `synced` the latest revision with nothing outstanding, `refused` what it refuses now, by
    (type URL, name), and why. `count`: so many proxies for which this stands.
    """

    proxy: str
    synced: int = 0
    refused: dict[tuple[str, str], str] = {}
    count: int = 1


class ProxyStatus(msgspec.Struct, frozen=True):
    """One stream of one proxy.

    `connected` is seconds since the epoch; `synced` the latest revision with nothing outstanding (0: none yet); `held` says
    that the stream waits for a proxy that the source does not know yet.
    """

    proxy: str
    peer: str
    connected: float
    synced: int
    held: bool
    types: tuple[TypeStatus, ...]
