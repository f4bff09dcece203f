"""Istio's own tokens and keys (of its JWT tasks) as a real Envoy and `evaluate` take them, with the policies of those tasks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.corpora import corpora
from tests.support.guarded import guarded, policy
from tests.unit.control.test_key_sets import serving
from tests.unit.core.compile.mesh import obj
from tests.unit.core.envoy.test_tokens import ask, bearer
from tulle.control.key_sets import fetched
from tulle.core.compile.guards import authorization
from tulle.core.compile.tokens import Wanted
from tulle.core.evaluate import Request
from tulle.core.evaluate.authorization import Call, judge
from tulle.core.evaluate.tokens import believe
from tulle.core.model.authorization import TokenRule

ISSUER = "testing@secure.istio.io"


class Istios(NamedTuple):
    """What Istio publishes."""

    keys: str
    demo: str
    groups: str


@pytest.fixture
def istios() -> Istios:
    folder = corpora("istio/jwt")
    return Istios(*((folder / name).read_text().strip() for name in ("jwks.json", "demo.jwt", "groups-scope.jwt")))


def believes(keys: str, **rule: Any) -> Any:
    metadata = {"name": "jwt-example", "namespace": "default"}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "jwtRules": [{"issuer": ISSUER, "jwks": keys, **rule}]}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": spec})


def require(**when: list[str]) -> Any:
    rule: dict[str, Any] = {"from": [{"source": {"requestPrincipals": [f"{ISSUER}/{ISSUER}"]}}]}
    rule["when"] = [{"key": key, "values": values} for key, values in when.items()]
    return policy("require-jwt", {"selector": {"matchLabels": {"app": "web"}}, "rules": [rule]})


def mixed(token: str, other: str) -> str:
    """Signed for something else."""
    head, _body, signature = token.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


async def test_the_tasks_of_istio(tmp_path: Path, istios: Istios) -> None:
    """Broken: what people read in Istio's tasks on tokens would not hold here, or `authz check` say something else."""
    async with guarded(tmp_path) as web:
        demo, groups = istios.demo, istios.groups
        scopes = {"request.auth.claims[scope]": ["scope2"]}
        in_group = {"request.auth.claims[groups]": ["group1"]}
        foo = {"request.auth.claims[foo]": ["bar"]}
        for objects, expected in (
            # no token, a wrong one, demo, groups-scope, each changed
            ([believes(istios.keys)], (200, 401, 200, 200, 401, 401)),
            ([believes(istios.keys), require()], (403, 401, 200, 200, 401, 401)),
            ([believes(istios.keys), require(**in_group)], (403, 401, 403, 200, 401, 401)),
            ([believes(istios.keys), require(**scopes)], (403, 401, 403, 200, 401, 401)),
            ([believes(istios.keys), require(**foo)], (403, 401, 200, 403, 401, 401)),
            ([believes(istios.keys, audiences=["shop"])], (200, 401, 403, 403, 403, 403)),
            ([believes(istios.keys, issuer="other")], (200, 401, 401, 401, 401, 401)),
        ):
            await web.apply(*objects)
            workload = web.pipeline.workload("default/web")
            assert workload is not None
            row = web.pipeline.flow.get(authorization, (("default", "web"), workload.guard))
            assert row is not None
            seen, said = [], []
            for token in ("", "deadbeef", demo, groups, mixed(demo, groups), mixed(groups, demo)):
                lines = [bearer(token)] if token else []
                seen.append((await ask(web, *lines))[0])
                request = Request("web", headers=(("authorization", f"Bearer {token}"),) if token else ())
                found = believe(row.tokens, request, time.time())
                allowed = judge(row, Call(destination_port=web.http, request=request, claims=found.claims)).allowed
                said.append(found.status or (200 if allowed else 403))
            assert tuple(seen) == expected, objects
            assert tuple(said) == expected, objects


async def test_claims_in_headers(tmp_path: Path, istios: Istios) -> None:
    """Broken: the application would not be told what Istio's task on claims tells it."""
    async with guarded(tmp_path) as web:
        claims = [{"claim": "foo", "header": "x-jwt-claim-foo"}]
        await web.apply(believes(istios.keys, outputClaimToHeaders=claims, fromHeaders=[{"name": "x-jwt-token"}]))
        status, got = await ask(web, f"x-jwt-token: {istios.demo}")
        assert (status, "x-jwt-claim-foo: bar\r\n" in got) == (200, True)
        assert istios.demo.lower() not in got


async def test_keys_from_their_url(istios: Istios) -> None:
    """Broken: keys that are fetched would be others than the same ones written out."""
    async with serving({"/jwks.json": istios.keys}) as url:
        found = await fetched(Wanted(f"{url}/jwks.json", 5))
    assert not found.why
    request = Request("web", headers=(("authorization", f"Bearer {istios.demo}"),))
    for keys, good in ((found.keys, True), ("", False)):
        said = believe([TokenRule("a", ISSUER, keys=keys)], request, time.time())
        assert (said.claims is not None) is good, said
