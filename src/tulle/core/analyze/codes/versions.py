"""05xx: kinds, versions and fields: unknown, old, or without effect."""

from __future__ import annotations

from tulle.core.analyze.codes.code import error, info, warning

CODES = (
    warning(
        "TUL0501",
        "NotYetSupported",
        "Kept, and without effect",
        "The field or kind means something in its API, and the mesh does not act on it yet. It is stored as it is.",
        "do not rely on it",
    ),
    warning(
        "TUL0502",
        "AlphaVersion",
        "An alpha version of the API",
        "The kind is served in a stable version with the same fields; alpha versions will be removed upstream.",
        "write the newer apiVersion",
        istio="IST0002",
    ),
    info(
        "TUL0503",
        "OlderVersion",
        "An older version of the API",
        "The kind is served in a newer version with the same fields.",
        "write the newer apiVersion",
        istio="IST0002",
    ),
    error(
        "TUL0504",
        "UnknownVersion",
        "The kind is not served in this version",
        "The kind is known, and not in the version that apiVersion says.",
        "write a version that is served",
    ),
    error(
        "TUL0505",
        "UnknownKind",
        "The kind is not known",
        "tulle serves the kinds of docs/reference/resources.md and no others. Workloads (Deployments, Pods) are processes"
        " here: tulle run starts one.",
        "correct kind and apiVersion, or leave the object out",
    ),
    error(
        "TUL0506",
        "Refused",
        "This kind is refused on purpose",
        "EnvoyFilter and WasmPlugin reach around the mesh into Envoy. Other kinds do the same with meaning.",
        "use the kind that the message names",
    ),
)
