"""A server that speaks first is not heard by those whom policies shut out, as a real Envoy keeps it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.guarded import Guarded, guarded, policy
from tests.unit.core.compile.mesh import obj
from tests.unit.core.envoy.test_authorization import CALLERS, A, B, rule
from tulle.core.envoy.early import encode_early
from tulle.core.model.authorization import OPEN_TO_STRANGERS, Action, Attribute, Authorization, Compare, Fact, Policy, Rule, Term

GREETING = b"220 hello\r\n"
ONLY_A = {"rules": [rule({"principals": ["cluster.local/ns/default/sa/a"]})]}


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says something at once, then says again what it hears."""
    try:
        writer.write(GREETING)
        while data := await reader.read(1000):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def heard(web: Guarded, identity: str, says: bytes = b"") -> bytes:
    """What a caller hears who waits for the server first; then, if it `says` something, all until the connection ends."""
    reader, writer = await web.connected(web.tcp, web.context(identity) if identity else None)
    try:
        async with asyncio.timeout(20):
            found = await reader.read(100)
            if found and says:
                writer.write(says)
                while data := await reader.read(100):
                    found += data
                    if found.endswith(says):
                        break
        return found
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_who_hears_the_greeting(tmp_path: Path) -> None:
    """Broken: who is shut out hears what a server says unasked; or who may call does not hear it."""
    no: dict[str, Any] = {"action": "DENY"}
    async with guarded(tmp_path, greet) as web:
        for objects, expected in (
            ([], [True, True, True]),
            ([policy("nothing", {})], [False, False, False]),
            ([policy("a", ONLY_A)], [True, False, False]),
            ([policy("try", {}, dry_run="true")], [True, True, True]),
            ([policy("no", {**no, "rules": [rule({"namespaces": ["other"]})]})], [True, False, True]),
            ([policy("no", {**no, "rules": [rule({"notPrincipals": ["*/sa/a"]})]})], [True, False, False]),
            ([policy("no", {**no, "rules": [rule(None, {"ports": [str(web.tcp)]})]})], [False, False, False]),
            ([policy("no", {**no, "rules": [rule(None, {"ports": [str(web.http)]})]})], [True, True, True]),
            ([policy("get", {"rules": [rule(None, {"methods": ["GET"]})]})], [False, False, False]),
            ([policy("a", {"rules": [rule({"serviceAccounts": ["a"]}, {"ports": [str(web.tcp)]})]})], [True, False, False]),
            ([policy("a", {"rules": [rule({"serviceAccounts": ["a"]}, {"ports": [str(web.http)]})]})], [False, False, False]),
        ):
            await web.apply(*objects)
            assert [await heard(web, caller) == GREETING for caller in CALLERS] == expected, objects
        await web.apply(policy("a", ONLY_A))
        assert await heard(web, A, b"ehlo") == GREETING + b"ehlo"
        assert await heard(web, B, b"ehlo") == b""


async def test_what_only_the_first_bytes_decide(tmp_path: Path) -> None:
    """Broken: who is not shut out for certain would not be served, or who is would be once he says something."""
    async with guarded(tmp_path, greet) as web:
        await web.apply(policy("here", {"rules": [rule({"ipBlocks": ["127.0.0.0/8"]})]}))
        assert await heard(web, A, b"ehlo") == GREETING + b"ehlo"
        assert await heard(web, "", b"ehlo") == GREETING + b"ehlo"
        await web.apply(policy("there", {"rules": [rule({"ipBlocks": ["192.0.2.0/24"]})]}))
        assert await heard(web, "", b"ehlo") == GREETING, "an address is not looked at before"


async def test_an_idle_timeout_is_kept(tmp_path: Path) -> None:
    """Broken: connections to a port with policies would stay open for ever, for Envoy forgets with an attempt that fails."""
    pool = {"tcp": {"idleTimeout": "1s"}}
    spec = {"workloadSelector": {"labels": {"app": "web"}}, "inboundConnectionPool": pool}
    sidecar = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "s"}, "spec": spec}
    async with guarded(tmp_path, greet) as web:
        await web.apply(obj(sidecar), policy("a", ONLY_A))
        reader, writer = await web.connected(web.tcp, web.context(A))
        async with asyncio.timeout(20):
            assert await reader.read() == GREETING
        writer.close()


@pytest.mark.parametrize("text", ["a'b", "100%", ")%", "\\", "é", "\U0001f600", "a) ? 'x' : ''"])
def test_texts_are_texts(text: str) -> None:
    """Broken: a name with a quote or a percent sign ends the expression, and the proxy refuses its configuration."""
    fact = Fact(Attribute.SNI, text, Compare.PREFIX)
    row = Authorization(OPEN_TO_STRANGERS, (Policy("default", "p", Action.DENY, (Rule(0, sources=((Term((fact,)),),)),)),))
    value = encode_early(row).value
    said = value[value.index(b"%CEL(") : value.rindex(b")%")]
    assert said.count(b"%") == 1
    assert said.count(b"'") == 6
