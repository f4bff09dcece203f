"""Documents into objects: every mistake at once, in the document's words."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api import gateway, istio, kubernetes
from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.kit.problem import Problem, Severity


def mistakes(text: str) -> dict[str, str]:
    """Path → message of the one document's problems."""
    documents, problems = read_documents(text, "f.yaml")
    assert not problems
    assert len(documents) == 1
    decoded, found = decode(documents[0].raw, documents[0].locate)
    assert decoded is None
    return {problem.path: problem.message for problem in found}


def decoded(text: str) -> Any:
    documents, _ = read_documents(text, "f.yaml")
    value, problems = decode(documents[0].raw, documents[0].locate)
    assert value is not None, problems
    return value


def virtual_service(rule: str) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: default}}
spec:
  hosts: [reviews]
  http:
  - {rule}
"""


def http_route(rule: str) -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: reviews}}
spec:
  parentRefs: [{{name: gateway}}]
  rules:
  - {rule}
"""


def test_all_mistakes_at_once_in_order_with_lines() -> None:
    """A person would mend one mistake, run again, and meet the next."""
    text = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: Reviews, namspace: x}
spec:
  host: [reviews]
  hosts: [reviews, 5]
  http:
  - route:
    - destination: {hst: reviews}
      weight: "50"
    timeout: 5
  - match: [{uri: {exact: a, prefix: b}}]
    route: [{destination: {host: reviews}}]
    fault: {abort: {httpStatus: 5}}
"""
    documents, _ = read_documents(text, "f.yaml")
    _, problems = decode(documents[0].raw, documents[0].locate)
    assert [str(problem).replace(" VirtualService Reviews:", "") for problem in problems] == [
        'f.yaml:3:12: metadata.name: found "Reviews"; needed a DNS name: lower-case letters, digits, "-" and ".", with a '
        "letter or digit at both ends of each part",
        'f.yaml:3:27: metadata.namspace: found a field that does not exist (did you mean "namespace"?); needed one of '
        "annotations, creationTimestamp, deletionGracePeriodSeconds, deletionTimestamp, finalizers, generateName, generation, "
        "labels, managedFields, name, namespace, ownerReferences, resourceVersion, selfLink, uid",
        'f.yaml:5:3: spec.host: found a field that does not exist (did you mean "hosts"?); needed one of exportTo, gateways, '
        "hosts, http, tcp, tls",
        "f.yaml:6:20: spec.hosts[1]: found 5 (an integer); needed a string",
        "f.yaml:9:7: spec.http[0].route[0].destination.host: found nothing; needed a string",
        'f.yaml:9:21: spec.http[0].route[0].destination.hst: found a field that does not exist (did you mean "host"?); needed '
        "one of host, port, subset",
        'f.yaml:10:7: spec.http[0].route[0].weight: found "50" (a string); needed an integer',
        'f.yaml:11:5: spec.http[0].timeout: found 5 (an integer); needed a duration such as "7s", "500ms" or "1m30s"',
        "f.yaml:12:14: spec.http[1].match[0].uri: found exact and prefix; needed at most one of exact, prefix or regex",
        "f.yaml:14:21: spec.http[1].fault.abort.httpStatus: found 5; needed an HTTP status from 200 to 599",
    ]


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        ({}, "apiVersion", "found nothing; needed a string such as"),
        ({"apiVersion": "v1"}, "kind", "found nothing"),
        ({"apiVersion": 1, "kind": "Service"}, "apiVersion", "found 1;"),
        ({"apiVersion": "v1", "kind": "Servce"}, "kind", "did you mean Service?"),
        ({"apiVersion": "v1", "kind": "Gateway"}, "apiVersion", "networking.istio.io/v1 or gateway.networking.k8s.io/v1"),
        ({"apiVersion": "networking.istio.io/v2", "kind": "VirtualService"}, "apiVersion", "networking.istio.io/v1alpha3"),
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "kind", "which is not known"),
        ({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter"}, "kind", "DestinationRule"),
        ({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin"}, "kind", "AuthorizationPolicy"),
    ],
)
def test_what_is_not_known_is_named(raw: dict[str, Any], path: str, words: str) -> None:
    """A person would not learn what is known, nor what to use instead."""
    found, problems = decode(raw)
    assert found is None
    assert problems[0].path == path
    assert words in problems[0].message


@pytest.mark.parametrize("raw", [None, 5, "x", [], [{}]])
def test_what_is_no_object(raw: Any) -> None:
    """A caller that passes on a body as it came would end in a traceback."""
    found, problems = decode(raw)
    assert found is None
    assert problems[0].reason == "NotAnObject"


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ("{}", "metadata.name"),
        ("{name: Shop}", "metadata.name"),
        ("{name: shop., namespace: default}", "metadata.name"),
        (f"{{name: {'a' * 254}}}", "metadata.name"),
        ("{name: shop, namespace: a.b}", "metadata.namespace"),
        ("{name: shop, labels: {a/b/c: d}}", 'metadata.labels["a/b/c"]'),
        ("{name: shop, labels: {a: 'b c'}}", "metadata.labels.a"),
        ("{name: shop, labels: {a: 5}}", "metadata.labels.a"),
        ("{name: shop, labels: {a: }}", "metadata.labels.a"),
        ("{name: shop, annotations: {a: true}}", "metadata.annotations.a"),
        ("{name: 5}", "metadata.name"),
    ],
)
def test_metadata(metadata: str, path: str) -> None:
    """A name that Kubernetes refuses would be stored, or break what is derived from it."""
    text = f"apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {metadata}\nspec: {{address: 10.0.0.1}}\n"
    assert list(mistakes(text)) == [path]


def test_names_by_kind() -> None:
    """A Service's name is part of a host name; a Namespace belongs to none."""
    assert "metadata.name" in mistakes("{apiVersion: v1, kind: Service, metadata: {name: 1a}, spec: {ports: [{port: 80}]}}")
    assert "metadata.name" in mistakes("{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}")
    assert "metadata.namespace" in mistakes("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}")
    assert decoded("{apiVersion: v1, kind: ServiceAccount, metadata: {generateName: a-}}").metadata.generate_name == "a-"


