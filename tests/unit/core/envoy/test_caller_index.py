"""Many policies are looked up by caller: what Envoy is given, and that it decides as if it had tried them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.guarded import guarded, policy
from tests.unit.core.envoy.test_authorization import NOBODY, A, B, rule
from tests.unit.core.envoy.test_tokens import refusals
from tulle.core import type_urls
from tulle.core.envoy.caller_index import INDEX_TYPE, Piece, by_caller, callers_of
from tulle.core.model.authorization import Attribute, Compare, Fact, Rule, Term
from tulle.pb.envoy.config.core.v3 import extension_pb2
from tulle.pb.envoy.extensions.common.matching.v3 import extension_matcher_pb2

MANY = 100


def who(value: str, compare: Compare = Compare.EXACT) -> Term:
    return Term((Fact(Attribute.PRINCIPAL, value, compare),))


def test_whom_rules_name() -> None:
    """Broken: a rule would not be asked for a caller for whom it holds."""
    path = Term((Fact(Attribute.PATH, "/"),))
    assert callers_of([Rule(0, sources=((who("a"), path), (who("b"),)))]) == frozenset({"a", "b"})
    assert callers_of([Rule(0, sources=((path,),), conditions=(who("a"),))]) == frozenset({"a"})
    assert callers_of([]) == frozenset()
    for one in (
        Rule(0),
        Rule(0, operations=((path,),)),
        Rule(0, sources=((who("a"),), (path,))),
        Rule(0, sources=((who("a", Compare.PREFIX),),)),
        Rule(0, sources=((Term((Fact(Attribute.PRINCIPAL, "a"),), invert=True),),)),
        Rule(0, sources=((Term((Fact(Attribute.PRINCIPAL, "a"), Fact(Attribute.SOURCE_IP, "192.0.2.1"))),),)),
    ):
        assert callers_of([one]) is None, one
    assert callers_of([Rule(0, sources=((who("a"),),)), Rule(1)]) is None


def joined(pieces: object) -> bytes:
    assert isinstance(pieces, list | tuple)
    return b"".join(one.rules for one in pieces)


@pytest.mark.parametrize(
    ("pieces", "indexed"),
    [
        ([Piece(b"x" * 100, frozenset({f"s{n}"})) for n in range(MANY)], True),
        ([Piece(b"x" * 100, frozenset({f"s{n}"})) for n in range(10)], False),
        ([Piece(b"x" * 100) for n in range(MANY)], False),
        ([Piece(b"x" * 100, frozenset({"s"})) for n in range(MANY)], False),
        ([Piece(b"x" * 100, frozenset(f"s{n}" for n in range(MANY))) for n in range(MANY)], False),
        (
            [*(Piece(b"x" * 100, frozenset({f"s{n}"})) for n in range(MANY)), *(Piece(b"x" * 100) for n in range(MANY // 2))],
            False,
        ),
    ],
)
def test_where_it_is_worth_it(pieces: list[Piece], indexed: bool) -> None:
    """Broken: a few policies would be made difficult to read, or an index as large as the square of the policies."""
    assert (by_caller(pieces, joined, "type") is not None) is indexed


def test_what_each_meets() -> None:
    """Broken: an entry of the index would not be what Envoy understands."""
    pieces = [*(Piece(b"[%d]" % n, frozenset({f"s{n}"})) for n in range(MANY)), Piece(b"[all]")]
    message = extension_matcher_pb2.ExtensionWithMatcher.FromString(by_caller(pieces, joined, "type") or b"")
    tree = message.xds_matcher.matcher_tree.exact_match_map.map
    assert len(tree) == MANY
    assert b"[all][7]" in tree["s7"].action.typed_config.value
    several, rest = (
        message.xds_matcher.on_no_match.matcher.matcher_list.matchers[0],
        message.xds_matcher.on_no_match.matcher.on_no_match,
    )
    assert several.predicate.single_predicate.value_match.contains == ","
    assert b"[0][1][2]" in several.on_match.action.typed_config.value
    assert b"[all]" in rest.action.typed_config.value
    assert b"[0]" not in rest.action.typed_config.value


async def test_a_thousand_policies(tmp_path: Path) -> None:
    """Broken: with many policies somebody would be let in or shut out who is not with few, or nobody would be told by which."""
    async with guarded(tmp_path) as web:
        crowd = [policy(f"a{n}", {"rules": [rule({"principals": [f"cluster.local/ns/o/sa/{n}"]})]}) for n in range(MANY)]
        crowd += [
            policy(f"d{n}", {"action": "DENY", "rules": [rule({"serviceAccounts": [f"o/{n}"]}, {"paths": ["/x"]})]})
            for n in range(MANY)
        ]
        mine = [
            policy("a", {"rules": [rule({"principals": ["cluster.local/ns/default/sa/a"]})]}),
            policy("get", {"rules": [rule({"namespaces": ["other"]}, {"methods": ["GET"]})]}),
            policy("d", {"action": "DENY", "rules": [rule({"serviceAccounts": ["default/a"]}, {"paths": ["/secret"]})]}),
            policy(
                "try",
                {"action": "DENY", "rules": [rule({"serviceAccounts": ["default/a"]}, {"paths": ["/try"]})]},
                dry_run="true",
            ),
        ]
        await web.apply(*crowd, *mine)
        kinds = [
            extension_pb2.TypedExtensionConfig.FromString(one.value).typed_config.type_url
            for name, one in web.pipeline.table("workload/default/web", type_urls.EXTENSION).items()
            if name in ("authz-allow-http", "authz-deny-http")
        ]
        assert kinds == [INDEX_TYPE, INDEX_TYPE]
        assert [await web.get("/", caller) for caller in (A, B, NOBODY)] == [200, 200, 403]
        assert [await web.get("/", B, method="POST"), await web.get("/x", A), await web.get("/try", A)] == [403, 200, 200]
        assert await web.get("/secret", A) == 403
        (line,) = (json.loads(one) for one in await refusals(web, 1, '"path":"/secret"'))
        assert line["why"] == "rbac_access_denied_matched_policy[ns[default]-policy[d]-rule[0]]"
        assert "istio_dry_run_deny.shadow_denied: 1" in await web.proxy.admin("/stats?filter=shadow_denied")
        await web.apply(*mine)
        assert [await web.get("/", caller) for caller in (A, B, NOBODY)] == [200, 200, 403]
        assert await web.get("/secret", A) == 403
