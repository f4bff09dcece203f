"""08xx: what Telemetry asks for and proxies do not make."""

from __future__ import annotations

from tulle.core.analyze.codes.code import error, warning

CODES = (
    warning(
        "TUL0801",
        "NotHonoured",
        "A part of the Telemetry has no effect",
        "A Telemetry asks for something that no proxy here makes: metrics that are sent to somebody, a provider of another kind, "
        "a second provider of traces, a label without a name that Prometheus takes.",
        "name a provider of the MeshConfig's extensionProviders of the right kind; metrics are read from proxies by Prometheus",
        kinds="Telemetry",
    ),
    error(
        "TUL0802",
        "BadExpression",
        "The expression is none that a proxy takes",
        "A filter or the value of a label is no CEL expression, or asks for what Envoy does not know of a call. A filter that is "
        "none lets everything be logged; a label is not made.",
        'use the attributes of Envoy, such as request.host, request.headers["x-tenant"], response.code, connection.mtls',
        kinds="Telemetry",
    ),
    warning(
        "TUL0803",
        "Unbounded",
        "The label would have another value for every call",
        "A label is asked for of what callers write or what differs each time (a path, an id, an address, a time). It would make "
        "metrics grow with the traffic, and is not made.",
        "use something that has few values; paths and addresses belong into access logs and traces",
        kinds="Telemetry",
    ),
)
