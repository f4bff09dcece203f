"""GatewayClass → its status: whether Gateways of the class are served, and which features of the API they have."""

from __future__ import annotations

from tulle.core.compile.gateway_workloads import CONTROLLERS
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import gateway_classes
from tulle.core.flow import Fetch, table
from tulle.core.status.features import SUPPORTED
from tulle.core.status.rows import Status, false, true


@table
def gateway_class_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a GatewayClass; None where it names another controller."""
    row = fetch(gateway_classes, key)
    if row is None or row.spec.controller_name not in CONTROLLERS:
        return None
    accepted = true("Accepted", message="Gateways of this class are bound to the workloads labelled istio: ingressgateway")
    if row.spec.parameters_ref is not None:
        found = f"{row.spec.parameters_ref.kind} {row.spec.parameters_ref.name}"
        message = f"spec.parametersRef: found {found}; needed none: classes take no parameters here"
        accepted = false("Accepted", "InvalidParameters", message)
    version = true("SupportedVersion", message="the Gateway API's kinds are built in")
    return Status((accepted, version), fields={"supportedFeatures": [{"name": name} for name in SUPPORTED]})
