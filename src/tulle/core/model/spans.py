"""Spans, as proxies tell nodes and nodes the control plane, and the traces that they make up, as people are shown them."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

SERVER, CLIENT = "server", "client"


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One proxy's part in a request. Ids are in hexadecimal, `parent` is "" where a trace begins.

    `workload` is whose proxy it is (`namespace/name`), `service` its application (`namespace/app`). `kind`: SERVER where the
    request came in, CLIENT where it went out. `start` is in microseconds since the epoch, by the clock of the proxy's host;
    `duration` in microseconds.
    """

    trace: str
    id: str
    parent: str = ""
    workload: str = ""
    service: str = ""
    version: str = ""
    kind: str = SERVER
    name: str = ""
    start: int = 0
    duration: int = 0
    failed: bool = False
    tags: dict[str, str] = {}


class SpanReport(msgspec.Struct, frozen=True):
    """What the proxies of a `node` have told since its last report.

    `sent` is what its clock says (seconds since the epoch); `dropped` spans there was no room for.
    """

    node: str
    sent: float
    spans: tuple[Span, ...] = ()
    dropped: int = 0


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A trace in a list. `service`, `name` and `path` are of the span where it begins, as far as that is `known`.

    `start` is in seconds since the epoch, `duration` in milliseconds, `errors` counts spans that failed. `services` are those
    that took part. `kept`: it is kept longer, for it failed or was slow.
    """

    trace: str
    start: float
    duration: float
    service: str = ""
    name: str = ""
    path: str = ""
    known: bool = True
    spans: int = 0
    errors: int = 0
    services: tuple[str, ...] = ()
    kept: bool = False


class Summaries(msgspec.Struct, frozen=True):
    """The traces that were asked for, the newest first. `begins`: since when traces have been kept (seconds since the epoch).

    `dropped` counts the spans that there was no room for, at nodes and at the control plane, since then.
    """

    begins: float
    traces: tuple[Summary, ...] = ()
    dropped: int = 0


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A span in its place in a trace: `depth` below the first, `start` in milliseconds after it.

    `moved` is by how many milliseconds its clock was put right, which had said that a call began before it was made. `lost`: the
    span that it belongs to is not there.
    """

    id: str
    parent: str
    depth: int
    workload: str
    service: str
    version: str
    kind: str
    name: str
    start: float
    duration: float
    failed: bool = False
    moved: float = 0.0
    lost: bool = False
    tags: dict[str, str] = {}

    @property
    def path(self) -> str:
        """Of the address that was called."""
        return urlsplit(self.tags.get("http.url", "")).path


class Trace(msgspec.Struct, frozen=True):
    """A trace: its steps as they are read from top to bottom. `start` in seconds since the epoch, `duration` in milliseconds."""

    trace: str
    start: float
    duration: float
    steps: tuple[Step, ...] = ()
