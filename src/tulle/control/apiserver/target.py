"""What a request is about: read from its path and query, before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import unquote

from tulle.api.object import Kind
from tulle.control.apiserver.discovery import has_status
from tulle.control.apiserver.errors import bad_request, no_such_path
from tulle.ports import Key

Validation = Literal["Strict", "Warn", "Ignore"]
_VALIDATIONS: Mapping[str, Validation] = {"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}


@dataclass(frozen=True, slots=True)
class Target:
    """A kind in a version; `namespace` "" for all or none, `name` "" for the collection, `subresource` "" or `status`."""

    kind: Kind
    version: str
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Where the object lies in the store."""
        return Key(self.kind.resource, self.namespace, self.name)

    @property
    def api_version(self) -> str:
        """`group/version`, as in documents."""
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version


class Check(Protocol):
    """Who may write what (`guard.Guard`)."""

    async def check(self, verb: str, target: Target, body: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
        """Asked with the object as it will be stored; raises a `Denial` where it may not be."""
        ...


@dataclass(frozen=True, slots=True)
class Writing:
    """How a write was asked for: `manager` owns the fields, `force` takes those of others (server-side apply only).

    `guard` has a word on the object as it will be stored; None for the control plane's own writes.
    """

    manager: str
    dry_run: bool = False
    validation: Validation = "Warn"
    force: bool = False
    guard: Check | None = None


def target(path: str, kinds: Sequence[Kind]) -> Target:
    """The target of a raw (still quoted) path below `/api` or `/apis`. Raises a `Denial` where nothing is served."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) < 3 or (parts[0] == "apis" and len(parts) < 4):
        raise no_such_path(path)
    group, version, *rest = ["", *parts[1:]] if parts[0] == "api" else parts[1:]
    served = {kind.plural: kind for kind in kinds if kind.group == group and version in kind.versions}
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (rest[2] in served and served[rest[2]].namespaced):
        namespace, rest = rest[1], rest[2:]
        if not namespace:
            raise no_such_path(path)
    kind = served.get(rest[0])
    name, subresource = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    if kind is None or len(rest) > 3 or (subresource and not (subresource == "status" and has_status(kind))):
        raise no_such_path(path)
    if (len(rest) > 1 and not name) or (kind.namespaced and name and not namespace):
        raise no_such_path(path)
    return Target(kind, version, namespace, name, subresource)


def writing(query: Mapping[str, str], agent: str) -> Writing:
    """The write options of a query; the field manager is the user agent's first word unless named."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f"dryRun: found {dry_run!r}; needed All")
    validation = _VALIDATIONS.get(query.get("fieldValidation") or "Warn")
    if validation is None:
        raise bad_request(f"fieldValidation: found {query['fieldValidation']!r}; needed Strict, Warn or Ignore")
    manager = query.get("fieldManager") or agent.partition("/")[0] or "unknown"
    if len(manager) > 128 or not manager.isprintable():
        raise bad_request("fieldManager: needed at most 128 printable characters")
    return Writing(manager, bool(dry_run), validation, query.get("force", "") in ("true", "1"))


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number of the query; 0 where it is absent."""
    text = query.get(name, "")
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 18:
        raise bad_request(f"{name}: found {text!r}; needed a whole number")
    return int(text)
