"""No configuration that tulle sends is ever refused by Envoy: whatever the API server lets in, Envoy takes what becomes of it.

Objects of each kind with fields written at random after the kind's schema; those that are let in are compiled beside a
whole mesh, and all that they change is judged by `envoy --mode validate`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.any_object import ACTED_ON, Mesh, bases, put, schema_of
from tests.support.crds import places
from tests.support.envoy import validate
from tulle.api.object import Kind, Object
from tulle.core import type_urls
from tulle.core.compile.layers import layer_names
from tulle.core.encoded import Encoded, Published
from tulle.core.pipeline import Pipeline

_DOCUMENTS = int(os.environ.get("TULLE_EXAMPLES", "30"))  # of each kind; more of them where somebody looks for a NACK
_TRIES = 8
# Texts that have broken configurations before, in fields where a person may write any text.
_NASTY = ("%", "%%", "%REQ(", "\\", "\\1", "(", "a\tb", "é", "|", "*", "/..", "?a=b#c", "a b", "a,b", "a=b", "x" * 300)


def written(kind: Kind) -> Iterator[Object]:
    """Objects of a kind: one that is right, with some of its fields written anew as long as it is let in."""
    schema = schema_of(kind)["properties"]["spec"]
    paths = [path for path, _place in places(schema) if path]
    for number in range(_DOCUMENTS):
        random = Random(number)
        spec, found = random.choice(bases(kind)), None
        for _try in range(_TRIES):
            other, place = put(spec, schema, random.choice(paths), random)
            if random.random() < 0.4:
                other = nasty(other, place, random)
            one, _problems = Mesh.read(kind, other)
            if one is not None:
                spec, found = other, one
        if found is not None:
            yield found


def nasty(spec: Any, place: tuple[str | int, ...], random: Random) -> Any:
    """The document with a nasty text in that place, where there is a text."""
    at = spec
    for step in place[:-1]:
        at = at[step]
    if isinstance(at[place[-1]], str):
        at[place[-1]] = random.choice(_NASTY)
    return spec


def changed(pipeline: Pipeline, published: Published) -> Iterator[list[Encoded]]:
    """What changed in each layer, with what Envoy needs to look at it: tables with all their hosts, in listeners of theirs."""
    for layer, kinds in published.changed.items():
        new = [one for some in kinds.values() for one in some.values() if one is not None]
        listeners = {one.name: one for one in new if one.type_url == type_urls.LISTENER}
        tables = {one.name for one in new if one.type_url == type_urls.ROUTE}
        tables |= {one.name.partition("/")[0] for one in new if one.type_url == type_urls.VIRTUAL_HOST}
        for one in pipeline.table(layer, type_urls.LISTENER).values():
            if any((type_urls.ROUTE, name) in one.refs for name in tables):
                listeners[one.name] = one
        tables |= {name for one in listeners.values() for url, name in one.refs if url == type_urls.ROUTE}
        # Of callers with listeners of their own the tables are in another layer.
        everywhere = pipeline.flow.get(layer_names, None) or ()
        routes = [one for where in everywhere for name, one in pipeline.table(where, type_urls.ROUTE).items() if name in tables]
        hosts = [one for where in everywhere for one in pipeline.table(where, type_urls.VIRTUAL_HOST).values()]
        others = [one for one in new if one.type_url in (type_urls.CLUSTER, type_urls.ENDPOINT, type_urls.SECRET)]
        yield [*listeners.values(), *routes, *(one for one in hosts if one.name.partition("/")[0] in tables), *others]


@pytest.mark.parametrize("kind", ACTED_ON, ids=lambda kind: kind.resource)
def test_envoy_takes_what_becomes_of_any_object(kind: Kind, tmp_path: Path) -> None:
    """Broken: an object that the API server took would stop the configuration of every proxy that sees it."""
    mesh = Mesh(kind)
    groups: list[list[Encoded]] = []
    objects = [*written(kind)]
    for one in objects:
        key = (kind.resource, one.metadata.namespace, one.metadata.name)
        groups += changed(mesh.pipeline, mesh.pipeline.commit({key: one}))
    assert len(objects) > _DOCUMENTS / 2
    assert groups
    assert validate(groups, tmp_path) == ""
