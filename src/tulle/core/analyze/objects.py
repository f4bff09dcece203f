"""What is asked of every object, whatever its kind: its namespace, its version, and whether the mesh acts on it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tulle.api.decode import unacted
from tulle.api.registry import kind_of_resource
from tulle.core.analyze.inputs import briefs, namespaces_known
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import error, info, meant, warning
from tulle.core.compile.objects import namespaces, settled
from tulle.core.flow import Fetch
from tulle.kit.problem import Problem

# Namespaces that are always there.
_PERMANENT = ("default", "kube-system")
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def namespace(fetch: Fetch, resource: str, key: Key) -> Iterator[Problem]:
    """A namespace that is not there."""
    row = fetch(briefs, (resource, key))
    if row is None or not key[0] or not fetch(namespaces_known, None):
        return
    if key[0] in (*_PERMANENT, *settled(fetch).root_namespaces) or fetch(namespaces, ("", key[0])) is not None:
        return
    near = meant(key[0], (name for _none, name in fetch.keys(namespaces)))
    message = f"no Namespace {key[0]}{near}; needed one that is there"
    yield error(row.ref, "metadata.namespace", "NamespaceNotFound", message)


def version(fetch: Fetch, resource: str, key: Key) -> Iterator[Problem]:
    """A version that is less stable than the one that is preferred."""
    row, kind = fetch(briefs, (resource, key)), kind_of_resource(resource)
    if row is None or kind is None or _rank(row.version) >= _rank(kind.versions[0]):
        return
    prefix = f"{kind.group}/" if kind.group else ""
    message = f"found {prefix}{row.version}; needed {prefix}{kind.versions[0]}, which has the same fields"
    if "alpha" in row.version:
        yield warning(row.ref, "apiVersion", "AlphaVersion", message)
    else:
        yield info(row.ref, "apiVersion", "OlderVersion", message)


@functools.cache  # there are a dozen versions
def _rank(text: str) -> tuple[int, int, int]:
    """The more stable the higher: v1alpha1, v1beta1, v1."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return 0, 0, 0
    major, stage, minor = match.groups()
    return {"alpha": 0, "beta": 1, None: 2}[stage], int(major), int(minor or 0)


def unsupported(fetch: Fetch, resource: str, key: Key) -> Iterator[Problem]:
    """A kind that is kept, and on which the mesh does not act yet."""
    row, kind = fetch(briefs, (resource, key)), kind_of_resource(resource)
    if row is not None and kind is not None and not kind.acted_on:
        yield warning(row.ref, "kind", "NotYetSupported", unacted(kind))
