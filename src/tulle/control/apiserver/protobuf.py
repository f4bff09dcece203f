"""Kubernetes' protobuf bodies for its own kinds, into the same JSON: `kubectl create namespace` and its like send nothing else.

Only requests: every client that sends protobuf takes JSON answers. The tables follow the field numbers of Kubernetes'
published `generated.proto`s; a field that is not in them is refused, not lost.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tulle.control.apiserver.errors import bad_request
from tulle.control.apiserver.table import timestamp
from tulle.kit.wire import fields

Raw = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

Message = Mapping[int, "Field"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field's JSON `name`; `kind`: a scalar's word, or the message in it; `many`: a list."""

    name: str
    kind: str | Message = "string"
    many: bool = False


_REFERENCE: Message = {
    number: Field(name)
    for number, name in enumerate(("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"), start=1)
}
_OWNER: Message = {
    1: Field("kind"),
    3: Field("name"),
    4: Field("uid"),
    5: Field("apiVersion"),
    6: Field("controller", "bool"),
    7: Field("blockOwnerDeletion", "bool"),
}
_METADATA: Message = {
    1: Field("name"),
    2: Field("generateName"),
    3: Field("namespace"),
    4: Field("selfLink"),
    5: Field("uid"),
    6: Field("resourceVersion"),
    7: Field("generation", "int"),
    8: Field("creationTimestamp", "time"),
    9: Field("deletionTimestamp", "time"),
    10: Field("deletionGracePeriodSeconds", "int"),
    11: Field("labels", "map"),
    12: Field("annotations", "map"),
    13: Field("ownerReferences", _OWNER, many=True),
    14: Field("finalizers", many=True),
    17: Field(
        "managedFields",
        {
            1: Field("manager"),
            2: Field("operation"),
            3: Field("apiVersion"),
            4: Field("time", "time"),
            6: Field("fieldsType"),
            7: Field("fieldsV1", "json"),
            8: Field("subresource"),
        },
        many=True,
    ),
}
_PORT: Message = {
    1: Field("name"),
    2: Field("protocol"),
    3: Field("port", "int"),
    4: Field("targetPort", "int-or-string"),
    5: Field("nodePort", "int"),
    6: Field("appProtocol"),
}
_AFFINITY: Message = {1: Field("clientIP", {1: Field("timeoutSeconds", "int")})}
_SERVICE: Message = {
    1: Field("ports", _PORT, many=True),
    2: Field("selector", "map"),
    3: Field("clusterIP"),
    4: Field("type"),
    5: Field("externalIPs", many=True),
    7: Field("sessionAffinity"),
    8: Field("loadBalancerIP"),
    9: Field("loadBalancerSourceRanges", many=True),
    10: Field("externalName"),
    11: Field("externalTrafficPolicy"),
    12: Field("healthCheckNodePort", "int"),
    13: Field("publishNotReadyAddresses", "bool"),
    14: Field("sessionAffinityConfig", _AFFINITY),
    17: Field("ipFamilyPolicy"),
    18: Field("clusterIPs", many=True),
    19: Field("ipFamilies", many=True),
    20: Field("allocateLoadBalancerNodePorts", "bool"),
    21: Field("loadBalancerClass"),
    22: Field("internalTrafficPolicy"),
    23: Field("trafficDistribution"),
}
_STATUS = Field("status", "ignored")
_RULE: Message = {
    1: Field("verbs", many=True),
    2: Field("apiGroups", many=True),
    3: Field("resources", many=True),
    4: Field("resourceNames", many=True),
    5: Field("nonResourceURLs", many=True),
}
_REQUIREMENT: Message = {1: Field("key"), 2: Field("operator"), 3: Field("values", many=True)}
_SELECTOR: Message = {1: Field("matchLabels", "map"), 2: Field("matchExpressions", _REQUIREMENT, many=True)}
_BINDING: Message = {
    1: Field("metadata", _METADATA),
    2: Field("subjects", {1: Field("kind"), 2: Field("apiGroup"), 3: Field("name"), 4: Field("namespace")}, many=True),
    3: Field("roleRef", {1: Field("apiGroup"), 2: Field("kind"), 3: Field("name")}),
}
_ASKED_RESOURCE: Message = {
    number: Field(name)
    for number, name in enumerate(("namespace", "verb", "group", "version", "resource", "subresource", "name"), start=1)
} | {
    # They narrow the question; the answer is for the wider one.
    8: Field("fieldSelector", "ignored"),
    9: Field("labelSelector", "ignored"),
}
_ASKED: Message = {
    1: Field("resourceAttributes", _ASKED_RESOURCE),
    2: Field("nonResourceAttributes", {1: Field("path"), 2: Field("verb")}),
}
_ASKED_OF: Message = {
    **_ASKED,
    3: Field("user"),
    4: Field("groups", many=True),
    5: Field("extra", "texts-map"),
    6: Field("uid"),
}
_TOKEN: Message = {
    1: Field("audiences", many=True),
    3: Field("boundObjectRef", {1: Field("kind"), 2: Field("apiVersion"), 3: Field("name"), 4: Field("uid")}),
    4: Field("expirationSeconds", "int"),
}


def _review(spec: Message) -> Message:
    return {1: Field("metadata", _METADATA), 2: Field("spec", spec), 3: _STATUS}


