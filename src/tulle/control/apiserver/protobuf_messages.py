"""Which field of Kubernetes' protobuf messages is which: the numbers of its published `generated.proto`s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Message = Mapping[int, "Field"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field's JSON `name`; `kind`: a scalar's word, or the message in it; `many`: a list.

    `said`: it is written only where it was set, so that "" and 0 are values. Go writes the others always.
    """

    name: str
    kind: str | Message = "string"
    many: bool = False
    said: bool = False


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
_CORE: Mapping[str, Message] = {
    "Namespace": {
        1: Field("metadata", _METADATA),
        2: Field("spec", {1: Field("finalizers", many=True)}),
        3: _STATUS,
    },
    "Service": {1: Field("metadata", _METADATA), 2: Field("spec", _SERVICE), 3: _STATUS},
    "ServiceAccount": {
        1: Field("metadata", _METADATA),
        2: Field("secrets", _REFERENCE, many=True),
        3: Field("imagePullSecrets", {1: Field("name")}, many=True),
        4: Field("automountServiceAccountToken", "bool"),
    },
    "Secret": {
        1: Field("metadata", _METADATA),
        2: Field("data", "bytes-map"),
        3: Field("type"),
        4: Field("stringData", "map"),
        5: Field("immutable", "bool"),
    },
    "ConfigMap": {
        1: Field("metadata", _METADATA),
        2: Field("data", "map"),
        3: Field("binaryData", "bytes-map"),
        4: Field("immutable", "bool"),
    },
    "Event": {
        1: Field("metadata", _METADATA),
        2: Field("involvedObject", _REFERENCE),
        3: Field("reason"),
        4: Field("message"),
        5: Field("source", {1: Field("component"), 2: Field("host")}),
        6: Field("firstTimestamp", "time"),
        7: Field("lastTimestamp", "time"),
        8: Field("count", "int"),
        9: Field("type"),
        10: Field("eventTime", "micro"),
        11: Field("series", {1: Field("count", "int"), 2: Field("lastObservedTime", "micro")}),
        12: Field("action"),
        13: Field("related", _REFERENCE),
        14: Field("reportingComponent"),
        15: Field("reportingInstance"),
    },
}
_SELECTOR: Message = {
    1: Field("matchLabels", "map"),
    2: Field("matchExpressions", {1: Field("key"), 2: Field("operator"), 3: Field("values", many=True)}, many=True),
}
_RULE: Message = {
    number: Field(name, many=True)
    for number, name in enumerate(("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"), start=1)
}
_ROLE: Message = {1: Field("metadata", _METADATA), 2: Field("rules", _RULE, many=True)}
_BINDING: Message = {
    1: Field("metadata", _METADATA),
    2: Field("subjects", {1: Field("kind"), 2: Field("apiGroup"), 3: Field("name"), 4: Field("namespace")}, many=True),
    3: Field("roleRef", {1: Field("apiGroup"), 2: Field("kind"), 3: Field("name")}),
}
_RBAC: Mapping[str, Message] = {
    "Role": _ROLE,
    "ClusterRole": {**_ROLE, 3: Field("aggregationRule", {1: Field("clusterRoleSelectors", _SELECTOR, many=True)})},
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
}
_LEASE: Message = {
    1: Field("holderIdentity", said=True),
    2: Field("leaseDurationSeconds", "int", said=True),
    3: Field("acquireTime", "micro"),
    4: Field("renewTime", "micro"),
    5: Field("leaseTransitions", "int", said=True),
    6: Field("strategy", said=True),
    7: Field("preferredHolder", said=True),
}
_HINTS: Message = {1: Field("forZones", {1: Field("name")}, many=True), 2: Field("forNodes", {1: Field("name")}, many=True)}
_ENDPOINT: Message = {
    1: Field("addresses", many=True),
    2: Field("conditions", {1: Field("ready", "bool"), 2: Field("serving", "bool"), 3: Field("terminating", "bool")}),
    3: Field("hostname", said=True),
    4: Field("targetRef", _REFERENCE),
    5: Field("deprecatedTopology", "map"),
    6: Field("nodeName", said=True),
    7: Field("zone", said=True),
    8: Field("hints", _HINTS),
}
_ENDPOINT_PORT: Message = {
    1: Field("name", said=True),
    2: Field("protocol"),
    3: Field("port", "int", said=True),
    4: Field("appProtocol", said=True),
}
_SLICE: Message = {
    1: Field("metadata", _METADATA),
    2: Field("endpoints", _ENDPOINT, many=True),
    3: Field("ports", _ENDPOINT_PORT, many=True),
    4: Field("addressType"),
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
_OF_SOMEBODY: Message = {
    **_ASKED,
    3: Field("user"),
    4: Field("groups", many=True),
    5: Field("extra", "texts-map"),
    6: Field("uid"),
}


def _review(spec: Message) -> Message:
    return {1: Field("metadata", _METADATA), 2: Field("spec", spec), 3: _STATUS}


_REVIEWS: Mapping[str, Message] = {
    "SelfSubjectAccessReview": _review(_ASKED),
    "SelfSubjectRulesReview": _review({1: Field("namespace")}),
    "SubjectAccessReview": _review(_OF_SOMEBODY),
    "LocalSubjectAccessReview": _review(_OF_SOMEBODY),
}
_AUTHENTICATION: Mapping[str, Message] = {
    "SelfSubjectReview": {1: Field("metadata", _METADATA), 2: _STATUS},
    "TokenReview": _review({1: Field("token"), 2: Field("audiences", many=True)}),
    "TokenRequest": _review(
        {
            1: Field("audiences", many=True),
            3: Field("boundObjectRef", {1: Field("kind"), 2: Field("apiVersion"), 3: Field("name"), 4: Field("uid")}),
            4: Field("expirationSeconds", "int", said=True),
        }
    ),
}
# By API group and kind.
MESSAGES: Mapping[tuple[str, str], Message] = {
    **{("", kind): message for kind, message in _CORE.items()},
    **{("rbac.authorization.k8s.io", kind): message for kind, message in _RBAC.items()},
    **{("authorization.k8s.io", kind): message for kind, message in _REVIEWS.items()},
    **{("authentication.k8s.io", kind): message for kind, message in _AUTHENTICATION.items()},
    ("coordination.k8s.io", "Lease"): {1: Field("metadata", _METADATA), 2: Field("spec", _LEASE)},
    ("discovery.k8s.io", "EndpointSlice"): _SLICE,
}

# Of a delete, in whatever version.
OPTIONS: Message = {
    1: Field("gracePeriodSeconds", "int"),
    2: Field("preconditions", {1: Field("uid"), 2: Field("resourceVersion")}),
    3: Field("orphanDependents", "bool"),
    4: Field("propagationPolicy"),
    5: Field("dryRun", many=True),
}
