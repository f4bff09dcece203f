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
)
