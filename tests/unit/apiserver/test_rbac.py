"""The table of roles and bindings, without a server."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.control.apiserver.auth import Attributes, User
from tulle.control.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    EVERYTHING,
    ROLE_BINDINGS,
    ROLES,
    Policy,
    Rule,
    rule_of,
    uncovered,
)

ALICE = User("alice", ("people", "system:authenticated"))


def rule(verbs: str = "", groups: str = "", resources: str = "", names: str = "", paths: str = "") -> dict[str, Any]:
    """Words, with `core` for the core group."""
    made: dict[str, Any] = {"verbs": verbs.split()}
    if paths:
        return made | {"nonResourceURLs": paths.split()}
    made |= {"apiGroups": ["" if one == "core" else one for one in groups.split()], "resources": resources.split()}
    return made | ({"resourceNames": names.split()} if names else {})


def policy(*rules: dict[str, Any], namespace: str = "", subjects: list[dict[str, str]] | None = None) -> Policy:
    """One ClusterRole, bound everywhere, or by a RoleBinding in a namespace."""
    made = Policy()
    made.put(CLUSTER_ROLES, "", "r", {"rules": list(rules)})
    body = {
        "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": subjects or [{"kind": "User", "name": "alice"}],
    }
    made.put(ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS, namespace, "b", body)
    return made


@pytest.mark.parametrize(
    ("granted", "asked", "expected"),
    [
        (rule("get", "core", "secrets"), Attributes("get", "", "secrets", name="a"), True),
        (rule("get", "core", "secrets"), Attributes("list", "", "secrets"), False),
        (rule("list", "core", "secrets"), Attributes("watch", "", "secrets"), False),
        (rule("watch", "core", "secrets"), Attributes("list", "", "secrets"), False),
        (rule("get", "tulle.dev", "secrets"), Attributes("get", "", "secrets"), False),
        (rule("*", "*", "*"), Attributes("escalate", "any", "thing", "sub"), True),
        (rule("*", "*", "*"), Attributes("get", path="/tulle/v1/status"), False),
        (rule("get", "core", "services"), Attributes("get", "", "services", "status", name="a"), False),
        (rule("get", "core", "services/status"), Attributes("get", "", "services", "status", name="a"), True),
        (rule("get", "core", "services/status"), Attributes("get", "", "services", name="a"), False),
        (rule("get", "core", "*/status"), Attributes("get", "", "services", "status", name="a"), True),
        (rule("get", "core", "*/status"), Attributes("get", "", "services", name="a"), False),
        (rule("get", "core", "services/*"), Attributes("get", "", "services", "status", name="a"), False),
        (rule("get", "core", "secrets", "a b"), Attributes("get", "", "secrets", name="b"), True),
        (rule("get", "core", "secrets", "a b"), Attributes("get", "", "secrets", name="c"), False),
        (rule("list", "core", "secrets", "a"), Attributes("list", "", "secrets"), False),
        (rule("list", "core", "secrets", "a"), Attributes("list", "", "secrets", name="a"), True),
        (rule("create", "core", "secrets", "a"), Attributes("create", "", "secrets"), False),
        (rule("get", paths="/tulle/v1/*"), Attributes("get", path="/tulle/v1/status"), True),
        (rule("get", paths="/tulle/v1/*"), Attributes("get", path="/tulle/v1"), False),
        (rule("get", paths="/tulle/v1/status"), Attributes("get", path="/tulle/v1/status/x"), False),
        (rule("get", paths="*"), Attributes("post", path="/tulle/v1/status"), False),
        (rule("get", paths="*"), Attributes("get", "", "secrets"), False),
        ({"verbs": "get"}, Attributes("get", "", "secrets"), False),
        ({}, Attributes("get", "", "secrets"), False),
    ],
)
def test_rules(granted: dict[str, Any], asked: Attributes, expected: bool) -> None:
    """A rule that is read as wider than Kubernetes reads it opens the mesh; as narrower, it locks people out."""
    assert rule_of(granted).allows(asked) is expected
    assert policy(granted).allowed(ALICE, asked).allowed is expected


async def test_subjects_and_scopes() -> None:
    """A binding must reach its subjects in its scope and nobody else."""
    granted = rule("get", "core", "secrets")
    here, there, everywhere = (Attributes("get", "", "secrets", namespace=one, name="x") for one in ("a", "b", ""))
    local = policy(granted, namespace="a")
    assert [local.allowed(ALICE, one).allowed for one in (here, there, everywhere)] == [True, False, False]
    glob = policy(granted)
    assert [glob.allowed(ALICE, one).allowed for one in (here, there, everywhere)] == [True, True, True]
    assert not local.allowed(User("bob"), here).allowed
    assert 'ClusterRoleBinding "b" of ClusterRole "r" to User "alice"' in glob.allowed(ALICE, here).reason
    by_group = policy(granted, subjects=[{"kind": "Group", "name": "people"}])
    assert by_group.allowed(ALICE, here).allowed
    assert not by_group.allowed(User("people", ("x",)), here).allowed
    account = User("system:serviceaccount:a:robot", ("system:serviceaccounts",))
    for namespace, subject in (
        ("a", {"kind": "ServiceAccount", "name": "robot"}),
        ("", {"kind": "ServiceAccount", "name": "robot", "namespace": "a"}),
    ):
        assert policy(granted, namespace=namespace, subjects=[subject]).allowed(account, here).allowed
    assert not policy(granted, subjects=[{"kind": "ServiceAccount", "name": "robot"}]).allowed(account, here).allowed
    assert not policy(granted, subjects=[{"kind": "User", "name": "robot"}]).allowed(account, here).allowed


def test_changes_hold_at_once() -> None:
    """A role that is taken away and still holds is the classic hole of caches."""
    asked = Attributes("get", "", "secrets", namespace="a", name="x")
    made = policy(rule("get", "core", "secrets"), namespace="a")
    assert made.allowed(ALICE, asked).allowed
    made.put(CLUSTER_ROLES, "", "r", {"rules": []})
    assert not made.allowed(ALICE, asked).allowed
    made.put(CLUSTER_ROLES, "", "r", {"rules": [rule("get", "core", "secrets")]})
    assert made.allowed(ALICE, asked).allowed
    made.put(ROLE_BINDINGS, "a", "b", {"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": []})
    assert not made.allowed(ALICE, asked).allowed
    made = policy(rule("get", "core", "secrets"), namespace="a")
    made.put(ROLE_BINDINGS, "a", "b", None)
    assert not made.allowed(ALICE, asked).allowed
    made.put(ROLE_BINDINGS, "a", "b", None)  # twice does no harm
    # A Role of another namespace, and a ClusterRoleBinding to a Role, give nothing.
    made.put(ROLES, "other", "r", {"rules": [rule("get", "core", "secrets")]})
    made.put(ROLE_BINDINGS, "a", "b", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "alice"}]})
    assert not made.allowed(ALICE, asked).allowed
    made.put(
        CLUSTER_ROLE_BINDINGS,
        "",
        "c",
        {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "alice"}]},
    )
    assert not made.allowed(ALICE, asked).allowed


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subjects": "x", "roleRef": {"kind": "ClusterRole", "name": "r"}},
        {"roleRef": 1},
        {"roleRef": {"kind": "ClusterRole", "name": 3}, "subjects": [None, {"kind": "User"}]},
    ],
)
def test_broken_objects_grant_nothing(body: dict[str, Any]) -> None:
    """What an older version stored must neither grant nor end the server."""
    made = policy(rule("*", "*", "*"))
    made.put(CLUSTER_ROLE_BINDINGS, "", "b", body)
    assert not made.allowed(ALICE, Attributes("get", "", "secrets")).allowed


@pytest.mark.parametrize(
    ("wanted", "had", "covered"),
    [
        (rule("get", "core", "secrets"), [rule("get list", "core", "secrets")], True),
        (rule("get list", "core", "secrets"), [rule("get", "core", "secrets"), rule("list", "core", "secrets")], True),
        (rule("get", "core", "secrets"), [rule("get", "core", "secrets", "a")], False),
        (rule("get", "core", "secrets", "a"), [rule("get", "core", "secrets")], True),
        (rule("get", "core", "secrets", "a b"), [rule("get", "core", "secrets", "a"), rule("get", "core", "secrets", "b")], True),
        (rule("get", "core", "secrets", "a c"), [rule("get", "core", "secrets", "a b")], False),
        (rule("*", "core", "secrets"), [rule("get list watch create", "core", "secrets")], False),
        (rule("get", "*", "secrets"), [rule("get", "core", "secrets")], False),
        (rule("get", "core", "*"), [rule("get", "core", "secrets")], False),
        (rule("get", "core", "services/status"), [rule("get", "core", "*/status")], True),
        (rule("get", "core", "services"), [rule("get", "core", "*/status")], False),
        (rule("get", paths="/a/b"), [rule("get", paths="/a/*")], True),
        (rule("get", paths="/a/*"), [rule("get", paths="/a/b")], False),
        (rule("get", paths="*"), [rule("get", paths="/*")], False),
        (rule("get", paths="/a"), [rule("*", "*", "*")], False),
        (rule("get", "core", "secrets"), [rule("*", paths="*")], False),
    ],
)
def test_who_grants_must_have(wanted: dict[str, Any], had: list[dict[str, Any]], covered: bool) -> None:
    """A writer of roles who can grant what he has not is an administrator."""
    assert (not uncovered([rule_of(wanted)], [rule_of(one) for one in had])) is covered


def test_a_huge_role_is_not_taken_apart() -> None:
    """A role of a million parts would hold the whole server up."""
    words = frozenset(str(number) for number in range(1000))
    began = time.perf_counter()
    assert uncovered([Rule(words, words, words)] * 3, [Rule(frozenset("a"), words, words)])
    assert time.perf_counter() - began < 1


_words = st.frozensets(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2)
_rules = st.builds(
    Rule,
    _words,
    _words,
    st.frozensets(st.sampled_from(["x", "x/s", "*/s", "*"]), min_size=1, max_size=2),
    st.frozensets(st.sampled_from(["n", "m"]), max_size=2),
)


@given(st.lists(_rules, max_size=3), st.lists(_rules, max_size=3), st.randoms())
def test_what_is_covered_grants_nothing_more(wanted: list[Rule], had: list[Rule], chance: random.Random) -> None:
    """If the comparison says that nothing is lacking, no request may exist that the new role allows and the old ones do not."""
    if uncovered(wanted, had):
        return
    for _ in range(30):
        asked = Attributes(
            chance.choice("abc"),
            chance.choice("abc"),
            chance.choice("xy"),
            chance.choice(["", "s", "t"]),
            "",
            chance.choice(["", "n", "m", "o"]),
        )
        if any(one.allows(asked) for one in wanted):
            assert any(one.allows(asked) for one in had), asked


def test_everything_covers_everything() -> None:
    """An aggregated role may gather anything: its writer must have all, and who has all may write it."""
    assert not uncovered(EVERYTHING, EVERYTHING)
    assert uncovered(EVERYTHING, [EVERYTHING[0]])


def test_a_decision_costs_microseconds() -> None:
    """Every request and every object of a rollback asks; a scan of a thousand bindings each time would be the server's load."""
    made = Policy()
    for number in range(2000):
        made.put(CLUSTER_ROLES, "", f"r{number}", {"rules": [rule("get list watch", "core", "services secrets")]})
        body = {"roleRef": {"kind": "ClusterRole", "name": f"r{number}"}, "subjects": [{"kind": "User", "name": f"u{number}"}]}
        made.put(ROLE_BINDINGS, f"n{number % 100}", f"b{number}", body)
    made.put(
        CLUSTER_ROLE_BINDINGS,
        "",
        "x",
        {"roleRef": {"kind": "ClusterRole", "name": "r1"}, "subjects": [{"kind": "Group", "name": "people"}]},
    )
    asked = Attributes("get", "", "secrets", namespace="n5", name="x")
    began = time.perf_counter()
    for _ in range(2000):
        assert made.allowed(ALICE, asked).allowed
    assert (time.perf_counter() - began) / 2000 < 200e-6  # some 3 µs on a quiet machine
