"""07xx: Services and workloads."""

from __future__ import annotations

from tulle.core.analyze.codes.code import info, warning

CODES = (
    warning(
        "TUL0701",
        "DuplicateAddress",
        "Another service has this address",
        "Two Services claim one clusterIP, or two ServiceEntries one address; the older has it, and Services go first.",
        "leave clusterIP or addresses out: an address is allotted",
    ),
    info(
        "TUL0702",
        "NoEndpoints",
        "No workload is behind the Service",
        "The Service's selector selects no workload of its namespace. Calls are answered 503.",
        "start a workload with these labels (tulle run --service NAME), or correct the selector",
    ),
    info(
        "TUL0703",
        "ProtocolNotDeclared",
        "What is spoken on the port is not declared",
        "Neither appProtocol nor the port's name says a protocol, so that the mesh carries bytes: no routes, retries or "
        "metrics by request.",
        "write appProtocol: http (http2, grpc, tcp, tls, ...)",
        istio="IST0118",
    ),
    warning(
        "TUL0704",
        "NoServiceOfSlice",
        "The EndpointSlice is of no Service",
        "The label kubernetes.io/service-name says whose endpoints a slice holds. Without a Service of that name in its "
        "namespace nobody calls them.",
        "correct the label, or apply the Service",
    ),
    warning(
        "TUL0705",
        "NoPortOfSlice",
        "A port of the EndpointSlice is none of its Service",
        "Ports of a slice are those of its Service with the same name. One with another name is never called.",
        "give the port the name that it has in the Service",
    ),
    warning(
        "TUL0706",
        "CertificateNotRenewed",
        "A certificate should have been renewed",
        "Nodes renew certificates at half of their life. One that is past three quarters of it is about to end, and with it all "
        "that its holder begins.",
        "look at `tulle certs` and the log of the node: it cannot reach the control plane, or is refused",
        kinds="WorkloadEntry Node",
    ),
)
