"""The API objects that tell the mesh of a workload."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tulle.api.decode import decode
from tulle.client.node_api import Port, WorkloadSpec
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.node import objects
from tulle.node.objects import Place

SPEC = WorkloadSpec(name="reviews-v1", service="reviews", version="v1", service_account="bookinfo", ports=(Port(9080, "http"),))
NETNS = Place(Capture.NETNS, "10.99.0.10", inbound_ports={9080: 9080}, app_ports={9080: 9080})
PROXY = Place(
    Capture.PROXY,
    "127.42.0.1",
    proxy_ports=ProxyPorts(outbound=20000, inbound=20001, health=20002, metrics=20003),
    inbound_ports={9080: 20004},
    app_ports={9080: 20005},
)


def service(name: str, port: int = 9080, target: Any = 9080, app: str = "reviews") -> dict[str, Any]:
    return {"spec": {"selector": {"app": app}, "ports": [{"name": name, "port": port, "targetPort": target}]}}


@pytest.mark.parametrize(
    "body",
    [
        objects.workload_entry(SPEC, NETNS, "here", ready=False),
        objects.workload_entry(SPEC, PROXY, "here", ready=True, services=[service("web")]),
        objects.service(SPEC),
        objects.service_account(SPEC),
        objects.namespace(SPEC),
    ],
    ids=lambda body: body["kind"],
)
def test_the_api_server_takes_them(body: dict[str, Any]) -> None:
    """A workload would never be registered."""
    decoded, problems = decode(body)
    assert not problems
    assert decoded is not None


def test_labels_for_istios_own_examples() -> None:
    """Subsets and Services of Istio's examples would not select a workload of `tulle run`."""
    entry = objects.workload_entry(SPEC, NETNS, "here", ready=True)
    assert entry["spec"]["labels"]["app"] == "reviews"
    assert entry["spec"]["labels"]["version"] == "v1"
    assert entry["spec"]["serviceAccount"] == "bookinfo"
    assert entry["metadata"]["annotations"] == {objects.NODE: "here", objects.CAPTURE: "netns", objects.READY: "true"}
    own = msgspec.structs.replace(SPEC, labels={"app": "other", "team": "x"})
    assert objects.labels(own)["app"] == "other"
    assert objects.service(own)["spec"]["selector"] == {"app": "other"}
    assert objects.selects(objects.service(own), objects.workload_entry(own, NETNS, "here", ready=True))


def test_allotted_ports_are_found_by_the_service_s_names() -> None:
    """In `proxy` capture callers would go to the declared port, where nobody listens."""
    services = [service("web"), service("alias", port=80), service("not-ours", app="ratings"), service("other", target=9999)]
    entry = objects.workload_entry(SPEC, PROXY, "here", ready=True, services=services)
    assert entry["spec"]["ports"] == {"http-9080": 20004, "web": 20004, "alias": 20004}
    notes = entry["metadata"]["annotations"]
    assert msgspec.json.decode(notes[objects.APP_PORTS]) == {"20004": 20005}
    assert msgspec.json.decode(notes[objects.PROXY_PORTS], type=ProxyPorts) == PROXY.proxy_ports


def test_a_service_that_a_node_made_grows() -> None:
    """The second workload of a service could not bring a further port, or would change what is there."""
    standing = objects.service(SPEC)
    assert objects.missing_ports(standing, SPEC) == []
    more = msgspec.structs.replace(SPEC, ports=(*SPEC.ports, Port(9090, "grpc", target=9091)))
    assert objects.missing_ports(standing, more) == [
        {"name": "grpc-9090", "port": 9090, "targetPort": 9091, "appProtocol": "grpc"}
    ]


def test_workloads_of_one_service_on_one_host() -> None:
    """In capture cgroup each binds another port of the host; callers must find it under the Service's name for it."""
    place = Place(Capture.CGROUP, "192.0.2.2", inbound_ports={9081: 9081}, app_ports={9081: 9081})
    spec = msgspec.structs.replace(SPEC, ports=(Port(9080, "http", target=9081),))
    entry = objects.workload_entry(spec, place, "here", ready=True, services=[service("web"), service("other", app="x")])
    assert entry["spec"]["ports"] == {"http-9080": 9081, "web": 9081}
    assert entry["metadata"]["annotations"][objects.CAPTURE] == "cgroup"
    assert objects.APP_PORTS not in entry["metadata"]["annotations"]


def test_annotations_are_carried() -> None:
    """`kubectl get -o yaml` must show what a person chose, and what the node says of itself must stand."""
    spec = msgspec.structs.replace(SPEC, annotations={"team": "x", objects.NODE: "elsewhere"})
    noted = objects.workload_entry(spec, NETNS, "here", ready=True)["metadata"]["annotations"]
    assert (noted["team"], noted[objects.NODE]) == ("x", "here")
