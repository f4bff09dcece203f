"""What the API itself writes into an object for fields that are not there, so that everybody reads the same.

Most of it is structural, as Kubernetes does it for CustomResourceDefinitions: a schema states a default (`values.Defaulted`), and
it is filled in wherever the object that has the field is present, from the outside in. A few of Kubernetes' own kinds have
defaults that depend on other fields; they follow.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tulle.api.kind import Kind
from tulle.api.object import Schema
from tulle.api.rbac import GROUP_NAME
from tulle.api.shape import Shape
from tulle.api.values import Stated

Raw = dict[str, Any]


def with_defaults(kind: Kind, version: str, body: Mapping[str, Any]) -> Raw:
    """The object with its defaults. `body` has no nulls and is left as it is; what cannot be read is left for the decoder."""
    filled: Raw = dict(_filled(body, _plan(kind.model_in(version))))
    further = _FURTHER.get(kind.resource)
    return further(filled) if further is not None else filled


def stated(model: type[Schema]) -> Mapping[str, Any]:
    """The defaults that a schema states for its own fields, by their JSON names. Do not change what it returns."""
    return _own(model)


class _Plan(NamedTuple):
    """What to fill in at a place and below it; only the parts that have something."""

    own: Mapping[str, Any]
    fields: Mapping[str, _Plan]
    each: _Plan | None  # the items of a list, or the values of a map


@functools.cache
def _plan(model: type[Schema]) -> _Plan | None:
    return _plan_of(Shape(model))


def _plan_of(shape: Shape) -> _Plan | None:
    below = shape.item or shape.value
    each = _plan_of(below) if below is not None else None
    model = shape.model
    own = _own(model) if model is not None and issubclass(model, Schema) else {}
    fields = {name: plan for name, one in shape.fields.items() if (plan := _plan_of(one)) is not None}
    return _Plan(own, fields, each) if own or fields or each else None


@functools.cache
def _own(model: type[Schema]) -> Mapping[str, Any]:
    shapes = Shape(model).fields
    found = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        if any(isinstance(mark, Stated) for mark in shapes[alias].metadata):
            found[alias] = _json(field.get_default(call_default_factory=True))
    return found


def _json(value: Any) -> Any:
    """A default as it is written: of a schema the fields that are said, and those that its own defaults say."""
    if isinstance(value, Schema):
        fields = type(value).model_fields
        said = {fields[name].alias or name: _json(getattr(value, name)) for name in value.model_fields_set}
        return {**_own(type(value)), **said}
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value


def _filled(value: Any, plan: _Plan | None) -> Any:
    """The value with defaults; the same object where there is nothing to fill in."""
    if plan is None:
        return value
    if isinstance(value, list):
        items = [_filled(item, plan.each) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if not isinstance(value, Mapping):
        return value
    missing = {name: copy.deepcopy(default) for name, default in plan.own.items() if value.get(name) is None}
    whole = {**value, **missing} if missing else value
    changed = {}
    for name, one in whole.items():
        below = plan.fields.get(name, plan.each)
        if below is not None and (new := _filled(one, below)) is not one:
            changed[name] = new
    return {**whole, **changed} if changed else whole


def _namespace(body: Raw) -> Raw:
    metadata = body.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not (labels is None or isinstance(labels, Mapping)):
        return body
    return {
        **body,
        "metadata": {**metadata, "labels": {**(labels or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}},
    }


_LONGEST_SESSION = 10_800  # seconds; Kubernetes' default


def _service(body: Raw) -> Raw:
    if not isinstance(body.get("spec"), Mapping):
        return body
    spec = dict(body["spec"])
    kind = spec["type"]
    if isinstance(spec.get("ports"), list):
        spec["ports"] = [_service_port(port) for port in spec["ports"]]
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP" and not spec.get("sessionAffinityConfig"):
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _LONGEST_SESSION}}
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    return {**body, "spec": spec}


def _service_port(port: Any) -> Any:
    if isinstance(port, Mapping) and "port" in port and not port.get("targetPort"):
        return {**port, "targetPort": port["port"]}
    return port


def _binding(body: Raw) -> Raw:
    subjects = body.get("subjects")
    if not isinstance(subjects, list):
        return body
    return {**body, "subjects": [_subject(subject) for subject in subjects]}


def _subject(subject: Any) -> Any:
    if isinstance(subject, Mapping) and subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
        return {**subject, "apiGroup": GROUP_NAME}
    return subject


_FURTHER: Mapping[str, Callable[[Raw], Raw]] = {
    "namespaces": _namespace,
    "services": _service,
    f"rolebindings.{GROUP_NAME}": _binding,
    f"clusterrolebindings.{GROUP_NAME}": _binding,
}
