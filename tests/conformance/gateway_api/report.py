"""The results of a run as the Gateway API's own ConformanceReport."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.gateway_api.suite import Case
from tests.support.corpora import corpora

Raw = dict[str, Any]

# Profile → the kinds of its core, and how the names of its extended features begin.
PROFILES: dict[str, tuple[tuple[str, ...], str]] = {
    "GATEWAY-GRPC": (("Gateway", "ReferenceGrant", "GRPCRoute"), "GRPCRoute|Gateway|BackendTLSPolicy|ListenerSet"),
    "GATEWAY-HTTP": (("Gateway", "ReferenceGrant", "HTTPRoute"), "HTTPRoute|Gateway|BackendTLSPolicy|ListenerSet"),
    "GATEWAY-TCP": (("Gateway", "ReferenceGrant", "TCPRoute"), "TCPRoute|Gateway|BackendTLSPolicy|ListenerSet"),
    "GATEWAY-TLS": (("Gateway", "ReferenceGrant", "TLSRoute"), "TLSRoute|Gateway|BackendTLSPolicy|ListenerSet"),
    "GATEWAY-UDP": (("Gateway", "ReferenceGrant", "UDPRoute"), "UDPRoute|Gateway|BackendTLSPolicy|ListenerSet"),
}


def report(
    tests: Sequence[Case],
    failed: Mapping[str, str],
    features: Mapping[str, str],
    *,
    date: str,
    version: str,
    reasons: Mapping[str, str],
) -> Raw:
    """Of a run of these tests: `failed` ones with what is wrong, all features (with what is missing), known gaps with reasons."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ConformanceReport",
        "date": date,
        "gatewayAPIChannel": "experimental",
        "gatewayAPIVersion": bundle(),
        "mode": "default",
        "implementation": {
            "organization": "tulle",
            "project": "tulle",
            "url": "",  # no project page is public
            "version": version,
            "contact": [],
        },
        "profiles": [_profile(name, tests, failed, features, reasons) for name in PROFILES],
        "succeededProvisionalTests": sorted(one.name for one in tests if one.provisional and one.name not in failed),
    }


def bundle() -> str:
    """The version of the Gateway API that the CRDs beside the suite say."""
    text = Path(corpora("gateway-api/crd/standard/gateway.networking.k8s.io_gateways.yaml")).read_text()
    found = re.search(r"bundle-version: (\S+)", text)
    return found[1] if found else ""


def _profile(
    name: str, tests: Sequence[Case], failed: Mapping[str, str], features: Mapping[str, str], reasons: Mapping[str, str]
) -> Raw:
    core, pattern = PROFILES[name]
    own = [one for one in tests if all(feature in core or re.match(pattern, feature) for feature in one.features)]
    # A provisional test counts where it fails; where it passes, it stands in a list of its own, as upstream has it.
    own = [one for one in own if not one.provisional or one.name in failed]
    basic = [one for one in own if set(one.features) <= set(core)]
    more = [one for one in own if one not in basic]
    # Those that no test of this run is for are the profile's, too.
    optional = sorted(one for one in features if re.match(pattern, one) and one not in core)
    attempted = [one for one in more if not any(features[feature] for feature in one.features if feature not in core)]
    extended = _status(attempted, failed)
    extended["supportedFeatures"] = [one for one in optional if not features[one]]
    extended["unsupportedFeatures"] = [one for one in optional if features[one]]
    said = [f"Core tests {_word(basic, failed)}. Extended tests {_word(attempted, failed)}."]
    said += [f"{one.name}: {reasons.get(one.name) or failed[one.name]}." for one in own if one.name in failed]
    return {"name": name, "summary": "\n".join(said), "core": _status(basic, failed), "extended": extended}


def _status(tests: Sequence[Case], failed: Mapping[str, str]) -> Raw:
    wrong = sorted(one.name for one in tests if one.name in failed)
    counts = {"Passed": len(tests) - len(wrong), "Skipped": 0, "Failed": len(wrong)}
    return {"result": "failure" if wrong else "success", "statistics": counts} | ({"failedTests": wrong} if wrong else {})


def _word(tests: Sequence[Case], failed: Mapping[str, str]) -> str:
    wrong = sum(one.name in failed for one in tests)
    return f"failed with {wrong} of {len(tests)} test failures" if wrong else "succeeded"


def write(path: Path, made: Raw) -> None:
    """As YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(made, sort_keys=False, width=130))