def test_null_is_not_written() -> None:
    """`status: null` and `creationTimestamp: null`, which kubectl prints, would be mistakes."""
    text = (
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, creationTimestamp: null, labels: null}, spec: null, status: null}"
    )
    assert isinstance(decoded(text), kubernetes.Namespace)
    assert mistakes("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: null}") == {
        "spec": "found nothing; needed an object"
    }


def test_fields_are_upstreams_and_not_ours() -> None:
    """Our names of fields must not work in documents: they would not work anywhere else."""
    assert list(mistakes(virtual_service("{route: [{destination: {host: a}}], direct_response: {status: 200}}"))) == [
        "spec.http[0].direct_response"
    ]


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        ("{}", "", "found no action"),
        ("{ROUTE, redirect: {uri: /}}", "", "found route and redirect"),
        ("{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}", "route", "sum is 0"),
        ("{route: [{destination: {host: a}, weight: -1}]}", "route[0].weight", "found -1"),
        ("{route: [{destination: {host: '*'}}]}", "route[0].destination.host", "host name of a service"),
        ("{route: [{destination: {host: a, port: {number: 0}}}]}", "route[0].destination.port.number", "1 to 65535"),
        ("{match: [{uri: {regex: '(?=a)'}}], ROUTE}", "match[0].uri.regex", "look-around"),
        ("{match: [{gateways: [a/b/c]}], ROUTE}", "match[0].gateways[0]", "Gateway as"),
        ("{timeout: 7, ROUTE}", "timeout", "a duration"),
        ("{timeout: 7x, ROUTE}", "timeout", "a duration"),
        ("{timeout: 0s, ROUTE}", "timeout", "at least 1ms"),
        ("{retries: {attempts: 3, retryOn: '5xx,fivexx'}, ROUTE}", "retries.retryOn", "fivexx"),
        ("{fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}, ROUTE}",
         "fault.delay.percentage.value", "0 to 100"),
        ("{fault: {abort: {httpStatus: 500, grpcStatus: OK}}, ROUTE}", "fault.abort", "at most one"),
        ("{directResponse: {status: 99}}", "directResponse.status", "HTTP status"),
        ("{rewrite: {}, ROUTE}", "rewrite", "nothing to rewrite"),
        ("{headers: {request: {set: {'a b': c}}}, ROUTE}", 'headers.request.set["a b"]', "header name"),
    ],
)  # fmt: skip
def test_rules_of_virtual_services(rule: str, path: str, words: str) -> None:
    """A VirtualService that means nothing, or two things, would be stored."""
    found = mistakes(virtual_service(rule.replace("ROUTE", "route: [{destination: {host: a}}]")))
    whole = f"spec.http[0].{path}".removesuffix(".")
    assert list(found) == [whole]
    assert words in found[whole]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("{backendRefs: [{name: a}]}", "backendRefs[0].port"),
        ("{backendRefs: [{name: a, port: 80, weight: 1000001}]}", "backendRefs[0].weight"),
        ("{matches: [{path: {value: a}}]}", "matches[0].path.value"),
        ("{matches: [{path: {type: Exact, value: /a//b}}]}", "matches[0].path.value"),
        ("{matches: [{path: {type: RegularExpression, value: '(a'}}]}", "matches[0].path.value"),
        ("{matches: [{method: get}]}", "matches[0].method"),
        ("{timeouts: {request: 1s, backendRequest: 2s}}", "timeouts.backendRequest"),
        ("{timeouts: {request: 1.5s}}", "timeouts.request"),
        ("{filters: [{type: URLRewrite}]}", "filters[0].urlRewrite"),
        ("{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]}",
         "filters[0].urlRewrite.path.replaceFullPath"),
        ("{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: "
         "{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}", "filters[0].urlRewrite.path"),
        ("{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 5, "
         "fraction: {numerator: 1}}}]}",
         "filters[0].requestMirror"),
        ("{filters: [{type: CORS, cors: {allowMethods: ['*', GET]}}]}", "filters[0].cors.allowMethods"),
    ],
)  # fmt: skip
def test_rules_of_http_routes(rule: str, path: str) -> None:
    """What the Gateway API's CEL rules refuse would be stored."""
    assert list(mistakes(http_route(rule))) == [f"spec.rules[0].{path}"]


