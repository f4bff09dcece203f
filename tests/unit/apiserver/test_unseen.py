"""What nobody may see is seen nowhere: a canary in Secrets and tokens, and a search through all that the server says and logs."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aiohttp import web

from tests.support.apiserver import running
from tests.support.asking import Person, binding, grant, role, rule
from tests.support.issuer import issuing
from tests.support.wire import wire
from tulle.control.apiserver.oidc import Oidc, OidcSettings
from tulle.control.apiserver.server import ApiServer
from tulle.control.history_api import add_history

CANARY = "canary-7f3a9b"
CODED = base64.b64encode(CANARY.encode()).decode()
SECRETS = "/api/v1/namespaces/default/secrets"
FORMS = (CANARY, CODED, CODED.rstrip("="), base64.b64encode(CODED.encode()).decode().rstrip("="))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Everything that is logged, by structlog or by the standard library, at every level."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as found:
        yield found


class Listener(Person):
    """A person who keeps everything that he is told: status, headers, body."""

    told: list[str]

    async def __aenter__(self) -> Listener:
        await super().__aenter__()
        return self

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.served.url + path, **options) as response:
            text = await response.text()
            self.told.append(f"{method} {path.partition('?')[0]}: {response.status} {list(response.headers.items())} {text}")
            return response.status, (json.loads(text) if response.content_type == "application/json" else text)


def secret(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}} | fields


# Secrets that are wrong, each with the canary where the mistake is, or beside it.
WRONG: list[Any] = [
    secret(data={"k": CANARY}),
    secret(data={"k": CODED + "!"}),
    secret(data={"k": [CANARY]}),
    secret(data={"k": {CANARY: CANARY}}),
    secret(data=CANARY),
    secret(data=[CANARY]),
    secret(data={"k": CODED, "l": 5}),
    secret(stringData={"k": {"x": CANARY}}),
    secret(stringData={"k": [CANARY]}),
    secret(stringData=CANARY),
    secret(data={"k": CODED}, type=[CANARY]),
    secret(data={"k": CODED}, immutable=CANARY),
    secret(data={"k": CODED}, dta={"k": CANARY}),
    secret(
        data={"k": CODED}, metadata={"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": [CANARY]}}
    ),
    secret(data={"k": CODED}, metadata={"name": "s", "annotations": {"a": CANARY + "x" * 300_000}}),
    secret(data={"k": CODED}, metadata={"name": "s", "annotations": CANARY}),
    secret(data={"k": CODED}, metadata={"name": "s", "labels": {"a b": "c"}}),
    secret(data={"k": CODED}, metadata={"name": "NOT A NAME"}),
    secret(data={"k k": CODED}),
    secret(data={"k": CODED}, apiVersion="v7"),
    secret(data={"k": CODED}, kind="Secert"),
    secret(data={"k": CODED}, status={"k": CANARY}),
]


async def test_a_secret_is_seen_by_who_may_read_it_and_nowhere_else(logged: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Errors, warnings, tables, lists of metadata, watches, histories, refusals and logs: none has a value of a Secret."""
    servers: list[ApiServer] = []
    history = web.Application()
    add_history(history, lambda: servers[0].objects)
    told: list[str] = []
    async with running(extra_apps={"/tulle/v1": history}) as served:
        servers.append(served.server)
        await grant(served, role("l", rule("list watch", "core", "secrets")), binding("l", "l", "User/leo"))
        async with Listener(served, "admin", "system:masters") as admin, Listener(served, "leo") as leo:
            admin.told = leo.told = told
            kinds = {
                "json": "application/json",
                "yaml": "application/yaml",
                "protobuf": "application/vnd.kubernetes.protobuf",
                "merge": "application/merge-patch+json",
                "strategic": "application/strategic-merge-patch+json",
                "steps": "application/json-patch+json",
                "apply": "application/apply-patch+yaml",
            }
            async with Person(served, "admin", "system:masters") as quiet:
                assert await quiet.status("POST", SECRETS, secret(data={"k": CODED})) == 201
            for body in WRONG:
                text = json.dumps(body)
                for strict in ("Strict", "Warn", "Ignore"):
                    query = f"fieldValidation={strict}&fieldManager=x"
                    for method, path, kind in (
                        ("POST", SECRETS, "json"),
                        ("POST", SECRETS, "yaml"),
                        ("POST", "/api/v1/namespaces/default/configmaps", "json"),
                        ("PUT", f"{SECRETS}/s", "json"),
                        ("PATCH", f"{SECRETS}/s", "merge"),
                        ("PATCH", f"{SECRETS}/s", "strategic"),
                        ("PATCH", f"{SECRETS}/s", "steps"),
                        ("PATCH", f"{SECRETS}/s", "apply"),
                    ):
                        # Where a write succeeds (what is wrong was left out) its answer is the Secret, for its writer.
                        before = len(told)
                        status, _ = await admin.ask(
                            method, f"{path}?{query}&dryRun=All", data=text, headers={"Content-Type": kinds[kind]}
                        )
                        if status < 300:
                            del told[before:]
            for kind, data in (
                ("json", f'{{"data": {{"k": "{CANARY}"'),
                ("json", f'{{"data": {{"k": {CANARY}}}}}'),
                ("json", f"{CANARY}"),
                ("json", f'"{CANARY}"'),
                ("yaml", f"data: {{k: {CANARY}"),
                ("yaml", f"data:\n  k: {CANARY}\n k: *{CANARY}\n"),
                ("yaml", f"data: !!{CANARY} x\n"),
                ("yaml", f"--- {CANARY}\n--- {CANARY}\n"),
                ("protobuf", f"k8s\x00{CANARY}"),
                ("protobuf", CANARY),
            ):
                for method, path in (("POST", SECRETS), ("PUT", f"{SECRETS}/s"), ("DELETE", f"{SECRETS}/s")):
                    status, _ = await admin.ask(
                        method, f"{path}?dryRun=All", data=data.encode(), headers={"Content-Type": kinds[kind]}
                    )
                    assert status >= 400, (kind, data)
            for steps in (
                [{"op": "test", "path": "/data/k", "value": CANARY}],
                [{"op": "add", "path": "/data/k/x", "value": CANARY}],
                [{"op": "replace", "path": "/data/x", "value": CANARY}],
                [{"op": "move", "from": "/data/k", "path": "/data/k/x"}],
                [{"op": "copy", "from": "/data/k", "path": "/metadata/labels"}],
                [{"op": "add", "path": "/data/k", "value": CANARY}],
                CANARY,
                [CANARY],
            ):
                status, _ = await admin.ask("PATCH", f"{SECRETS}/s?dryRun=All", steps, headers={"Content-Type": kinds["steps"]})
                assert status >= 400, steps

            table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
            partial = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
            one = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
            for headers in (table, partial):
                assert await leo.status("GET", SECRETS, headers=headers) == 200
            for headers in (table, one):
                assert await leo.status("GET", f"{SECRETS}?watch=true&timeoutSeconds=1", headers=headers) == 200
                assert await admin.status("GET", f"{SECRETS}/s", headers=headers) == 200
            for method, path in (
                ("GET", f"{SECRETS}/s"),
                ("DELETE", f"{SECRETS}/s"),
                ("GET", "/tulle/v1/history?resource=secrets"),
            ):
                assert await leo.status(method, path) == 403
            # The object is read back whole by its writer; its bookkeeping names fields and no values.
            async with Person(served, "admin", "system:masters") as quiet:
                _, whole = await quiet.ask("GET", f"{SECRETS}/s")
                assert whole["data"] == {"k": CODED}
                told.append(json.dumps(whole["metadata"]))
                merge = {"headers": {"Content-Type": kinds["merge"]}}
                assert await quiet.status("PATCH", f"{SECRETS}/s", {"immutable": True}, **merge) == 200
            other = base64.b64encode(b"other").decode()
            assert (
                await admin.status("PATCH", f"{SECRETS}/s", {"data": {"k": other}}, headers={"Content-Type": kinds["merge"]})
                == 422
            )
            status, changes = await admin.ask("GET", "/tulle/v1/history?resource=secrets")
            assert (status, len(changes["changes"])) == (200, 2)
            assert await admin.status("DELETE", f"{SECRETS}/s", {"preconditions": {"uid": "x"}}) == 409
            assert await admin.status("POST", SECRETS, secret(data={"k": CODED})) == 409
            assert await admin.status("DELETE", f"{SECRETS}/s") == 200
            assert await admin.status("GET", "/api/v1/events") == 200
    assert len(told) > 500
    _search(told, logged, caplog)


