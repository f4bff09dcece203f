"""Every CEL rule of the Gateway API's and Istio's CRDs holds here: what the real CEL library refuses is refused, at its field."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

import pytest

from tests.support.corpora import corpora
from tests.support.crd_documents import document, mutated
from tests.support.crd_rules import broken, combined, is_transition, obeys, rules
from tests.support.crds import Json, Version, channels, defaulted, places, schemas, versions
from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.api.object import Kind
from tulle.api.registry import KINDS
from tulle.api.transitions import transition_faults
from tulle.kit.problem import Severity

Steps = tuple[str, ...]

SERVICE = {"name": "a", "port": 80}
FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "a", "value": "b"}]}},
    {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"]}},
    {"type": "RequestMirror", "requestMirror": {"backendRef": SERVICE, "fraction": {"numerator": 1, "denominator": 2}}},
    {"type": "ExtensionRef", "extensionRef": {"group": "", "kind": "A", "name": "a"}},
]
HTTP_FILTERS = [
    *FILTERS,
    {"type": "RequestRedirect", "requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}},
    {"type": "RequestRedirect", "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a"}}},
    {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}},
    {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a"}}},
    {"type": "CORS", "cors": {"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"]}},
    {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": SERVICE, "http": {"path": "/a"}}},
    {"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": SERVICE, "grpc": {}}},
]
PARENTS = [{"name": "a", "sectionName": "b"}, {"name": "a", "sectionName": "c"}]


def route(*rule: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"parentRefs": PARENTS, "rules": list(rule)}}


def with_filters(filters: list[dict[str, Any]], match: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in filters:
        yield route({"matches": [match], "filters": [one]})
        yield route({"matches": [match], "backendRefs": [{**SERVICE, "filters": [one]}]})


L4 = route({"name": "a", "backendRefs": [SERVICE]})
COOKIE = {"type": "Cookie", "cookie": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}
# Right documents from which wrong ones are made by small changes; for kinds that are not here random ones do as well.
SEEDS: dict[str, list[dict[str, Any]]] = {
    "HTTPRoute": [
        *with_filters(HTTP_FILTERS, {"path": {"type": "PathPrefix", "value": "/"}}),
        route({"name": "a", "matches": [{"path": {"type": "Exact", "value": "/a"}}], "timeouts": {"request": "1s"}}),
        route({"sessionPersistence": COOKIE}),
        route(*({"matches": [{"path": {"value": f"/{n}"}} for n in range(64)]} for _ in range(2)), {"matches": []}),
    ],
    "GRPCRoute": [
        *with_filters(FILTERS, {"method": {"service": "a", "method": "b"}}),
        route({"name": "a", "sessionPersistence": COOKIE}),
        route(*({"matches": [{"method": {"service": "a"}} for _ in range(64)]} for _ in range(2)), {"matches": []}),
    ],
    "TCPRoute": [L4],
    "UDPRoute": [L4],
    "TLSRoute": [{"spec": {**L4["spec"], "hostnames": ["a.b"]}}],
    "BackendTLSPolicy": [
        {
            "spec": {
                "targetRefs": [
                    {"group": "", "kind": "Service", "name": "a", "sectionName": "b"},
                    {"group": "", "kind": "Service", "name": "a", "sectionName": "c"},
                ],
                "validation": {
                    "hostname": "a.b",
                    "wellKnownCACertificates": "System",
                    "subjectAltNames": [{"type": "URI", "uri": "spiffe://a/b"}, {"type": "Hostname", "hostname": "a.b"}],
                },
            }
        }
    ],
    "Gateway": [
        {
            "spec": {
                "gatewayClassName": "a",
                "listeners": [
                    {"name": "a", "port": 80, "protocol": "HTTP"},
                    {"name": "b", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "a"}]}},
                    {"name": "c", "port": 444, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
                    {"name": "d", "port": 90, "protocol": "TCP"},
                ],
                "addresses": [{"value": "10.0.0.1"}, {"type": "Hostname", "value": "a.b"}],
                "infrastructure": {"labels": {f"{'a' * 252}/b": "c"}, "annotations": {f"{'a' * 252}/b": "c"}},
                "tls": {"frontend": {"default": {}, "perPort": [{"port": 443, "tls": {}}, {"port": 444, "tls": {}}]}},
            }
        }
    ],
}
SEEDS["ServiceEntry"] = [
    {
        "spec": {
            "hosts": ["a.b"],
            "resolution": "STATIC",
            "ports": [{"name": "a", "number": 80}],
            "endpoints": [{"address": "10.0.0.1", "ports": {"a": 80}}],
        }
    }
]
SEEDS["PeerAuthentication"] = [{"spec": {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": {}}}}]
SEEDS["RequestAuthentication"] = [{"spec": {"jwtRules": [{"issuer": "a", "jwks": "b", "timeout": "1s"}]}}]
SEEDS["ListenerSet"] = [{"spec": {"parentRef": {"name": "a"}, "listeners": SEEDS["Gateway"][0]["spec"]["listeners"]}}]
# What a small random change does not find: (kind, end of the path, part of the message) → the value that breaks the rule there.
TWO = [{"path": {"value": "/a"}}, {"path": {"value": "/b"}}]
NAMED = [{"name": "a"}, {"name": "a"}]
WRONG: dict[tuple[str, str, str], Any] = {
    ("Gateway", "annotations", "not longer than 253"): {f"{'a' * 253}/b": "c"},
    ("Gateway", "labels", "not longer than 253"): {f"{'a' * 253}/b": "c"},
    ("HTTPRoute", "rules", "less than 128"): [{"matches": [{"path": {"value": f"/{n}"}} for n in range(43)]} for _ in range(3)],
    ("GRPCRoute", "rules", "less than 128"): [{"matches": [{"method": {"service": "a"}}] * 43} for _ in range(3)],
    ("HTTPRoute", "rules", "name must be unique"): NAMED,
    ("GRPCRoute", "rules", "name must be unique"): NAMED,
    ("HTTPRoute", "allowHeaders", ""): ["*", "a"],
    ("HTTPRoute", "allowMethods", ""): ["*", "GET"],
    ("HTTPRoute", "allowOrigins", ""): ["*", "https://a.b"],
    ("HTTPRoute", "[]", "backendRefs, when using RequestRedirect"): {
        "matches": TWO,
        "backendRefs": [{**SERVICE, "filters": [HTTP_FILTERS[4]]}],
    },
    ("HTTPRoute", "[]", "backendRefs, When using URLRewrite"): {
        "matches": TWO,
        "backendRefs": [{**SERVICE, "filters": [HTTP_FILTERS[6]]}],
    },
    ("HTTPRoute", "[]", "When using RequestRedirect"): {"matches": TWO, "filters": [HTTP_FILTERS[4]]},
    ("HTTPRoute", "[]", "When using URLRewrite"): {"matches": TWO, "filters": [HTTP_FILTERS[6]]},
    ("ServiceEntry", "{}", "port must be between"): 0,
    ("PeerAuthentication", "portLevelMtls", "port must be between"): {"0": {}},
    ("RequestAuthentication", "timeout", ""): "0s",
}


def cases() -> Iterator[Any]:
    """Each rule once, in the first version and channel that has it."""
    seen = set()
    for kind in KINDS:
        for channel in channels(kind):
            for version, schema in schemas(kind, channel):
                for path, rule, message in rules(schema):
                    if (kind.kind, path, rule) not in seen and not is_transition(rule):
                        seen.add((kind.kind, path, rule))
                        name = f"{kind.kind}-{version}-{'.'.join(path)}-{message[:40]}"
                        yield pytest.param(kind, version, schema, path, rule, message, id=name)


def seeds(kind: Kind, schema: Json, path: Steps) -> Iterator[dict[str, Any]]:
    """Right documents that have something at the path; few."""
    for written in SEEDS.get(kind.kind, ()):
        if not broken(schema, written) and _steps(defaulted(written, schema), path) is not None:
            yield written
    for number in range(400):
        random = Random(number)
        made = document(schema, random, path, often=0.0 if number % 2 else 0.05)
        made = {part: value for part, value in made.items() if part in ("spec", "status")}
        if not broken(schema, made):
            yield made


def _steps(body: Any, path: Steps) -> tuple[str | int, ...] | None:
    """The first place in a document that a path of the schema means, or None where there is none."""
    if not path:
        return ()
    keys: Iterable[str | int]
    if path[0] == "[]":
        keys = range(len(body)) if isinstance(body, list) else ()
    elif path[0] == "{}":
        keys = body if isinstance(body, dict) else ()
    else:
        keys = [path[0]] if isinstance(body, dict) and path[0] in body else ()
    for key in keys:
        if (rest := _steps(body[key], path[1:])) is not None:
            return (key, *rest)
    return None


def _below(schema: Json, path: Steps) -> Json:
    for step in path:
        schema = (
            schema["items"] if step == "[]" else schema["additionalProperties"] if step == "{}" else schema["properties"][step]
        )
    return schema


def _get(body: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        body = body[step]
    return body


def _with(body: Any, steps: tuple[str | int, ...], value: Any) -> Any:
    whole = copy.deepcopy(body)
    if not steps:
        return value
    _get(whole, steps[:-1])[steps[-1]] = value
    return whole


def _changed(value: Any, schema: Json, text: str, random: Random) -> Any:
    """The value with small changes, most of them in the fields that the rule names."""
    properties = schema.get("properties", {})
    concerned = [name for name in re.findall(r"(?:self\.|')(\w+)", text) if name in properties]
    if concerned and random.random() < 0.7:
        value = {**value} if isinstance(value, dict) else {}
        for name in dict.fromkeys(concerned):
            match random.randrange(3):
                case 0:
                    value.pop(name, None)
                case 1:
                    value[name] = document(properties[name], random)
        return value
    for _ in range(random.randint(1, 3)):
        value = mutated(value, schema, random)
        if not isinstance(value, dict | list):
            break
    return value


def violation(
    kind: Kind, schema: Json, path: Steps, text: str, holds: Callable[[Any], bool], message: str = ""
) -> tuple[Any, Any, tuple[str | int, ...]]:
    """A right document, one made of it in which something (`text`) does not hold, at its place alone, and that place."""
    below = _below(schema, path)
    told = [value for (name, end, part), value in WRONG.items() if name == kind.kind and path[-1] == end and part in message]
    for right in itertools.islice(seeds(kind, schema, path), 6):
        whole = defaulted(right, schema)
        at = _steps(whole, path)
        assert at is not None
        for number in range(600):
            value = told[0] if told else _changed(_get(whole, at), below, text, Random(number))
            if holds(defaulted(value, below)):
                continue
            wrong = _with(whole, at, value)
            faults = broken(schema, wrong)
            if faults and all(fault.at[: len(at)] == at for fault in faults):
                return right, wrong, at
    raise AssertionError(f"no document was found that breaks {text!r} at {'.'.join(path)}")


def named(kind: Kind, version: str, body: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "a"} if kind.namespaced else {"name": "a"}
    return {"apiVersion": f"{kind.group}/{version}", "kind": kind.kind, "metadata": metadata, **body}


def refused(kind: Kind, version: str, wrong: Any, at: tuple[str | int, ...]) -> None:
    """The document is refused, and the place is named."""
    decoded, problems = decode(named(kind, version, wrong))
    assert decoded is None, wrong
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    steps = [paths.split(problem.path) for problem in errors]
    assert any(found[: len(at)] == at for found in steps), "\n".join(map(str, errors))


def combinations() -> Iterator[Any]:
    """Each place of a schema at which some of its forms exclude each other."""
    for version in versions("standard", "experimental", "istio"):
        for path, place in places(version.schema) if version.name == version.kind.versions[0] else ():
            forms = place.get("oneOf") or place.get("allOf")
            # Two forms are one field that is there or is not: that holds always.
            if forms and (len(forms) > 2 or "properties" in forms[0] or "oneOf" in forms[0]):
                yield pytest.param(version, path, id=f"{version!r}-{'.'.join(path)}")


@pytest.mark.parametrize(("version", "path"), list(combinations()))
def test_forms_exclude_each_other(version: Version, path: Steps) -> None:
    """Two of what the schema takes only one of would be stored, and one of them would be ignored."""
    place = _below(version.schema, path)
    text = str([place.get(word) for word in ("oneOf", "allOf")])
    _, wrong, at = violation(version.kind, version.schema, path, text, lambda value: not list(combined(value, place, ())))
    refused(version.kind, version.name, wrong, at)


@pytest.mark.parametrize(("kind", "version", "schema", "path", "rule", "message"), list(cases()))
def test_a_rule_holds(kind: Kind, version: str, schema: Json, path: Steps, rule: str, message: str) -> None:
    """A mistake that the CRD's rule refuses would be stored, or a person would not be told which field it is."""
    right, wrong, at = violation(kind, schema, path, rule, lambda value: obeys(rule, value), message)
    refused(kind, version, wrong, at)
    if kind.group == "gateway.networking.k8s.io":
        decoded, problems = decode(named(kind, version, right))
        assert decoded is not None, "\n".join(map(str, problems))