# By API group (the core group's stand for `meta.k8s.io` too) and kind.
_MESSAGES: Mapping[tuple[str, str], Message] = {
    ("rbac.authorization.k8s.io", "Role"): {1: Field("metadata", _METADATA), 2: Field("rules", _RULE, many=True)},
    ("rbac.authorization.k8s.io", "ClusterRole"): {
        1: Field("metadata", _METADATA),
        2: Field("rules", _RULE, many=True),
        3: Field("aggregationRule", {1: Field("clusterRoleSelectors", _SELECTOR, many=True)}),
    },
    ("rbac.authorization.k8s.io", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _BINDING,
    ("authorization.k8s.io", "SelfSubjectAccessReview"): _review(_ASKED),
    ("authorization.k8s.io", "SubjectAccessReview"): _review(_ASKED_OF),
    ("authorization.k8s.io", "LocalSubjectAccessReview"): _review(_ASKED_OF),
    ("authorization.k8s.io", "SelfSubjectRulesReview"): _review({1: Field("namespace")}),
    ("authentication.k8s.io", "SelfSubjectReview"): {1: Field("metadata", _METADATA), 2: _STATUS},
    ("authentication.k8s.io", "TokenReview"): _review({1: Field("token"), 2: Field("audiences", many=True)}),
    ("authentication.k8s.io", "TokenRequest"): _review(_TOKEN),
    ("", "Namespace"): {
        1: Field("metadata", _METADATA),
        2: Field("spec", {1: Field("finalizers", many=True)}),
        3: _STATUS,
    },
    ("", "Service"): {1: Field("metadata", _METADATA), 2: Field("spec", _SERVICE), 3: _STATUS},
    ("", "ServiceAccount"): {
        1: Field("metadata", _METADATA),
        2: Field("secrets", _REFERENCE, many=True),
        3: Field("imagePullSecrets", {1: Field("name")}, many=True),
        4: Field("automountServiceAccountToken", "bool"),
    },
    ("", "Secret"): {
        1: Field("metadata", _METADATA),
        2: Field("data", "bytes-map"),
        3: Field("type"),
        4: Field("stringData", "map"),
        5: Field("immutable", "bool"),
    },
    ("", "ConfigMap"): {
        1: Field("metadata", _METADATA),
        2: Field("data", "map"),
        3: Field("binaryData", "bytes-map"),
        4: Field("immutable", "bool"),
    },
    ("", "DeleteOptions"): {
        1: Field("gracePeriodSeconds", "int"),
        2: Field("preconditions", {1: Field("uid"), 2: Field("resourceVersion")}),
        3: Field("orphanDependents", "bool"),
        4: Field("propagationPolicy"),
        5: Field("dryRun", many=True),
    },
}


def decode(data: bytes) -> Raw:
    """The object in a body of type `MEDIA_TYPE`. Raises a `Denial` where it cannot be read or its kind is not in the tables."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes protobuf")
    try:
        envelope = dict(fields(data[len(_MAGIC) :]))
        named = {number: bytes(value).decode() for number, value in fields(envelope.get(1, b"")) if isinstance(value, bytes)}
        api_version, kind = named.get(1, ""), named.get(2, "")
        group = api_version.rpartition("/")[0]
        message = _MESSAGES.get(("" if group == "meta.k8s.io" else group, kind))
        if message is None:
            raise bad_request(f"{kind or 'the object'} cannot be read as protobuf here; send JSON")
        return {"apiVersion": api_version, "kind": kind} | _message(envelope.get(2, b""), message)
    except (ValueError, IndexError, TypeError) as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from error


def _message(data: Any, message: Message) -> Raw:
    found: Raw = {}
    for number, value in fields(data):
        field = message.get(number)
        if field is None:
            raise bad_request(f"field {number} of the protobuf body is not known here; send JSON")
        if field.kind in ("map", "bytes-map"):
            entry = dict(fields(value))
            text = entry.get(2, b"")
            key = bytes(entry.get(1, b"")).decode()
            found.setdefault(field.name, {})[key] = (
                base64.b64encode(text).decode() if field.kind == "bytes-map" else bytes(text).decode()
            )
        elif field.kind == "texts-map":
            entry = dict(fields(value))
            texts = [bytes(text).decode() for _, text in fields(entry.get(2, b""))]
            found.setdefault(field.name, {})[bytes(entry.get(1, b"")).decode()] = texts
        elif field.kind != "ignored":
            made = _value(value, field.kind)
            if field.many:
                found.setdefault(field.name, []).append(made)
            elif made not in ("", None, {}) and not (field.kind == "int" and made == 0):
                found[field.name] = made  # Go writes every field, also what was not set
    return found


def _value(value: Any, kind: str | Message) -> Any:
    match kind:
        case "string":
            return bytes(value).decode()
        case "int":
            return int(value) - (1 << 64 if value >> 63 else 0)
        case "bool":
            return bool(value)
        case "time":
            seconds = dict(fields(value)).get(1, 0)
            return timestamp(float(seconds)) if seconds else None
        case "json":
            return json.loads(bytes(dict(fields(value)).get(1, b"null")))
        case "int-or-string":
            parts = dict(fields(value))
            return bytes(parts.get(3, b"")).decode() if parts.get(1) else parts.get(2) or None
        case str():
            raise ValueError(kind)
        case message:
            return _message(value, message)
