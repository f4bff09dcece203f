"""A raw document into a typed object, with every mistake in it at once, each a sentence with its field and line.

`decode` is the only way in: the API server, `tulle apply` and the tests use it. Nothing is repaired: what is stored stays as wri
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from tulle.api import path as paths
from tulle.api.metadata import metadata_faults
from tulle.api.object import RULES_LATER, Fault, Kind, Object, faults_below
from tulle.api.registry import KINDS, kind_for
from tulle.api.sentences import did_you_mean, found, sentence, unknown_field
from tulle.api.shape import Shape
from tulle.kit.problem import Location, Problem, Ref, Severity

# Kinds of other meshes that are refused, and what does the same here.
INSTEAD = {
    "EnvoyFilter": "a raw patch breaks with Envoy's versions. Use HTTPRoute or VirtualService for routing, DestinationRule for "
    "connections and balancing, RateLimit (tulle.dev) for limits, AuthorizationPolicy for access, Telemetry for logs and traces",
    "WasmPlugin": "the proxies run no foreign code. Use AuthorizationPolicy or RequestAuthentication for access, HTTPRoute "
    "filters or VirtualService headers for changes of requests, and an external authorizer (action CUSTOM) for the rest",
    "TrafficExtension": "the proxies run no foreign code. Use HTTPRoute filters or VirtualService headers for changes of "
    "requests, AuthorizationPolicy for access, and an external authorizer (action CUSTOM) for the rest",
}


def decode(raw: dict[str, Any], locate: Callable[[str], Location | None] | None = None) -> tuple[Object | None, list[Problem]]:
    """The object, or None where it has errors, and every problem found. Warnings come with the object. Never raises.

    `locate` gives the place of a field path in the file it came from (`Document.locate`).
    """
    if not isinstance(raw, dict):
        return None, [
            Problem(None, "", "NotAnObject", f"found {found(raw)}; needed an object with apiVersion, kind and metadata")
        ]
    report = _Report(raw, locate)
    kind = _kind_of(raw, report)
    if kind is None:
        return None, report.in_order()
    decoded = _typed(dict(raw), kind, kind.model_in(str(raw["apiVersion"]).rpartition("/")[2]), report)
    for fault in metadata_faults(kind, raw.get("metadata")):
        report.add(("metadata", *fault.at), fault.reason, fault.message)
    if decoded is not None and not report.problems:
        for problem in kind.check(decoded):
            report.add(paths.split(problem.path), problem.reason, problem.message, problem.severity)
        if not kind.acted_on:
            report.add(("kind",), "NotYetSupported", unacted(kind), Severity.WARNING)
    failed = any(problem.severity is Severity.ERROR for problem in report.problems)
    return (None if failed else decoded), report.in_order()


def decode_review(raw: dict[str, Any], kind: Kind) -> tuple[Object | None, list[Problem]]:
    """A review of a kind (`registry.REVIEWS`): it has no name. The review, or None where it has errors, and all of them."""
    report = _Report(raw, None)
    decoded = _typed(dict(raw), kind, kind.model, report)
    return (None if report.problems else decoded), report.in_order()


def unacted(kind: Kind) -> str:
    """The message for an object of a kind that is kept, and on which the mesh does not act."""
    return f"found a {kind.kind}, which the mesh keeps and does not act on yet; needed nothing"


_MOST_PROBLEMS = 1000  # of one document
_LONGEST_MESSAGE = 2000  # characters


class _Report:
    """Collects problems of one document."""

    def __init__(self, raw: Mapping[str, Any], locate: Callable[[str], Location | None] | None) -> None:
        self.ref = _ref(raw)
        self.locate = locate
        self.problems: list[Problem] = []

    def add(self, at: tuple[str | int, ...], reason: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """A problem at a place. Of very many, only the first are kept: nobody reads on."""
        if self.full:
            return
        if len(message) > _LONGEST_MESSAGE:  # what a person wrote may be of any length
            message = f"{message[:200]} ... {message[-600:]}"
        path = paths.join(at)
        location = self.locate(path) if self.locate is not None else None
        self.problems.append(Problem(self.ref, path, reason, message, severity, location))

    @property
    def full(self) -> bool:
        """Whether no more are kept, so that none need be put into words."""
        return len(self.problems) == _MOST_PROBLEMS

    def in_order(self) -> list[Problem]:
        """The problems in the document's order, each once."""
        unique = list(dict.fromkeys(self.problems))
        if self.locate is not None:
            unique.sort(key=lambda problem: (problem.location.line, problem.location.column) if problem.location else (0, 0))
        return unique


