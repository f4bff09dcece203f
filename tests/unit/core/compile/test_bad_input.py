"""What the mesh lets in though it is wrong: told with its field, answered as its API says, and nobody else's concern.

What no proxy could be told (percentages, durations, expressions) never comes this far: tests/unit/api/test_bad_input.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.property.test_accepted import changed
from tests.support.envoy import validate
from tests.support.statuses import written
from tests.unit.core.analyze.cases import found, pair, secret
from tests.unit.core.compile.mesh import Mesh, bookinfo, changes, read
from tulle.core import type_urls
from tulle.core.compile.layers import layer_names

TO = "route: [{destination: {host: ratings}}]"
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: tulle-system}
spec:
  gatewayClassName: tulle
  listeners:
  - {name: one, port: 18080, protocol: HTTP}
  - {name: two, port: %d, protocol: %s}
"""
SECURED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: tulle
  listeners:
  - name: https
    port: 8443
    protocol: HTTPS
    tls: {certificateRefs: [{name: cert}]}
---
"""
NOTHING_BEHIND = """
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {clusterIP: 240.240.9.9, selector: {app: nobody}, ports: [{name: http, port: 80}]}
"""
VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s}
spec: {%s}
---
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: "", kind: Service, name: ratings, port: 9080}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
"""
DELEGATES = "".join(
    VIRTUAL_SERVICE % (name, f"{hosts}http: [{{delegate: {{name: {to}}}}}]")
    for name, hosts, to in (("outer", "hosts: [ratings], ", "a"), ("a", "", "b"), ("b", "", "a"))
)
WILDCARDS = "".join(VIRTUAL_SERVICE % (name, f'hosts: ["*.ratings.example"], http: [{{{TO}}}]') for name in "ab")
OUTSIDE = "".join(
    f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec: {{hosts: ["{host}"], ports: [{{number: 80, name: http, protocol: {protocol}}}], resolution: NONE}}
---"""
    for name, host, protocol in (("a", "*.shop.example", "HTTP"), ("b", "*.shop.example", "TCP"), ("c", "*.example", "HTTP"))
)
MIXED, ENDED = (pair()[0], pair(-1.0, 364.0)[1]), pair(-9.0, -1.0)

# What is wrong → the objects; the code and the field of the finding; the condition that tells it ("" where the API has none; of a
# certificate that has ended it depends on the time: tests/e2e/test_gateway_tls.py).
CASES = {
    "a route to nothing": (
        VIRTUAL_SERVICE % ("bad", "hosts: [ratings], http: [{route: [{destination: {host: nobody}}]}]"),
        ("TUL0101", "spec.http[0].route[0].destination.host"),
        "Reconciled",
    ),
    "a route of the Gateway API to nothing": (ROUTE, ("TUL0101", "spec.rules[0].backendRefs[0].name"), "BackendNotFound"),
    "a backend without endpoints": (NOTHING_BEHIND, ("TUL0702", "spec.selector"), ""),
    "a cycle of delegates": (DELEGATES, ("TUL0118", "spec.http[0].delegate.name"), ""),
    "overlapping wildcards": (WILDCARDS, ("TUL0201", "spec.hosts[0]"), ""),
    "overlapping wildcards of hosts outside": (OUTSIDE, ("TUL0213", "spec.hosts[0]"), ""),
    "a listener conflict": (GATEWAY % (18080, "TCP"), ("TUL0403", "spec.listeners[1].port"), "ProtocolConflict"),
    "a certificate of another key": (SECURED + secret(*MIXED), ("TUL0307", 'data["tls.key"]'), "InvalidCertificateRef"),
    "a certificate that has ended": (SECURED + secret(*ENDED), ("TUL0308", "spec.listeners[0].tls.certificateRefs"), ""),
}


def sent(mesh: Mesh) -> dict[tuple[str, str, str], bytes]:
    """All that any proxy is sent, by layer, type and name."""
    pipeline = mesh.pipeline
    return {
        (layer, url, name): one.value
        for layer in pipeline.flow.get(layer_names, None) or ()
        for url in type_urls.ORDER
        for name, one in pipeline.table(layer, url).items()
    }


@pytest.mark.parametrize("what", CASES)
def test_it_is_told_and_harms_nobody_else(what: str, tmp_path: Path) -> None:
    """Broken: nobody would hear of the mistake, or of its field; or others be changed by it, or proxies refuse it."""
    text, (code, field), condition = CASES[what]
    assert (code, field) in [(one.code, one.path) for one in found(text)]
    mesh = Mesh(bookinfo())
    before = sent(mesh)
    published = mesh.pipeline.commit(changes(read(text)))
    after = sent(mesh)
    others = {key for key in before if not any(word in key[2] for word in ("ratings", "18080", "udp/"))}
    assert {key for key in others if before[key] != after.get(key)} == set()
    assert validate(list(changed(mesh.pipeline, published)), tmp_path) == ""
    told = [str(written(mesh.pipeline, row)) for row in mesh.pipeline.statuses.all()]
    assert not condition or any(condition in one for one in told), told