def transitions() -> Iterator[Any]:
    seen = set()
    for version in versions("standard", "experimental", "istio"):
        for path, rule, _ in rules(version.schema):
            if is_transition(rule) and (version.kind.kind, path, rule) not in seen:
                seen.add((version.kind.kind, path, rule))
                yield pytest.param(version, path, rule, id=f"{version!r}-{'.'.join(path)}")


@pytest.mark.parametrize(("version", "path", "rule"), list(transitions()))
def test_a_transition_rule_holds(version: Version, path: Steps, rule: str) -> None:
    """What the CRD does not let an update change would change."""
    old = next(seeds(version.kind, version.schema, path))
    others = (document(_below(version.schema, path), Random(number)) for number in itertools.count())
    new = _with(old, path, next(value for value in others if value != _get(old, path)))
    assert [fault.rule for fault in broken(version.schema, new, old)] == [rule]
    assert [fault.at for fault in transition_faults(version.kind, old, new)] == [path]
    assert not broken(version.schema, old, old)
    assert not list(transition_faults(version.kind, old, old))


def test_the_rules_are_found() -> None:
    """The test above would pass if no CRD had a rule, or if none of them were ever true."""
    corpora("gateway-api/crd")
    found = [case.values for case in cases()]
    assert len(found) > 300
    assert list(transitions())
    assert len(list(combinations())) > 20
    assert obeys("self.all(h, !isIP(h))", ["a.b"])
    assert not obeys("self.all(h, !isIP(h))", ["a.b", "10.0.0.1"])
