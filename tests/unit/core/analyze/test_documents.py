"""06xx: every mistake that reading and decoding finds has its code."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import HTTP_ROUTE, SERVICE_PARENT, VIRTUAL_SERVICE, Cases, found

GOOD = VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews}}]}]")
META = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a%s}\n"
ROUTE = HTTP_ROUTE % ("r", SERVICE_PARENT, "[{%s}]")
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + at)}: &{chr(98 + at)} [{','.join(['*' + chr(97 + at)] * 10)}]\n" for at in range(8)
)
MANY = ", ".join(f"{{path: {{value: /{at}}}}}" for at in range(65))

# A code → a text that has it; the good one is one for all.
WRONG: dict[str, str | bytes] = {
    "TUL0601": "kind: [",
    "TUL0602": b"kind: \xff",
    "TUL0603": BOMB,
    "TUL0604": "- a\n- b\n",
    "TUL0605": META % "" + "kind: ServiceAccount\n",
    "TUL0606": META % "" + "---\n" + META % "",
    "TUL0607": GOOD.replace("destination:", "destinaton:"),
    "TUL0608": GOOD.replace("host: reviews", ""),
    "TUL0609": GOOD.replace("host: reviews", "host: [reviews]"),
    "TUL0610": ROUTE % "matches: [{method: FETCH}]",
    "TUL0611": ROUTE % 'matches: [{headers: [{name: "a b", value: c}]}]',
    "TUL0612": META.replace("name: a", "name: A_b") % "",
    "TUL0613": GOOD.replace("host: reviews", 'host: "re views"'),
    "TUL0614": ROUTE % "matches: [{path: {value: no-slash}}]",
    "TUL0615": ROUTE % 'matches: [{path: {type: RegularExpression, value: "a("}}]',
    "TUL0616": META % ', labels: {a: "b c"}',
    "TUL0617": META % ", namespace: A",
    "TUL0618": GOOD.replace("route:", "redirect: {uri: /}, route:"),
    "TUL0619": ROUTE % "backendRefs: [{name: reviews, port: 70000}]",
    "TUL0620": HTTP_ROUTE % ("r", SERVICE_PARENT, "[]"),
    "TUL0621": ROUTE % f"matches: [{MANY}]",
    "TUL0622": ROUTE % 'matches: [{headers: [{name: a, value: ""}]}]',
    "TUL0623": ROUTE % f"matches: [{{headers: [{{name: a, value: {'b' * 5000}}}]}}]",
    "TUL0624": GOOD.replace("route:", "retries: {attempts: -1}, route:"),
    "TUL0625": META % ", namespace: other",
    "TUL0626": """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w, annotations: {tulle.dev/app-ports: "eighty"}}
spec: {address: 10.0.0.1}
""",
}
WRONG["TUL0627"] = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: e}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
"""
CASES: Cases = {code: (wrong, GOOD) for code, wrong in WRONG.items()}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    insist = code == "TUL0625"
    assert code in [one.code for one in found(wrong, insist=insist)]
    assert code not in [one.code for one in found(right, insist=insist)]


def test_line_and_column() -> None:
    """A person would search the file for the mistake."""
    (one,) = [one for one in found(WRONG["TUL0607"]) if one.code == "TUL0607"]
    assert one.location is not None
    assert (one.location.line, one.path) == (5, "spec.http[0].route[0].destinaton")
    assert str(one).endswith("[TUL0607]")
