"""`-f FILE|DIR|-`: every document of every file, decoded, with all mistakes and their lines. Nothing is written from here."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from tulle.api.kind import Kind
from tulle.api.registry import kind_for
from tulle.kit.errors import TulleError
from tulle.kit.problem import Location, Problem, Ref, Severity

if TYPE_CHECKING:
    from tulle.api.documents import Document
    from tulle.api.object import Object

F = TypeVar("F", bound=Callable[..., Any])
# For the collector of cycles: what is read stays until the command ends, and need not be walked again and again. A third of the
# time for ten thousand objects.
_SELDOM = (100_000, 50, 50)
SUFFIXES = (".yaml", ".yml", ".json")


class Given(NamedTuple):
    """An object of a file: as written (with its namespace filled in), decoded, where its fields are, what decoding warns of."""

    kind: Kind
    version: str
    raw: dict[str, Any]
    object: Object
    locate: Callable[[str], Location | None]
    problems: tuple[Problem, ...] = ()

    @property
    def ref(self) -> Ref:
        """The name, for messages."""
        return self.object.ref

    @property
    def namespace(self) -> str:
        """Empty for cluster-scoped kinds."""
        return self.object.metadata.namespace

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.object.metadata.name

    @property
    def shown(self) -> str:
        """`virtualservice.networking.istio.io/reviews`, as kubectl prints it."""
        return shown(self.kind, self.name)


def shown(kind: Kind, name: str) -> str:
    """`service/reviews`, `virtualservice.networking.istio.io/reviews`."""
    singular = f"{kind.singular}.{kind.group}" if kind.group else kind.singular
    return f"{singular}/{name}"


def files_option(required: bool = True) -> Callable[[F], F]:
    """`-f`, repeatable."""
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        required=required,
        metavar="FILE|DIR|-",
        help="Files, folders (*.yaml, *.yml, *.json) or - for standard input. Repeatable.",
    )


def read(
    names: Sequence[str], namespace: str, *, insist: bool = False, recursive: bool = False
) -> tuple[list[Given], list[Problem]]:
    """The objects of all files in order, and every mistake in them, warnings included.

    `namespace` is for those that name none; with `insist` one that names another is a mistake. Folders are read with those
    below them where `recursive`. Raises `TulleError` where a file cannot be read at all.
    """
    from tulle.api.documents import read_documents  # who only shows objects reads none

    gc.set_threshold(*_SELDOM)
    given: list[Given] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str, str, str], Location | None] = {}
    for name in names:
        for file, data in _contents(name, recursive):
            documents, found = read_documents(data, file)
            problems += found
            for document in documents:
                item, found = _decoded(document, namespace, insist)
                problems += found
                if item is None:
                    continue
                key = (item.kind.group, item.kind.kind, item.namespace, item.name)
                here = document.locate("metadata.name")
                if key in seen:
                    message = f'found "{item.name}" again, first at {seen[key]}; needed each object only once'
                    problems.append(Problem(item.ref, "metadata.name", "DuplicateObject", message, location=here))
                    continue
                seen[key] = here
                given.append(item)
    return given, problems


def errors(problems: Sequence[Problem]) -> list[Problem]:
    """Those that forbid writing."""
    return [problem for problem in problems if problem.severity is Severity.ERROR]


def _decoded(document: Document, namespace: str, insist: bool) -> tuple[Given | None, list[Problem]]:
    from tulle.api.decode import decode

    raw = dict(document.raw)
    version = raw.get("apiVersion")
    group = version.rpartition("/")[0] if isinstance(version, str) else ""
    kind = kind_for(group, raw["kind"]) if isinstance(raw.get("kind"), str) else None
    metadata = raw.get("metadata")
    mismatch: list[Problem] = []
    if kind is not None and isinstance(metadata, dict):
        # What the server writes is not what a person meant to say.
        metadata = {name: value for name, value in metadata.items() if name != "managedFields"}
        if kind.namespaced and not metadata.get("namespace"):
            metadata["namespace"] = namespace
        elif kind.namespaced and insist and metadata["namespace"] != namespace:
            ref = Ref(kind.kind, str(metadata["namespace"]), str(metadata.get("name", "")), kind.group)
            message = f'found "{metadata["namespace"]}", needed "{namespace}", the namespace of --namespace'
            mismatch.append(
                Problem(ref, "metadata.namespace", "NamespaceMismatch", message, location=document.locate("metadata.namespace"))
            )
        raw["metadata"] = metadata
    decoded, problems = decode(raw, document.locate)
    problems = mismatch + problems
    if decoded is None or kind is None or errors(problems):
        return None, problems
    return Given(kind, str(version).rpartition("/")[2], raw, decoded, document.locate, tuple(problems)), problems


def _contents(name: str, recursive: bool) -> list[tuple[str, bytes]]:
    if name == "-":
        return [("-", sys.stdin.buffer.read())]
    path = Path(name)
    try:
        if not path.is_dir():
            return [(name, path.read_bytes())]
        files = path.rglob("*") if recursive else path.iterdir()
        inside = sorted(file for file in files if file.suffix in SUFFIXES and file.is_file())
        if not inside:
            raise TulleError(f"{name}: found no file that ends in {', '.join(SUFFIXES)}")
        return [(str(file), file.read_bytes()) for file in inside]
    except OSError as error:
        raise TulleError(f"{name}: {error.strerror or error}") from error