def test_parents_are_told_apart() -> None:
    """Two references to one parent would attach a route twice."""
    text = http_route("{backendRefs: [{name: a, port: 80}]}").replace(
        "[{name: gateway}]", "[{name: gateway}, {name: gateway, sectionName: a}, {name: other}, {name: other}]"
    )
    assert list(mistakes(text)) == ["spec.parentRefs[1]", "spec.parentRefs[3]"]


def test_the_choices_are_named() -> None:
    """A misspelt choice would not show what there is."""
    text = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: strict}}}"
    assert mistakes(text) == {
        "spec.mtls.mode": 'found "strict"; needed one of UNSET, DISABLE, PERMISSIVE, STRICT (did you mean STRICT?)'
    }


def test_secrets_are_not_shown() -> None:
    """A mistake in a Secret would write its data to a terminal or a log."""
    text = "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {k: 'hunter2!', n: 12345}, stringData: {s: 67890}}"
    found = mistakes(text)
    assert set(found) == {"data.k", "data.n", "stringData.s"}
    assert not any(secret in str(found) for secret in ("hunter2", "12345", "67890"))


def test_services() -> None:
    """A Service whose ports cannot be told apart would route to one of them."""
    text = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}, {port: 80, name: b}, {port: 99999}]}}"
    assert set(mistakes(text)) == {"spec.ports[2].port"}
    text = text.replace("99999", "81, name: b, targetPort: true")
    assert mistakes(text) == {"spec.ports[2].targetPort": "found true; needed an integer or a string"}
    assert set(mistakes(text.replace("true", "http"))) == {"spec.ports[0].name", "spec.ports[1].port", "spec.ports[2].name"}


def test_typed_values() -> None:
    """What the compiler reads would not be what was written, or lack upstream's defaults."""
    service = decoded(
        virtual_service("{match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: a}, weight: 80}]}")
    )
    assert isinstance(service, istio.VirtualService)
    assert service.spec.http[0].match[0].headers["end-user"].exact == "jason"
    assert service.spec.http[0].route[0].weight == 80
    assert str(service.ref) == "VirtualService default/reviews"
    route = decoded(http_route("{backendRefs: [{name: a, port: 80}]}"))
    assert isinstance(route, gateway.HTTPRoute)
    rule = route.spec.rules[0]
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")
    assert (rule.backend_refs[0].kind, rule.backend_refs[0].weight) == ("Service", 1)
    assert route.spec.parent_refs[0].group == "gateway.networking.k8s.io"
    assert decoded(virtual_service("{route: [{destination: {host: a}}]}")) != service


def test_kinds_without_effect_say_so() -> None:
    """A setting that nobody follows would look as if it were followed."""
    text = "{apiVersion: networking.istio.io/v1beta1, kind: ProxyConfig, metadata: {name: a}, spec: {concurrency: 1}}"
    documents, _ = read_documents(text, "f.yaml")
    found, problems = decode(documents[0].raw, documents[0].locate)
    assert found is not None
    assert [(problem.severity, problem.reason) for problem in problems] == [(Severity.WARNING, "NotYetSupported")]


def test_the_document_is_not_changed() -> None:
    """What is stored must be what was written."""
    raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": None}}
    decode(raw)
    assert raw == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": None}}


def test_no_words_of_the_validator() -> None:
    """People would read of pydantic's types."""
    problems: list[Problem] = []
    for value in (None, True, 5, 1.5, "x", [], {}, [5], {"a": 5}):
        for field in ("hosts", "http", "tls", "tcp", "gateways", "exportTo"):
            raw = {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "a"},
                "spec": {field: value},
            }
            problems += decode(raw)[1]
        problems += decode({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": value, "spec": value})[
            1
        ]
    assert problems
    for problem in problems:
        assert "found" in problem.message
        assert "needed" in problem.message
        for word in ("pydantic", "Input should", "tuple", "dict", "validat", "instance of", "model"):
            assert word not in problem.message


def test_a_path_that_is_too_long_for_a_socket() -> None:
    """Envoy would refuse all endpoints of the service."""
    endpoint = {"address": f"unix:///{'x' * 107}"}
    spec = {"hosts": ["a.example"], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC", "endpoints": [endpoint]}
    body = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "a", "namespace": "b"}}
    found, problems = decode({**body, "spec": spec})
    assert found is None
    assert [problem.path for problem in problems] == ["spec.endpoints[0].address"]
    endpoint["address"] = endpoint["address"][:-1]
    assert decode({**body, "spec": spec})[0] is not None