def _ref(raw: Mapping[str, Any]) -> Ref | None:
    """The object's name, as far as it can be told."""
    kind, api_version, metadata = raw.get("kind"), raw.get("apiVersion"), raw.get("metadata")
    if not isinstance(kind, str) or not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str):
        return None
    group = api_version.rpartition("/")[0] if isinstance(api_version, str) else ""
    return Ref(kind=kind, namespace=namespace if isinstance(namespace, str) else "", name=name, group=group)


def _kind_of(raw: Mapping[str, Any], report: _Report) -> Kind | None:
    """The kind that a document says it is; reports where it says none, or one that is not known."""
    api_version, name = raw.get("apiVersion"), raw.get("kind")
    complete = True
    for field, value, needed in (
        ("apiVersion", api_version, 'a string such as "networking.istio.io/v1"'),
        ("kind", name, 'a string such as "VirtualService"'),
    ):
        if not isinstance(value, str) or not value:
            shown = "nothing" if value is None and field not in raw else found(value)
            report.add((field,), "Required" if value is None else "WrongType", f"found {shown}; needed {needed}")
            complete = False
    if not complete or not isinstance(api_version, str) or not isinstance(name, str):
        return None
    group, _, version = api_version.rpartition("/")
    if name in INSTEAD and group.endswith("istio.io"):
        report.add(("kind",), "Refused", f"found {name}; needed another kind: {INSTEAD[name]}")
        return None
    kind = kind_for(group, name)
    if kind is None:
        report.add(*_unknown_kind(api_version, name))
        return None
    if version not in kind.versions:
        served = " or ".join(_api_version(kind, one) for one in kind.versions)
        report.add(("apiVersion",), "UnknownVersion", f"found {found(api_version)}, in which there is no {name}; needed {served}")
        return None
    return kind


def _api_version(kind: Kind, version: str) -> str:
    return f"{kind.group}/{version}" if kind.group else version


def _unknown_kind(api_version: str, name: str) -> tuple[tuple[str, ...], str, str]:
    """Where, why and how to say that a kind is not known, with the nearest that is."""
    same = [kind for kind in KINDS if kind.kind == name]
    if same:
        served = " or ".join(_api_version(kind, kind.versions[0]) for kind in same)
        message = f"found {found(api_version)}, in which no kind {name} is known; needed {served}"
        return ("apiVersion",), "UnknownKind", message
    names = sorted({kind.kind for kind in KINDS})
    guess = did_you_mean(name, names)
    hint = f"did you mean {guess}? " if guess else ""
    message = (
        f"found {found(name)} of apiVersion {found(api_version)}, which is not known; {hint}needed one of {', '.join(names)}"
    )
    return ("kind",), "UnknownKind", message


def _typed(body: dict[str, Any], kind: Kind, model: type[Object], report: _Report) -> Object | None:
    """The object where its fields are right; broken rules are reported and leave it there."""
    try:
        decoded = model.model_validate(body, by_alias=True, by_name=False, context=RULES_LATER)
    except ValidationError:
        # Again with the rules of those parts that are right in themselves, so that all mistakes are said at once.
        try:
            model.model_validate(body, by_alias=True, by_name=False)
        except ValidationError as error:
            _report_errors(error, kind, Shape(model), report)
        return None
    for fault in faults_below(decoded):
        report.add(fault.at, fault.reason, fault.message)
    return decoded


def _report_errors(error: ValidationError, kind: Kind, whole: Shape, report: _Report) -> None:
    for one in error.errors(include_url=False):
        if report.full:
            return
        at = tuple(step for step in one["loc"] if step != "[key]")
        context: Mapping[str, Any] = one.get("ctx") or {}
        secret = kind.secretive
        if one["type"] == "rules":
            faults: tuple[Fault, ...] = context.get("faults", ())
            for fault in faults:
                report.add((*at, *fault.at), fault.reason, fault.message)
        elif one["type"] == "too_short" and len(one["input"]) >= context.get("min_length", 0):
            continue  # the items have mistakes of their own, and only so are too few
        elif one["type"] == "extra_forbidden":
            report.add(at, "UnknownField", unknown_field(str(at[-1]), whole.at(at[:-1])))
        elif one["type"] == "needed":
            report.add(at, "BadFormat", f"found {found(one['input'], secret=secret)}; needed {one['msg']}")
        else:
            context = {**context, "needed": one["msg"]}
            reason, message = sentence(one["type"], one.get("input"), context, whole.at(at), secret=secret)
            report.add(at, reason, message)
