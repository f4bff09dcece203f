"""Documents of Istio and of the Gateway API: those that must be accepted are, those that must be refused are, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import ROOT, corpora
from tulle.api.decode import INSTEAD, decode
from tulle.api.documents import Document, read_documents
from tulle.api.object import Kind
from tulle.api.registry import kind_for
from tulle.kit.problem import Problem, Severity

# Texts that the conformance suite replaces before it applies a file.
PLACEHOLDERS = {
    "{GATEWAY_CONTROLLER_NAME}": "example.com/controller",
    "PLACEHOLDER_UNUSABLE_ADDRS": "192.0.2.1",
    "PLACEHOLDER_USABLE_ADDRS": "192.0.2.2",
}


def files(*folders: str) -> list[Path]:
    """The YAML files below folders of the corpora."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.yaml"))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def read(file: Path) -> tuple[list[Document], list[Problem]]:
    text = file.read_text()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return read_documents(text, name(file))


def kind_of(raw: dict[str, Any]) -> Kind | None:
    return kind_for(str(raw.get("apiVersion", "")).rpartition("/")[0], str(raw.get("kind")))


VALID = files("istio/samples", "gateway-api/examples", "gateway-api/conformance")


@pytest.mark.parametrize("file", VALID, ids=name)
def test_accepted(file: Path) -> None:
    """A file that people apply to Istio or to a Gateway API implementation would be refused here."""
    documents, problems = read(file)
    assert not problems
    for document in documents:
        if kind_of(document.raw) is None:
            continue
        decoded, found = decode(document.raw, document.locate)
        assert decoded is not None, "\n".join(map(str, found))
        assert all(problem.reason == "NotYetSupported" for problem in found), found


def test_enough_is_accepted() -> None:
    """The test above would pass if no kind were known."""
    corpora("istio/samples")
    kinds = [kind_of(document.raw) for file in VALID for document in read(file)[0]]
    assert len([kind for kind in kinds if kind is not None]) > 500


# What of the Gateway API's refusals is ours to find: the field that must be named.
INVALID = {
    "invalid-filter-externalauth-bad-http-path": "spec.rules[0].filters[0].externalAuth.http.path",
    "invalid-filter-externalauth-empty": "spec.rules[0].filters[0].externalAuth",
    "invalid-filter-externalauth-no-protocol": "spec.rules[0].filters[0].externalAuth.protocol",
    "invalid-header-value": "spec.rules[0].filters[0].responseHeaderModifier.add[0].value",
    "duplicate-listeners": "spec.listeners[1].name",
    "hostname-tcp": "spec.listeners[0].hostname",
    "hostname-udp": "spec.listeners[0].hostname",
    "invalid-addresses": "spec.addresses[9].value",
    "invalid-listener-name": "spec.listeners[0].name",
    "invalid-listener-port": "spec.listeners[0].port",
    "invalid-tls-mode": "spec.listeners[0].tls.mode",
    "tlsconfig-tcp": "spec.listeners[0].tls",
    "invalid-controller": "spec.controllerName",
    "duplicate-header-match": "spec.rules[0].matches[0].headers[1].name",
    "duplicate-query-match": "spec.rules[0].matches[0].queryParams[1].name",
    "httproute-portless-backend": "spec.rules[0].backendRefs[0].port",
    "httproute-portless-service": "spec.rules[0].backendRefs[0].port",
    "invalid-backend-group": "spec.rules[0].backendRefs[0].group",
    "invalid-backend-kind": "spec.rules[0].backendRefs[0].kind",
    "invalid-backend-port": "spec.rules[0].backendRefs[0].port",
    "invalid-filter-duplicate-header": "spec.rules[0].filters[0].requestHeaderModifier.remove[1]",
    "invalid-filter-duplicate": "spec.rules[0].filters[1]",
    "invalid-filter-empty": "spec.rules[0].filters[0].requestHeaderModifier",
    "invalid-filter-wrong-field": "spec.rules[0].filters[0].requestRedirect",
    "invalid-header-name": "spec.rules[0].matches[0].headers[0].name",
    "invalid-hostname": "spec.hostnames[0]",
    "invalid-httpredirect-hostname": "spec.rules[0].filters[0].requestRedirect.hostname",
    "invalid-method": "spec.rules[0].matches[0].method",
    "invalid-path-alphanum-specialchars-mix": "spec.rules[0].matches[0].path.value",
    "invalid-path-specialchars": "spec.rules[0].matches[0].path.value",
    "invalid-request-redirect-with-backendref": "spec.rules[0].filters[0]",
    "missing-from": "spec.from",
    "missing-ns": "spec.from[0].namespace",
    "missing-to": "spec.to",
    "no-hostname": "spec.hostnames",
}


