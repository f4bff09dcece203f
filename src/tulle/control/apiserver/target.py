"""What a request is about: read from its path and query, before anything is looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import unquote

from tulle.api.object import Kind
from tulle.control.apiserver.discovery import has_status
from tulle.control.apiserver.errors import bad_options, bad_request, no_such_path
from tulle.ports import Cause, Key

Validation = Literal["Strict", "Warn", "Ignore"]
_VALIDATIONS: Mapping[str, Validation] = {"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}
_LONGEST_MANAGER = 128  # bytes


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

    `guard` has a word on the object as it will be stored; None for the control plane's own writes. `cause` is for the history.
    """

    manager: str
    dry_run: bool = False
    validation: Validation = "Warn"
    force: bool = False
    guard: Check | None = None
    cause: Cause | None = None


def target(path: str, kinds: Sequence[Kind]) -> Target:
    """The target of a raw (still quoted) path below `/api` or `/apis`. Raises a `Denial` where nothing is served."""
    parts = path.strip("/").split("/")
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if len(parts) < 3 or (parts[0] == "apis" and len(parts) < 4):
        raise no_such_path(path)
    group, version, *rest = ["", *parts[1:]] if parts[0] == "api" else parts[1:]
    served = _served(kinds).get((group, version), {})
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


_tables: dict[int, tuple[Sequence[Kind], dict[tuple[str, str], dict[str, Kind]]]] = {}


def _served(kinds: Sequence[Kind]) -> Mapping[tuple[str, str], Mapping[str, Kind]]:
    """The kinds by group and version, then plural; made once for each registry."""
    found = _tables.get(id(kinds))
    if found is None or found[0] is not kinds:
        table: dict[tuple[str, str], dict[str, Kind]] = {}
        for kind in kinds:
            for version in kind.versions:
                table.setdefault((kind.group, version), {})[kind.plural] = kind
        found = _tables[id(kinds)] = (kinds, table)
    return found[1]


_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}


def writing(
    query: Mapping[str, str],
    agent: str,
    method: str = "PATCH",
    *,
    applies: bool = False,
    guard: Check | None = None,
    cause: Cause | None = None,
) -> Writing:
    """The write options of a query; the field manager is the user agent's first word unless named.

    `applies`: it is a server-side apply; `guard`, `cause`: as in `Writing`. Raises a `Denial` that names the `method`'s options.
    """
    options = _OPTIONS.get(method, "PatchOptions")
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_options(options, "dryRun", f'Unsupported value: "{dry_run}": supported values: "All"', "FieldValueNotSupported")
    word = query.get("fieldValidation") or "Warn"
    validation = _VALIDATIONS.get(word)
    if validation is None:
        message = f'Unsupported value: "{word}": supported values: "Ignore", "Strict", "Warn"'
        raise bad_options(options, "fieldValidation", message, "FieldValueNotSupported")
    named = query.get("fieldManager", "")
    if applies and not named:
        raise bad_options(options, "fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
    if len(named.encode(errors="replace")) > _LONGEST_MANAGER:
        message = f"Too long: may not be more than {_LONGEST_MANAGER} bytes"
        raise bad_options(options, "fieldManager", message, "FieldValueTooLong")
    if not named.isprintable():
        raise bad_options(options, "fieldManager", "Invalid value: should only contain printable characters")
    force = flag(query, "force")
    if "force" in query and method == "PATCH" and not applies:
        raise bad_options(options, "force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden")
    manager = named or "".join(filter(str.isprintable, agent.partition("/")[0]))[:_LONGEST_MANAGER] or "unknown"
    return Writing(manager, bool(dry_run), validation, force, guard, cause)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean of the query as Kubernetes reads one: there, and neither `false` nor `0`."""
    return query[name].lower() not in ("false", "0") if name in query else False


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number of the query; 0 where it is absent."""
    text = query.get(name, "")
    if not text:
        return 0
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise bad_request(f"{name}: found {text!r}; needed a whole number")
    return int(text)
