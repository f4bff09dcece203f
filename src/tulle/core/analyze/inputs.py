"""What the analyzers read beside the tables of `compile`: kinds on which the mesh does not act yet, and a brief of every object.

Of a Secret only what its certificate says is kept (`certificates`), never its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tulle.api.object import Object
from tulle.core.analyze.certificates import Certificate, read
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import bare, namespaces, workload_entries
from tulle.core.flow import Fetch, Input, table
from tulle.core.flow.tables import Batch
from tulle.kit.problem import Ref

if TYPE_CHECKING:
    from tulle.api.istio import ProxyConfig

# The annotation with the codes that are not wanted of an object; Istio's own is read too.
SUPPRESS = ("tulle.dev/analyze-suppress", "galley.istio.io/analyze-suppress")
# What programs write of what they do is nobody's configuration.
_RECORDS = ("events", "leases.coordination.k8s.io")


class Scope(msgspec.Struct, frozen=True):
    """What is known beside the objects: the time (`now`, seconds since the epoch), and whether the objects are a `live` mesh.

    Of the time only steps are seen (`Analysis.at`): each hour, and each moment at which a certificate begins or ends.

    Of files alone nobody knows what runs: without a WorkloadEntry among them, nothing is said of workloads.
    """

    now: float = 0.0
    live: bool = False


class Brief(msgspec.Struct, frozen=True):
    """What every object has: its name, the version in which it is written, its age, and the codes that are suppressed for it."""

    ref: Ref
    version: str
    created: str | None = None
    suppressed: tuple[str, ...] = ()


scope: Input[str, Scope] = Input("scope")
briefs: Input[tuple[str, Key], Brief] = Input("briefs")


def _namespaced(name: str) -> Input[Key, Any]:
    return Input(name, namespace=lambda key, _row: [key[0]])


proxy_configs: Input[Key, ProxyConfig] = _namespaced("proxy_configs")
certificates: Input[Key, Certificate] = Input("certificates")

Row = Callable[[Object], Any]
INPUTS: Mapping[str, tuple[Input[Key, Any], Row]] = {
    "proxyconfigs.networking.istio.io": (proxy_configs, bare),
    "secrets": (certificates, read),
}


def analysed(resource: str) -> bool:
    """Whether objects of a resource are looked at."""
    return resource not in _RECORDS


def feed(batch: Batch, resource: str, key: Key, one: Object | None) -> None:
    """Add an object (None: deleted) to a batch of the flow, as the analyzers read it."""
    if not analysed(resource):
        return
    batch.setdefault(briefs, {})[resource, key] = None if one is None else _brief(one)
    if found := INPUTS.get(resource):
        source, row = found
        batch.setdefault(source, {})[key] = None if one is None else row(one)


def _brief(one: Object) -> Brief:
    return Brief(one.ref, one.api_version.rpartition("/")[2], one.metadata.creation_timestamp, suppressed_by(one))


def suppressed_by(one: Object) -> tuple[str, ...]:
    """The codes that an object's annotations do not want to hear; `*` is all of them."""
    notes = one.metadata.annotations
    words = ",".join(notes[name] for name in SUPPRESS if name in notes)
    return tuple(word for part in words.split(",") if (word := part.strip()))


@table
def workloads_known(fetch: Fetch, _key: None) -> bool:
    """Whether it is known what runs."""
    here = fetch(scope, "")
    return (here is not None and here.live) or bool(fetch.keys(workload_entries))


@table
def namespaces_known(fetch: Fetch, _key: None) -> bool:
    """Whether it is known which namespaces there are."""
    return bool(fetch.keys(namespaces))
