"""User mistakes as values: what was found, where, and what is needed.

Decoding, compiling and analysing return `Problem`s beside their results; nothing here is raised. The command line prints
them with file and line, the API server returns them as causes, the status writer turns them into conditions.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Ref(msgspec.Struct, frozen=True, order=True):
    """Names one object: its `kind`, `namespace` (empty for cluster-scoped kinds), `name` and API `group`."""

    kind: str
    namespace: str
    name: str
    group: str = ""

    def __str__(self) -> str:
        """`VirtualService default/reviews`, as messages and tables print it."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


class Severity(StrEnum):
    """How bad a problem is: an ERROR is refused by `tulle apply`; a WARNING is only said; an INFO only where one analyses."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Location(msgspec.Struct, frozen=True, order=True):
    """A place in an input file: `file` as the person named it (`-` for standard input), 1-based `line` and `column`."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One mistake. `path` is the field (`spec.http[0].route[0].destination.host`); `message` says found and needed.

    `reason` is a short CamelCase word that programs may match on (`UnknownField`, `HostNotFound`). `ref` is None where the
    document could not be understood far enough to name its object.
    """

    ref: Ref | None
    path: str
    reason: str
    message: str
    severity: Severity = Severity.ERROR
    location: Location | None = None

    def __str__(self) -> str:
        """`reviews.yaml:12:9: VirtualService default/reviews: spec.hosts: message`."""
        parts = [str(self.location)] if self.location else []
        if self.ref:
            parts.append(str(self.ref))
        if self.path:
            parts.append(self.path)
        return ": ".join([*parts, self.message])