@pytest.mark.parametrize("file", files("gateway-api/invalid-examples"), ids=name)
def test_refused_by_the_gateway_api(file: Path) -> None:
    """A mistake that upstream refuses would be applied, or refused for another reason than it has."""
    documents, problems = read(file)
    assert not problems
    for document in documents:
        decoded, found = decode(document.raw, document.locate)
        assert decoded is None
        assert INVALID[file.stem] in [problem.path for problem in found], "\n".join(map(str, found))


def istio_documents(ending: str) -> Iterator[Any]:
    """Istio's validation documents, each with the reason for which it must be refused (None: must not)."""
    for file in files("istio/validation-crds"):
        if not file.stem.endswith(ending):
            continue
        for number, document in enumerate(read_documents(file.read_bytes(), file.name)[0]):
            kind = document.raw.get("kind")
            title = (document.raw.get("metadata") or {}).get("name")
            yield pytest.param(document, id=f"{kind}-{title}-{number}")


# The words of upstream's refusal → the end of the field that ours must name. What is not here is only refused.
FIELDS = {
    "spec.hosts: Required value": "spec.hosts",
    "Address is required": "spec.address",
    "UDS may not be a dir": "spec.address",
    "UDS may not include ports": "spec.ports",
    "port number cannot be duplicated": "spec.ports[1].number",
    "hostname cannot be wildcard": "spec.hosts[0]",
    "portLevelMtls requires selector": "spec.portLevelMtls",
    "spec.trafficPolicy.loadBalancer.warmup.duration: Required value": "spec.trafficPolicy.loadBalancer.warmup.duration",
}


@pytest.mark.parametrize("document", list(istio_documents("-invalid")))
def test_refused_by_istio(document: Document) -> None:
    """A mistake that Istio refuses would be applied."""
    raw = dict(document.raw)
    reason = raw.pop("_err", None)
    assert raw["kind"] in INSTEAD or kind_of(raw) is not None
    decoded, found = decode(raw, document.locate)
    assert decoded is None, f"Istio says: {reason}"
    if reason in FIELDS:
        assert FIELDS[reason] in [problem.path for problem in found]


@pytest.mark.parametrize("document", list(istio_documents("-valid")))
def test_accepted_by_istio(document: Document) -> None:
    """A document that Istio takes would be refused; EnvoyFilter and WasmPlugin are, with what to use instead."""
    if document.raw["kind"] in INSTEAD:
        decoded, found = decode(document.raw, document.locate)
        assert decoded is None
        assert [problem.reason for problem in found] == ["Refused"]
        return
    decoded, found = decode(document.raw, document.locate)
    assert decoded is not None, "\n".join(map(str, found))
    assert not [problem for problem in found if problem.severity is Severity.ERROR]


def test_istios_documents_parse() -> None:
    """A document that does not parse would silently not be tested above."""
    corpora("istio/validation-crds")
    problems = [problem for file in files("istio/validation-crds") for problem in read_documents(file.read_bytes(), file.name)[1]]
    assert not problems


def test_reading_everything_is_quick() -> None:
    """Applying a folder would feel slow. The bound is for a quadratic reader, not for a slow machine."""
    corpora("istio/samples")
    started = time.process_time()
    for file in files("istio", "gateway-api/examples", "gateway-api/conformance"):
        for document in read_documents(file.read_bytes(), file.name)[0]:
            decode(document.raw, document.locate)
    assert time.process_time() - started < 4