async def test_a_token_is_seen_by_who_gets_it_and_nowhere_else(
    logged: list[Any], caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    """Good tokens, bad tokens, tokens in the wrong place and in broken requests: in no answer and in no log."""
    told: list[str] = []
    async with issuing() as issuer:
        (tmp_path / "ca.pem").write_bytes(issuer.ca.pem)
        oidc = Oidc(OidcSettings(issuer.url, "tulle", ca_file=tmp_path / "ca.pem"))
        async with running(foreign=oidc) as served:
            async with Person(served, "admin", "system:masters") as quiet:
                _, made = await quiet.ask("POST", "/tulle/v1/apitokens", {"user": "vera", "groups": ["tulle:viewers"]})
                await quiet.ask(
                    "POST",
                    "/api/v1/namespaces/default/serviceaccounts",
                    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}},
                )
                _, account = await quiet.ask("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", {})
            good = [made["token"], account["status"]["token"], issuer.token(), issuer.token(aud="other"), issuer.token(exp=1)]
            broken = [CANARY, f"tulle-api.{CANARY}", f"ey.{CANARY}.x", f"{made['token']}{CANARY}"]
            for token in (*good, *broken):
                async with (
                    Listener(served, token=token) as person,
                    Listener(served) as nobody,
                    Listener(served, "admin", "system:masters") as admin,
                ):
                    person.told = nobody.told = admin.told = told
                    for path in ("/api/v1/services", SECRETS, "/tulle/v1/apitokens", "/nothing", "/healthz"):
                        await person.ask("GET", path)
                    await person.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
                    await nobody.ask("GET", f"/api/v1/services?token={token}")
                    await nobody.ask("GET", "/api/v1/services", headers={"Authorization": f"Basic {token}"})
                    await nobody.ask("GET", "/api/v1/services", headers={"Cookie": f"token={token}"})
                    review = "/apis/authentication.k8s.io/v1/tokenreviews"
                    await admin.ask("POST", review, {"spec": {"token": token}})
                    await admin.ask("POST", review, {"spec": {"token": [token]}})
                    await admin.ask("POST", review, {"spec": token})
                    await admin.ask("POST", "/tulle/v1/apitokens", {"user": [token], "groups": token})
                    await admin.ask("GET", "/tulle/v1/apitokens")
                    await admin.ask(
                        "GET", "/api/v1/services", headers={"Authorization": f"Bearer {token}", "Impersonate-Group": "x"}
                    )
                for request in (
                    f"GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\x00\r\n\r\n",
                    f"GET /api HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {token}\r\n\r\n",
                    f"GET /api HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{token}\r\n\r\n",
                    f"Bearer {token}\r\n\r\n",
                    f"GET /{'x' * 20_000} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n",
                    f"POST /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: x\r\n\r\n",
                ):
                    async with wire(served) as raw:
                        await raw.send(request)
                        told.append((await raw.read(b"\r\n\r\n{")).decode(errors="replace"))
    secrets = [part for token in good for part in (token, token.rpartition(".")[2]) if part]
    _search(told, logged, caplog, secrets)


async def test_a_bug_does_not_tell_either(logged: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """A handler that falls over with a Secret in its hands: the answer and the log tell where, and no value."""
    told: list[str] = []
    async with running() as served:

        class Broken:
            async def judge(self, *_: Any) -> list[str]:
                value = {"data": {"k": CODED}}
                raise KeyError(sorted(value))

            def expect(self, *_: Any) -> None: ...

        served.server.objects.judge = Broken()
        async with Listener(served, "admin", "system:masters") as admin:
            admin.told = told
            assert await admin.status("POST", SECRETS, secret(data={"k": CODED})) == 500
    assert any(one["event"] == "a bug answered a request" for one in logged)
    _search(told, logged, caplog)


def _search(told: list[str], logged: list[Any], caplog: pytest.LogCaptureFixture, secrets: list[str] | None = None) -> None:
    words = [*FORMS, *(secrets or ())]
    for text in (
        *told,
        *(repr(one) for one in logged),
        *(f"{one.getMessage()} {one.exc_text} {one.args}" for one in caplog.records),
    ):
        found = [word for word in words if word in text]
        assert not found, f"{found} in {text[:2000]}"
